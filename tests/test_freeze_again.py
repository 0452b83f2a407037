"""A freeze that fails: the agent wants it at every turn, and must not spin over it."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import cast

import pytest

from agents.bonds import Bonds
from agents.machine import FREEZE_AGAIN_S, RealMachine
from agents.peers import UdpPeers
from agents.steps import Freeze
from failover.errors import Refused
from failover.seal import Seal


def frozen(error: Exception, monkeypatch: pytest.MonkeyPatch, directory: Path) -> tuple[int, float]:
    """How often it is tried when the agent asks again at once, and how long until the agent is woken."""
    tried, woken = [], threading.Event()

    def freeze(name: str) -> None:
        tried.append(name)
        raise error

    monkeypatch.setattr("agents.machine.isolation.freeze", freeze)
    machine = RealMachine("alpha", woken.set, Bonds(directory, 1.0), cast(UdpPeers, None), Seal(b""))
    began = time.monotonic()
    machine.begin(Freeze("v"))
    machine.begin(Freeze("v"))
    assert woken.wait(10.0)
    return len(tried), time.monotonic() - began


def test_a_freeze_that_failed_at_once_is_tried_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried, length_s = frozen(OSError(errno.EIO, "it cannot"), monkeypatch, tmp_path)
    assert tried == 1
    assert length_s >= FREEZE_AGAIN_S


def test_what_does_not_run_needs_no_freeze_and_no_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, length_s = frozen(Refused("v does not run"), monkeypatch, tmp_path)
    assert length_s < FREEZE_AGAIN_S
