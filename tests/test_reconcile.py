"""The agent's policy. `pytest -v tests/test_reconcile.py` prints it: each row's name is a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.reconcile import describe, reconcile
from agents.steps import Bond, Seen, SeenVserver
from failover.model import Capacity, Kind, Promised, Shipment, State, Told, VserverReport, Want
from tests.seen import (
    BETAS,
    BY_HAND,
    COPY,
    CRASHED,
    FROZEN,
    ILL,
    LEASED,
    MOVING,
    NEVER,
    NOW,
    OVER,
    RESTS,
    RUNS,
    SHIPPED,
    failures,
    shipped,
    told,
)  # fmt: skip
from tests.views import V1, cluster, owned

# name: (told, seen, the end of the lease, the names of the expected steps)
CASES: dict[str, tuple[Told, SeenVserver, float, tuple[str, ...]]] = {
    "what nobody was given is left alone": (told(None), RUNS, LEASED, ()),
    "what is ignored is left alone": (told(owned(want=Want.IGNORED)), RUNS, LEASED, ()),
    "what is ignored is left alone after the lease too": (told(owned(want=Want.IGNORED)), RUNS, OVER, ()),
    # the owner
    "an owner starts what is wanted started": (told(owned()), RESTS, LEASED, ("start",)),
    "an owner promotes and starts its replica": (told(owned()), COPY, LEASED, ("start",)),
    "an owner stops what is wanted stopped": (
        told(owned(want=Want.STOPPED)),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        ("stop",),
    ),
    "what was stopped stays so": (told(owned(want=Want.STOPPED)), replace(RESTS, shipped=SHIPPED), LEASED, ()),
    "a step under way is not begun again": (told(owned()), replace(RESTS, busy=("start",)), LEASED, ()),
    # the lease
    "after the lease what runs is frozen": (told(owned()), RUNS, OVER, ("freeze",)),
    "after the lease nothing is started": (told(owned()), RESTS, OVER, ()),
    "after the lease nothing is thawed": (told(owned()), FROZEN, OVER, ()),
    "after the lease nothing is shipped": (told(owned(), vserver=V1), RESTS, OVER, ()),
    "after the lease it is frozen also while it is being stopped": (
        told(owned()),
        replace(RUNS, busy=("stop",)),
        OVER,
        ("freeze",),
    ),
    "when the word comes back the owner thaws": (told(owned()), FROZEN, LEASED, ("thaw",)),
    # another host's
    "what another host owns by now is killed if frozen, never thawed": (
        told(owned(owner="beta", epoch=8)),
        FROZEN,
        LEASED,
        ("kill",),
    ),
    "what another host owns is killed at once if it runs": (
        told(owned(owner="beta", epoch=8)),
        RUNS,
        LEASED,
        ("kill",),
    ),
    "... and frozen as long as it cannot be killed": (
        told(owned(owner="beta", epoch=8)),
        replace(RUNS, failed={"kill": (8, "it hangs")}, failures=failures(0.9, epoch=8)),
        LEASED,
        ("freeze",),
    ),
    "... which is tried again after a pause": (
        told(owned(owner="beta", epoch=8)),
        replace(FROZEN, failed={"kill": (8, "it hangs")}, failures=failures(1.0, epoch=8)),
        LEASED,
        ("kill",),
    ),
    "... and not before": (
        told(owned(owner="beta", epoch=8)),
        replace(FROZEN, failed={"kill": (8, "it hangs")}, failures=failures(3.0, 1.9, epoch=8)),
        LEASED,
        (),
    ),
    "its network is taken away before its tree": (
        told(owned(owner="beta", epoch=8)),
        replace(RESTS, networked=True),
        LEASED,
        ("kill",),
    ),
    "what this host owns, though it may not run it any more, is still its own": (
        told(owned(), vserver=replace(NEVER, primary="beta", backups=("gamma",))),
        RUNS,
        OVER,
        ("freeze",),
    ),
    "of what cannot be seen nothing is begun": (told(owned()), SeenVserver(State.ERROR), LEASED, ()),
    "a former owner's tree is set aside": (told(owned(owner="beta", epoch=8)), RESTS, LEASED, ("demote",)),
    "... once more after a pause, if that failed": (
        told(owned(owner="beta", epoch=8)),
        replace(RESTS, failed={"demote": (8, "no room")}, failures=failures(1.0, epoch=8)),
        LEASED,
        ("demote",),
    ),
    "... and no earlier": (
        told(owned(owner="beta", epoch=8)),
        replace(RESTS, failed={"demote": (8, "no room")}, failures=failures(0.9, epoch=8)),
        LEASED,
        (),
    ),
    "a backup does nothing by itself": (told(owned(), host="beta"), COPY, LEASED, ()),
    # syncing
    "a running vserver is shipped to every backup": (told(owned()), RUNS, LEASED, ("ship beta", "ship gamma")),
    "a stopped one is shipped too": (
        told(owned(want=Want.STOPPED)),
        RESTS,
        LEASED,
        ("ship beta", "ship gamma"),
    ),
    "a round that is under way is not begun again": (
        told(owned()),
        replace(RUNS, busy=("ship beta",)),
        LEASED,
        ("ship gamma",),
    ),
    "a round is not due before the pause is over": (told(owned()), replace(RUNS, shipped=SHIPPED), LEASED, ()),
    "a round is due after the pause": (
        told(owned(), vserver=replace(V1, sync=replace(V1.sync, every_s=1.0))),
        replace(RUNS, shipped=SHIPPED),
        LEASED,
        ("ship beta", "ship gamma"),
    ),
    # handing over
    "a hand-over ships first while it runs": (told(MOVING), RUNS, LEASED, ("ship beta",)),
    "a shipment under an older epoch is not warm": (
        told(MOVING),
        replace(RUNS, shipped=shipped(epoch=6)),
        LEASED,
        ("ship beta",),
    ),
    "after a short round it is stopped": (told(MOVING), replace(RUNS, shipped=SHIPPED), LEASED, ("stop",)),
    "after a long round another follows": (
        told(MOVING),
        replace(RUNS, shipped=shipped(took_s=60.0)),
        LEASED,
        ("ship beta",),
    ),
    "a busy writer does not put off the stop for ever": (
        told(MOVING),
        replace(RUNS, shipped=shipped(took_s=60.0, rounds=4)),
        LEASED,
        ("stop",),
    ),
    "the last changes are shipped after the stop": (
        told(MOVING),
        replace(RESTS, shipped=SHIPPED),
        LEASED,
        ("ship beta",),
    ),
    "nothing is handed over while its addresses may answer": (
        told(MOVING),
        replace(RESTS, networked=True, shipped=SHIPPED),
        LEASED,
        ("stop",),
    ),
    "what goes unshipped is only stopped": (
        told(owned(target="beta", unshipped=True)),
        RUNS,
        LEASED,
        ("stop",),
    ),
    "what goes unshipped and is stopped is let go": (told(owned(target="beta", unshipped=True)), RESTS, LEASED, ()),
    "what has just arrived is shipped after the leader's next word": (
        told(owned(source="beta", kind=Kind.PLANNED)),
        RUNS,
        LEASED,
        (),
    ),
    "then the leader has the word": (told(MOVING), replace(RESTS, shipped=shipped(final=True)), LEASED, ()),
    "a hand-over that failed waits for the leader": (
        told(MOVING),
        replace(RUNS, failed={"ship beta": (7, "no space left on beta")}),
        LEASED,
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    what, seen, until, expected = CASES[name]
    steps = reconcile(what, Seen({"v1": seen}), until, NOW)
    assert tuple(step.name for step in steps) == expected


def test_stops_come_before_starts() -> None:
    other = replace(NEVER, name="v2")
    both = Told("alpha", cluster(NEVER, other), {"v1": owned(), "v2": owned(vserver="v2", owner="beta")})
    steps = reconcile(both, Seen({"v1": RESTS, "v2": RUNS}), LEASED, NOW)
    assert [step.name for step in steps] == ["kill", "start"]


def test_the_last_ship_is_final_and_only_the_last() -> None:
    (first,) = reconcile(told(MOVING), Seen({"v1": RUNS}), LEASED, NOW)
    (last,) = reconcile(told(MOVING), Seen({"v1": replace(RESTS, shipped=SHIPPED)}), LEASED, NOW)
    assert (getattr(first, "final", None), getattr(last, "final", None)) == (False, True)


@pytest.mark.parametrize(
    ("last", "generation"),
    [
        ({"final": True, "epoch": 7}, 12),
        ({"final": False, "epoch": 7}, None),
        ({"final": True, "epoch": 6}, 12),
    ],
    ids=["handed over whole: it is a replica at once", "taken over: it has diverged", "handed over, and seen late"],
)
def test_what_a_former_owner_sets_aside(last: dict[str, object], generation: int | None) -> None:
    (step,) = reconcile(
        told(owned(owner="beta", epoch=8)), Seen({"v1": replace(RESTS, shipped=shipped(**last))}), LEASED, NOW
    )
    assert getattr(step, "generation", "missing") == generation


@pytest.mark.parametrize(
    ("seen", "state", "because"),
    [
        (RUNS, State.RUNNING, ""),
        (FROZEN, State.FROZEN, ""),
        (replace(RESTS, failures=failures(1.0)), State.STOPPED, "its init died"),
        (replace(RESTS, failures=failures(3.0, 2.0, 1.0)), State.ERROR, "its init died"),
        (replace(RESTS, failures=failures(3.0, 2.0, 1.0, epoch=6)), State.STOPPED, ""),
        (replace(RUNS, failures=failures(3.0, 2.0, 1.0)), State.RUNNING, ""),
        (ILL, State.RUNNING, ""),
        (replace(ILL, failures=failures(2.0, 1.0)), State.ERROR, ILL.failing),
        (replace(ILL, failures=failures(2.0, 1.0), busy=("stop",)), State.RUNNING, ""),
        (replace(RUNS, failed={"stop": (7, "it will not die")}), State.ERROR, "it will not die"),
    ],
    ids=[
        "running",
        "frozen",
        "before a restart, why it is needed",
        "in error once the restarts are used up",
        "failures under an older epoch are forgiven",
        "what runs is in no error for its past",
        "it fails its health checks, and is restarted",
        "it fails them once too often",
        "a failure that is being answered does not count twice",
        "a failed stop is an error",
    ],
)
def test_the_report_says_what_is_seen(seen: SeenVserver, state: State, because: str) -> None:
    own = describe(told(owned()), Seen({"v1": seen}), NOW).vservers["v1"]
    assert (own.state, own.because, own.epoch) == (state, because, 7)


def test_the_report_has_ages_and_the_hand_over() -> None:
    seen = Seen({"v1": replace(RESTS, shipped=shipped(final=True))})
    own = describe(told(MOVING), seen, NOW).vservers["v1"]
    assert own.handed == 12
    assert own.shipments["gamma"].age_s == 1.0
    assert (own.shipments["beta"].final, own.shipments["gamma"].final) == (True, False)


@pytest.mark.parametrize(
    ("seen", "handed"),
    [(RESTS, 0), (RUNS, None), (replace(RESTS, networked=True), None), (replace(RESTS, busy=("start",)), None)],
    ids=["stopped: let go", "it runs", "its addresses may answer", "a start is under way"],
)
def test_when_it_is_let_go_unshipped(seen: SeenVserver, handed: int | None) -> None:
    own = describe(told(owned(target="beta", unshipped=True)), Seen({"v1": seen}), NOW).vservers["v1"]
    assert own.handed == handed


def test_a_backup_reports_only_its_replica() -> None:
    report = describe(told(owned(), host="beta"), Seen({"v1": COPY}), NOW)
    assert not report.vservers
    assert report.replicas["v1"].generation == 12
    assert report.replicas["v1"].age_s is None


def test_a_backup_reports_how_old_its_replica_is_and_what_it_has_promised() -> None:
    promised = replace(COPY, received_at=NOW - 3.0, bond=Bond("alpha", 7, NOW - 2.0))
    report = describe(told(owned(), host="beta"), Seen({"v1": promised}), NOW)
    assert report.replicas["v1"].age_s == 3.0
    assert report.promised == {"v1": Promised("alpha", 7, 2.0)}
    assert describe(told(owned(), host="beta"), Seen({"v1": COPY}), NOW).promised == {}, "none, which is known"


@pytest.mark.parametrize(
    ("what", "seen", "expected"),
    [
        (told(BETAS), BY_HAND, VserverReport(State.RUNNING, 8, by_hand=True)),
        (told(replace(BETAS, epoch=9)), BY_HAND, VserverReport(State.RUNNING, 8, by_hand=True)),
        (told(BETAS), RUNS, VserverReport(State.RUNNING, 8)),
        (told(owned(epoch=8)), BY_HAND, VserverReport(State.RUNNING, 8)),
        (told(None), BY_HAND, VserverReport(State.RUNNING, 0, by_hand=True)),
        (
            told(owned(want=Want.IGNORED)),
            replace(CRASHED, failures=failures(3.0, 2.0, 1.0)),
            VserverReport(State.STOPPED, 7, shipments={"beta": Shipment(12, 1.0), "gamma": Shipment(12, 1.0)}),
        ),
        (told(replace(BETAS, want=Want.IGNORED)), RUNS, VserverReport(State.RUNNING, 8)),
    ],
    ids=[
        "a copy started by hand, with the epoch at which it was first seen",
        "... also under the next",
        "a copy that was not started by hand",
        "what this host owns is not by hand",
        "what nobody was given, by hand",
        "ignored: its state, and what was shipped before",
        "ignored, and another's: only its state",
    ],
)
def test_the_report_about_what_is_not_managed_here(what: Told, seen: SeenVserver, expected: VserverReport) -> None:
    assert describe(what, Seen({"v1": seen}), NOW).vservers["v1"] == expected


def test_the_report_has_health_capacity_and_the_shutdown() -> None:
    room = Capacity(2**30, 2.0)
    report = describe(told(owned()), Seen({"v1": ILL}, leaving=True, capacity=room), NOW)
    assert (report.leaving, report.capacity, report.vservers["v1"].failing) == (True, room, ILL.failing)
