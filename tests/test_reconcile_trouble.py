"""The agent's policy when something is not as usual: failures, disarm, copies started by hand, a host shut down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.reconcile import describe, next_at, reconcile
from agents.steps import Seen, SeenVserver, Ship, Stop
from failover.model import Kind, Restart, Shutdown, State, Told, Want
from tests.seen import (
    BETAS,
    BY_HAND,
    CRASHED,
    FROZEN,
    ILL,
    KEEP,
    LEASED,
    MOVING,
    NEVER,
    NOW,
    OVER,
    RESTS,
    RUNS,
    SHIPPED,
    STRICT,
    failures,
    told,
)  # fmt: skip
from tests.views import V1, owned

# name: (told, seen, the end of the lease, the names of the expected steps)
Case = tuple[Told, SeenVserver, float, tuple[str, ...]]

STOPPING = told(owned(want=Want.STOPPED))
UNSTOPPED = replace(RUNS, shipped=SHIPPED, failed={"stop": (7, "it will not die")}, failures=failures(1.9, 0.9))

# What fails: restart is {local: 2, within: 600 s} unless said otherwise.
FAILURES: dict[str, Case] = {
    "what failed under an older epoch has not failed under this one": (
        told(owned(target="beta", epoch=8)),
        replace(RUNS, failed={"ship beta": (7, "beta cannot be reached"), "stop": (7, "it hangs")}),
        LEASED,
        ("ship beta",),
    ),
    "what failed is not started again before a pause": (
        told(owned()),
        replace(CRASHED, failures=failures(0.9)),
        LEASED,
        (),
    ),
    "what failed once is started again after 1 s": (
        told(owned()),
        replace(CRASHED, failures=failures(1.0)),
        LEASED,
        ("start",),
    ),
    "what failed twice is started again after 2 s": (
        told(owned()),
        replace(CRASHED, failures=failures(9.0, 2.0)),
        LEASED,
        ("start",),
    ),
    "... and not before": (told(owned()), replace(CRASHED, failures=failures(9.0, 1.9)), LEASED, ()),
    "the pause is never longer than 30 s": (
        told(owned(), vserver=replace(NEVER, restart=Restart(local=99))),
        replace(CRASHED, failures=failures(*range(80, 29, -1))),
        LEASED,
        ("start",),
    ),
    "what failed more often than it is restarted here is left to the leader": (
        told(owned()),
        replace(CRASHED, failures=failures(99.0, 90.0, 80.0)),
        LEASED,
        (),
    ),
    "... also when the failures have become old": (
        told(owned()),
        replace(CRASHED, failures=failures(9003.0, 9002.0, 9001.0)),
        LEASED,
        (),
    ),
    "without local restarts the first failure is one too many": (
        told(owned(), vserver=STRICT),
        replace(CRASHED, failures=failures(99.0)),
        LEASED,
        (),
    ),
    "failures long before the newest do not count": (
        told(owned()),
        replace(CRASHED, failures=failures(700.0, 690.0, 1.0)),
        LEASED,
        ("start",),
    ),
    "a new epoch counts anew": (
        told(owned()),
        replace(CRASHED, failures=failures(3.0, 2.0, 1.0, epoch=6)),
        LEASED,
        ("start",),
    ),
    "what is in error is still shipped": (
        told(owned(), vserver=replace(V1, restart=Restart(local=0))),
        replace(RESTS, failures=failures(9.0)),
        LEASED,
        ("ship beta", "ship gamma"),
    ),
    "what failed to start where it was moved to is not shipped: it may go back": (
        told(owned(source="beta", kind=Kind.PLANNED), vserver=V1),
        replace(RESTS, failures=failures(0.0)),
        LEASED,
        (),
    ),
    "after the lease what failed is not started": (
        told(owned()),
        replace(CRASHED, failures=failures(1.0)),
        OVER,
        (),
    ),
    "what fails its health checks is stopped, to be started again": (told(owned()), ILL, LEASED, ("stop",)),
    "... unless it has been restarted here often enough: then it runs on, and the leader is told": (
        told(owned()),
        replace(ILL, failures=failures(99.0, 50.0)),
        LEASED,
        (),
    ),
    "... or cannot be stopped": (
        told(owned()),
        replace(ILL, failed={"stop": (7, "it will not die")}),
        LEASED,
        (),
    ),
    "a stop that failed is not tried again before a pause": (STOPPING, UNSTOPPED, LEASED, ()),
    "... and then it is": (STOPPING, replace(UNSTOPPED, failures=failures(3.0, 2.0)), LEASED, ("stop",)),
    "... also when only its network is left": (
        STOPPING,
        replace(UNSTOPPED, state=State.STOPPED, networked=True, failures=failures(1.0)),
        LEASED,
        ("stop",),
    ),
    "what is wanted is started though its network was left": (
        told(owned()),
        replace(CRASHED, networked=True, failed=UNSTOPPED.failed),
        LEASED,
        ("start",),
    ),
    "what runs well again is left running, however often it has failed": (
        told(owned()),
        replace(RUNS, shipped=SHIPPED, failures=failures(3.0, 2.0, 1.0)),
        LEASED,
        (),
    ),
}

DISARMED: dict[str, Case] = {
    "disarmed: nothing is started": (told(owned(), disarmed=True), CRASHED, LEASED, ()),
    "disarmed: nothing is stopped": (
        told(owned(want=Want.STOPPED), disarmed=True),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        (),
    ),
    "disarmed: nothing is restarted because of its health checks": (told(owned(), disarmed=True), ILL, LEASED, ()),
    "disarmed: nothing is handed over": (
        told(MOVING, disarmed=True),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        (),
    ),
    "disarmed: nothing is set aside": (told(BETAS, disarmed=True), RESTS, LEASED, ()),
    "disarmed: what runs is shipped as ever": (
        told(owned(), disarmed=True),
        RUNS,
        LEASED,
        ("ship beta", "ship gamma"),
    ),
    "disarmed: what runs is frozen at the end of the lease": (told(owned(), disarmed=True), RUNS, OVER, ("freeze",)),
    "disarmed: and thawed": (told(owned(), disarmed=True), FROZEN, LEASED, ("thaw",)),
    "disarmed: but not what is wanted stopped": (
        told(owned(want=Want.STOPPED), disarmed=True),
        FROZEN,
        LEASED,
        (),
    ),
    "disarmed: what has ended here and runs elsewhere by hand leaves no address": (
        told(owned(target="beta", unshipped=True), disarmed=True),
        replace(RESTS, networked=True),
        LEASED,
        ("kill",),
    ),
    "disarmed: what another host owns is killed": (told(BETAS, disarmed=True), RUNS, LEASED, ("kill",)),
    "disarmed: what was kept for the shutdown is not stopped": (
        told(owned(), vserver=KEEP, disarmed=True),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        (),
    ),
}

BY_HANDS: dict[str, Case] = {
    "a copy started by hand is left to the leader for one epoch": (told(BETAS), BY_HAND, LEASED, ()),
    "... then it is killed": (told(replace(BETAS, epoch=9)), BY_HAND, LEASED, ("kill",)),
    "... unless its owner lets go of it for this host": (
        told(replace(BETAS, epoch=9, target="alpha", unshipped=True)),
        BY_HAND,
        LEASED,
        (),
    ),
    "... or, if the leader gave it to this host, adopted": (
        told(owned(epoch=9)),
        replace(BY_HAND, shipped=SHIPPED),
        LEASED,
        (),
    ),
    "a copy started by hand before anybody had it is killed once another host has it": (
        told(replace(BETAS, epoch=1)),
        replace(BY_HAND, by_hand_epoch=0),
        LEASED,
        ("kill",),
    ),
    "a frozen copy is killed, whoever has started it": (
        told(BETAS),
        replace(BY_HAND, state=State.FROZEN),
        LEASED,
        ("kill",),
    ),
    "a copy started by hand is frozen after the lease": (told(BETAS), BY_HAND, OVER, ("freeze",)),
    "what this host owns may be started by hand": (
        told(owned(epoch=8)),
        replace(BY_HAND, shipped=SHIPPED),
        LEASED,
        (),
    ),
    "... but is stopped if it is wanted stopped": (
        told(owned(want=Want.STOPPED, epoch=8)),
        BY_HAND,
        LEASED,
        ("stop",),
    ),
    "a copy of what is ignored is left alone": (told(replace(BETAS, want=Want.IGNORED)), BY_HAND, LEASED, ()),
}

LEAVING: dict[str, Case] = {
    "leaving: what keeps its host is stopped": (
        told(owned(), vserver=KEEP),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        ("stop",),
    ),
    "leaving: what is to stop with its host is stopped": (
        told(owned(), vserver=replace(KEEP, on_host_shutdown=Shutdown.STOP)),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        ("stop",),
    ),
    "leaving: then it is shipped a last time, to every backup, and not started": (
        told(owned(), vserver=KEEP),
        CRASHED,
        LEASED,
        ("ship beta", "ship gamma"),
    ),
    "leaving: that is once": (
        told(owned(), vserver=KEEP),
        replace(RESTS, shipped={name: replace(last, final=True) for name, last in SHIPPED.items()}),
        LEASED,
        (),
    ),
    "leaving: a last sync that failed is tried again, after a pause": (
        told(owned(), vserver=KEEP),
        replace(CRASHED, failed={"ship beta": (7, "no space left on beta")}),
        LEASED,
        ("ship gamma",),
    ),
    "leaving: a last sync under way is not begun again": (
        told(owned(), vserver=KEEP),
        replace(CRASHED, busy=("ship beta",)),
        LEASED,
        ("ship gamma",),
    ),
    "leaving: a stop that failed is left to the leader": (
        told(owned(), vserver=KEEP),
        replace(RUNS, shipped=SHIPPED, failed={"stop": (7, "it will not die")}),
        LEASED,
        (),
    ),
    "leaving: what was frozen is stopped": (told(owned(), vserver=KEEP), FROZEN, LEASED, ("stop",)),
    "leaving: what may move runs on until the leader moves it": (
        told(owned()),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        (),
    ),
    "leaving: what is handed over is handed over": (told(MOVING, vserver=KEEP), RUNS, LEASED, ("ship beta",)),
    "leaving: nothing is started": (told(owned()), CRASHED, LEASED, ()),
    "leaving: nothing is restarted because of its health checks": (told(owned()), ILL, LEASED, ()),
    "leaving: what is ignored is left alone": (told(owned(want=Want.IGNORED), vserver=KEEP), RUNS, LEASED, ()),
}


@pytest.mark.parametrize("name", FAILURES | DISARMED | BY_HANDS)
def test_policy(name: str) -> None:
    what, seen, until, expected = (FAILURES | DISARMED | BY_HANDS)[name]
    steps = reconcile(what, Seen({"v1": seen}), until, NOW)
    assert tuple(step.name for step in steps) == expected


@pytest.mark.parametrize("name", LEAVING)
def test_policy_of_a_host_that_is_shut_down(name: str) -> None:
    what, seen, until, expected = LEAVING[name]
    steps = reconcile(what, Seen({"v1": seen}, leaving=True), until, NOW)
    assert tuple(step.name for step in steps) == expected
    assert all(step.final for step in steps if isinstance(step, Ship) and what.assignments["v1"].target is None)


def test_whoever_stops_it_because_it_fails_is_told_why() -> None:
    (failing,) = reconcile(told(owned()), Seen({"v1": ILL}), LEASED, NOW)
    (wanted,) = reconcile(told(owned(want=Want.STOPPED)), Seen({"v1": ILL}), LEASED, NOW)
    assert isinstance(failing, Stop)
    assert isinstance(wanted, Stop)
    assert (failing.because, wanted.because) == (ILL.failing, "")


EVERY = replace(V1, sync=replace(V1.sync, every_s=5.0))
NEVER_AGAIN = float("inf")

# name: (told, seen, whether the host is leaving, in how many seconds to ask again)
MOMENTS: dict[str, tuple[Told, SeenVserver, bool, float]] = {
    "nothing has a time": (told(owned()), replace(RUNS, shipped={}), False, NEVER_AGAIN),
    "a sync is due": (told(owned(), vserver=EVERY), replace(RUNS, shipped=SHIPPED), False, 4.0),
    "a sync under way has no time": (
        told(owned(), vserver=EVERY),
        replace(RUNS, shipped=SHIPPED, busy=("ship beta", "ship gamma")),
        False,
        NEVER_AGAIN,
    ),
    "a restart is due": (told(owned()), replace(RESTS, failures=failures(0.25)), False, 0.75),
    "nothing is due of what is in error": (
        told(owned()),
        replace(RESTS, failures=failures(0.3, 0.2, 0.1)),
        False,
        NEVER_AGAIN,
    ),
    "one that runs ill is restarted when an older failure does not count any more": (
        told(owned()),
        replace(ILL, shipped={}, failures=failures(590.0, 580.0)),
        False,
        10.0,
    ),
    "a stop that failed is due again": (STOPPING, UNSTOPPED, False, 1.1),
    "a kill that failed is due again": (
        told(BETAS),
        replace(FROZEN, failed={"kill": (8, "it will not die")}, failures=failures(0.25, epoch=8)),
        False,
        0.75,
    ),
    "a tree that could not be set aside is due again": (
        told(BETAS),
        replace(CRASHED, failed={"demote": (8, "no room")}, failures=failures(0.25, epoch=8)),
        False,
        0.75,
    ),
    "disarmed no restart is due": (
        told(owned(), disarmed=True),
        replace(RESTS, failures=failures(0.25)),
        False,
        NEVER_AGAIN,
    ),
    "what is not this host's has no time": (told(BETAS, vserver=EVERY), CRASHED, False, NEVER_AGAIN),
    "a last sync that failed is due again": (
        told(owned(), vserver=KEEP),
        replace(CRASHED, failed={"ship beta": (7, "no space left on beta")}),
        True,
        29.0,
    ),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_when_to_ask_again(name: str) -> None:
    what, vserver, leaving, expected_s = MOMENTS[name]
    seen = Seen({"v1": vserver}, leaving=leaving)
    at = next_at(what, seen, NOW)
    assert at - NOW == pytest.approx(expected_s)
    if at != NEVER_AGAIN:
        assert reconcile(what, seen, at + 1, at) != reconcile(what, seen, at + 1, NOW)


@pytest.mark.parametrize(
    "left", [UNSTOPPED, replace(UNSTOPPED, state=State.STOPPED, networked=True)], ids=["it", "net"]
)
@pytest.mark.parametrize("what", [STOPPING, told(MOVING)], ids=["stopped", "moved"])
def test_what_cannot_be_stopped_is_reported_in_error_also_when_only_its_network_is_left(
    what: Told, left: SeenVserver
) -> None:
    report = describe(what, Seen({"v1": left}), NOW).vservers["v1"]
    assert (report.state, report.because) == (State.ERROR, "it will not die")
