"""S13: how old a replica is: never younger than somebody who can know has said. Each row's name is a rule.

Alpha, the owner, was last heard of at NOW and is lost; it is LATER. Its newest report says that beta was 3 s old.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failover.model import Promised, Replica, Shipment, State, View, VserverReport, Want
from failover.plan import plan, replica_age
from failover.timing import PROFILES, Timing
from tests.views import HOSTS, NOW, V1, owned, view

LATER = NOW + 600.0
LEASE_S = PROFILES["fast"].lease_s
NONE: dict[str, Promised] = {}
FINAL = {"beta": Shipment(12, 40.0, final=True)}
DOWN = VserverReport(State.STOPPED, 7, shipments=FINAL)


def promise(ended_s: float) -> dict[str, Promised]:
    return {"v1": Promised("alpha", 7, ended_s)}


def lost(
    *,
    beta: dict[str, Promised] | None = None,
    gamma: dict[str, Promised] | None = None,
    reported_at: float = LATER - 1.0,
    received_s: float | None = None,
    terms: Timing | None = None,
    **rest: Any,
) -> View:
    """What beta and gamma say that they have promised; None: nothing is known."""
    seen = view(**{"word": owned(), "lost": ("alpha",), "age": {"beta": 3.0, "gamma": 3.0}, **rest})
    reports = dict(seen.reports)
    for host, promised in (("beta", beta), ("gamma", gamma)):
        reports[host] = replace(reports[host], store_at=reported_at, promised=promised)
    reports["alpha"] = replace(reports["alpha"], terms=terms)
    held = reports["beta"].replicas.get("v1")
    if held is not None:
        reports["beta"] = replace(reports["beta"], replicas={"v1": replace(held, age_s=received_s)})
    return replace(seen, now=LATER, reports=reports)


AGES: dict[str, tuple[View, float | None]] = {
    "an owner that was promised nothing has written until its lease ended": (lost(beta=NONE), 3.0 + LEASE_S),
    "one host that promised nothing is proof enough: it needs the promises of all": (
        lost(beta=NONE, gamma=promise(-1.0)),
        3.0 + LEASE_S,
    ),
    "an owner may have written until the earliest end of what it was promised": (
        lost(beta=promise(99.0), gamma=promise(49.0)),
        3.0 + 500.0,
    ),
    "an owner that goes by longer terms has written for longer": (
        lost(beta=NONE, terms=PROFILES["patient"]),
        3.0 + PROFILES["patient"].lease_s,
    ),
    "a promise that ended before the lease changes nothing": (lost(beta=promise(700.0)), 3.0 + LEASE_S),
    "while a promise runs, so may the owner": (lost(beta=promise(-4.0), gamma=promise(-9.0)), 3.0 + 603.0),
    "without a word of any other host it may have written until now": (lost(), 3.0 + 600.0),
    "a report of before the end of its lease proves nothing": (lost(beta=NONE, reported_at=NOW + 1.0), 3.0 + 600.0),
    "a host that its word does not name proves nothing": (
        lost(beta=promise(9.0), gamma=NONE, word=owned(hosts=("alpha", "beta"))),
        3.0 + 590.0,
    ),
    "... nor one that it may not have heard of": (
        lost(
            beta=promise(9.0),
            gamma=NONE,
            word=owned(epoch=8, hosts=HOSTS, known_hosts=("alpha", "beta")),
            says={"alpha": VserverReport(State.RUNNING, 7, shipments={"beta": Shipment(12, 3.0)})},
        ),
        3.0 + 590.0,
    ),
    "who may run it alone needs no promise": (lost(beta=NONE, word=owned(hosts=("alpha",))), 3.0 + 600.0),
    "by a word of an older failover nothing runs by promises": (lost(word=owned(hosts=())), 3.0 + LEASE_S),
    "what was shipped while the owner could not report, the backup knows itself": (
        lost(beta=promise(9.0), received_s=12.0),
        2.0 + 0.0 + 1.0,
    ),
    "of two proofs the better counts": (lost(beta=NONE, received_s=700.0), 3.0 + LEASE_S),
    "a backup may know what the owner has never said": (
        lost(beta=promise(9.0), received_s=12.0, says={"alpha": VserverReport(State.RUNNING, 7)}),
        3.0,
    ),
    "nobody knows it": (lost(beta=NONE, says={"alpha": VserverReport(State.RUNNING, 7)}), None),
    "of a diverged tree no age counts": (
        lost(
            beta=NONE,
            received_s=1.0,
            replicas={"beta": Replica(12, 7, diverged=True)},
            says={"alpha": VserverReport(State.RUNNING, 7)},
        ),
        None,
    ),
    "a last round stays the last when it was wanted stopped": (
        lost(word=owned(want=Want.STOPPED), says={"alpha": VserverReport(State.STOPPED, 7, shipments=FINAL)}),
        0.0,
    ),
    "... and when it was handed over": (
        lost(word=owned(target="gamma"), says={"alpha": VserverReport(State.STOPPED, 7, handed=12, shipments=FINAL)}),
        0.0,
    ),
    "... and when its host was shut down, and did not run on": (
        lost(beta=NONE, says={"alpha": VserverReport(State.STOPPED, 7, shipments=FINAL)}),
        0.0,
    ),
    "... but not when it may have run on by promises": (
        lost(beta=promise(9.0), says={"alpha": VserverReport(State.STOPPED, 7, shipments=FINAL)}),
        590.0,
    ),
    "... nor under a newer word than it has spoken of: it may have started again": (
        lost(beta=NONE, word=owned(epoch=8), says={"alpha": replace(DOWN, handed=12)}),
        LEASE_S,
    ),
}


@pytest.mark.parametrize("rule", AGES)
def test_s13_the_age_of_a_replica(rule: str) -> None:
    seen, expected = AGES[rule]
    age = replica_age(seen, V1, "beta")
    assert age == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_s13_what_was_written_by_promises_is_not_lost_unasked() -> None:
    stale = plan(lost(beta=promise(9.0), gamma=promise(9.0)))
    assert not stale.changes
    assert "beta has a replica that is 593 s old, and max_data_loss is 60 s" in stale.holds[0].because
    assert plan(lost(beta=promise(9.0), gamma=promise(9.0), received_s=12.0)).changes
