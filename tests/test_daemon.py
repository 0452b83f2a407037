"""How the agent and the leader live, and how they end."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from failover.daemon import Daemon


class Counted:
    """It wants its next turn much later; its second one fails."""

    turns = 0

    def turn(self) -> float:
        self.turns += 1
        if self.turns == 2:
            raise ValueError("for the log")
        return 600.0


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["daemon", "--host", "alpha"])
    return Daemon("daemon", "a test")


def test_told_to_end_it_takes_no_turn_when_all_is_done(daemon: Daemon) -> None:
    turner = Counted()
    daemon.finish(turner, lambda: True, 60.0)
    assert turner.turns == 0


def test_told_to_end_it_takes_turns_until_all_is_done_and_does_not_wait_after_the_last(daemon: Daemon) -> None:
    turner, began = Counted(), time.monotonic()

    def done() -> bool:
        daemon.wake()
        return turner.turns == 3

    daemon.finish(turner, done, 60.0)
    assert turner.turns == 3
    assert time.monotonic() < began + 30.0


def test_it_ends_though_what_it_waits_for_never_comes(daemon: Daemon) -> None:
    turner, began = Counted(), time.monotonic()
    daemon.finish(turner, lambda: False, 0.2)
    assert turner.turns == 1
    assert began + 0.2 <= time.monotonic() < began + 30.0
