"""Changes of nftables through its library: for real, in a network namespace of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from agents import nftables
from agents.nftables import Nftables
from failover.errors import FailoverError
from tests.wires import Wires, inside

pytestmark = pytest.mark.needs("root", "nft")

TABLE = "add table inet ours\nadd set inet ours those { type ether_addr; flags timeout; }\n"
ELEMENT = "add element inet ours those { 02:fa:10:00:00:01 timeout 5s }\n"


@pytest.fixture
def netns() -> Iterator[str]:
    wires = Wires()
    yield wires.host("alpha")
    wires.close()


def test_a_change_is_made_and_one_that_fails_is_told_and_changes_nothing(netns: str) -> None:
    ours = Nftables()
    inside(netns, lambda: ours.apply(TABLE, timeout_s=5))
    with pytest.raises(FailoverError, match="No such file or directory"):
        ours.apply(ELEMENT + "delete table inet nobodys\n", timeout_s=5)
    with pytest.raises(FailoverError, match="syntax error"):
        ours.apply("make it so\n", timeout_s=5)
    with pytest.raises(FailoverError, match="No such file or directory"):
        ours.apply("delete element inet ours those { 02:fa:10:00:00:01 }\n", timeout_s=5)
    ours.apply(ELEMENT, timeout_s=5)


def test_the_caller_waits_no_longer_than_it_says_and_nothing_overtakes_an_overdue_change(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, release, calls = Nftables(), threading.Event(), []
    inside(netns, lambda: ours.apply(TABLE, timeout_s=5))
    real = nftables._library()

    class Slow:
        """The kernel is busy: some other program loads a large ruleset."""

        def nft_run_cmd_from_buffer(self, context: int, text: bytes) -> int:
            calls.append(text)
            release.wait(10)
            return int(real.nft_run_cmd_from_buffer(context, text))

    monkeypatch.setattr(nftables, "_library", Slow)
    began = time.monotonic()
    with pytest.raises(FailoverError, match="has not been changed within"):
        ours.apply(ELEMENT, timeout_s=0.05)
    with pytest.raises(FailoverError, match="still busy"):
        ours.apply("flush ruleset\n", timeout_s=0.05)
    assert time.monotonic() - began < 5
    release.set()
    ours.apply("delete element inet ours those { 02:fa:10:00:00:01 }\n", timeout_s=5)
    assert len(calls) == 2, "the overdue one was made, the one after it never"
