"""The agent's policy under promises, its own and those of others: each row's name is a rule. Claims S10 to S12."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.reconcile import describe, next_at, reconcile
from agents.steps import Bond, Seen, SeenVserver
from failover.model import Assignment, State, Told, VserverReport, Want
from tests.seen import BETAS, COPY, FROZEN, LEASED, MOVING, NOW, OVER, RESTS, RUNS, SHIPPED, told
from tests.views import V1, owned

BOND = Bond("beta", 6, NOW + 1.0)  # alpha has promised v1 to beta; now alpha owns it under epoch 7
DUE = replace(V1, sync=replace(V1.sync, every_s=0.5))


def bound(seen: SeenVserver, bond: Bond = BOND) -> SeenVserver:
    return replace(seen, bond=bond)


# name: (told, seen, the end of the lease, until when it may run by promises, the names of the expected steps)
CASES: dict[str, tuple[Told, SeenVserver, float, float, tuple[str, ...]]] = {
    # as the holder
    "what runs by promises is not frozen after the lease": (
        told(owned()),
        replace(RUNS, shipped=SHIPPED),
        OVER,
        NOW + 1,
        (),
    ),
    "it is frozen when the promises are over": (told(owned()), RUNS, OVER, NOW, ("freeze",)),
    "the lease is enough": (told(owned()), RUNS, LEASED, NOW, ("ship beta", "ship gamma")),
    "regular syncs go on by promises": (
        told(owned(), vserver=DUE),
        replace(RUNS, shipped=SHIPPED),
        OVER,
        NOW + 1,
        ("ship beta", "ship gamma"),
    ),
    "nothing is started by promises": (told(owned()), replace(RESTS, shipped=SHIPPED), OVER, NOW + 1, ()),
    "nothing is thawed by promises": (told(owned()), replace(FROZEN, shipped=SHIPPED), OVER, NOW + 1, ()),
    "nothing is stopped by promises": (
        told(owned(want=Want.STOPPED)),
        replace(RUNS, shipped=SHIPPED),
        OVER,
        NOW + 1,
        (),
    ),
    "nothing is handed over by promises": (told(MOVING), RUNS, OVER, NOW + 1, ()),
    "what another host owns has no promise": (told(BETAS), RUNS, OVER, NOW, ("freeze",)),
    # as the giver
    "what is promised is not started, though it was given to this host": (told(owned()), bound(RESTS), LEASED, NOW, ()),
    "... nor promoted and started": (told(owned()), bound(COPY), LEASED, NOW, ()),
    "... nor thawed": (told(owned()), bound(FROZEN), LEASED, NOW, ()),
    "... nor thawed while the cluster is disarmed": (told(owned(), disarmed=True), bound(FROZEN), LEASED, NOW, ()),
    "it is started when the promise is over": (
        told(owned()),
        bound(RESTS, replace(BOND, until=NOW)),
        LEASED,
        NOW,
        ("start",),
    ),
    "after a boot nothing is started before any promise is over": (
        told(owned()),
        bound(RESTS, Bond("", 0, NOW + 1)),
        LEASED,
        NOW,
        (),
    ),
    "what is promised is still killed for its owner": (told(BETAS), bound(FROZEN), LEASED, NOW, ("kill",)),
    "what is promised is still stopped": (told(owned(want=Want.STOPPED)), bound(RUNS), LEASED, NOW, ("stop",)),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    what, seen, until, promised, expected = CASES[name]
    seen = replace(seen, shipped=SHIPPED) if seen.bond and seen.state is State.STOPPED else seen
    steps = reconcile(what, Seen({"v1": seen}), until, NOW, promised={"v1": promised})
    assert tuple(step.name for step in steps) == expected


REPORTS: dict[str, tuple[Assignment, Bond, VserverReport]] = {
    "an owner that is bound has not obeyed its word": (
        owned(),
        BOND,
        VserverReport(State.STOPPED, 6, because="it was promised to beta"),
    ),
    "... nor let go of it": (
        owned(target="gamma", unshipped=True),
        BOND,
        VserverReport(State.STOPPED, 6, because="it was promised to beta"),
    ),
    "... whatever epoch it has promised": (
        owned(),
        replace(BOND, epoch=7),
        VserverReport(State.STOPPED, 6, because="it was promised to beta"),
    ),
    "... nor has one that may have promised": (
        owned(),
        Bond("", 0, NOW + 1),
        VserverReport(State.STOPPED, 0, because="this host may have promised it before it was booted"),
    ),
    "when the promise is over it has": (owned(), replace(BOND, until=NOW), VserverReport(State.STOPPED, 7)),
    "who does not own it says what it sees": (replace(BETAS, epoch=7), BOND, VserverReport(State.STOPPED, 7)),
}


@pytest.mark.parametrize("name", REPORTS)
def test_s12_what_is_reported(name: str) -> None:
    word, bond, expected = REPORTS[name]
    assert describe(told(word), Seen({"v1": bound(RESTS, bond)}), NOW).vservers["v1"] == expected


def test_the_next_look_is_due_when_the_promise_is_over() -> None:
    assert next_at(told(owned()), Seen({"v1": bound(replace(RESTS, shipped=SHIPPED))}), NOW) == BOND.until
