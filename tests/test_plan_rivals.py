"""Two hosts die together, and the session of the one ends first: who chooses first all the same. Row names: policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.model import Needs, Placement, View, Vserver
from failover.plan import plan
from tests.test_plan_rules import BIG, NOW, told, vs, world


def both_lost(less: Vserver, more: Vserver, *, beta_heard: float = NOW - 1.9) -> View:
    """alpha's session, with `less` on it, has just ended; beta's, with `more`, not yet. gamma has room for one."""
    seen = world(less, more, lost=("alpha",), memory_gib={"gamma": 5})
    leases = {**seen.leases, "alpha": replace(seen.leases["alpha"], store_at=NOW - 2)}
    leases["beta"] = replace(leases["beta"], store_at=beta_heard)
    reports = {**seen.reports}
    for host in ("alpha", "beta"):
        reports[host] = replace(reports[host], store_at=NOW - 2)
    return replace(seen, leases=leases, reports=reports)


LESS = vs("less", "alpha", ("gamma",), needs=BIG)
MORE = vs("more", "beta", ("gamma",), needs=BIG, priority=200)

CASES: dict[str, tuple[View, dict[str, str]]] = {
    "who is more important, and may be lost in a moment, has the room first": (
        both_lost(LESS, MORE),
        {"less": "waits"},
    ),
    "... at one priority the name decides": (
        both_lost(replace(LESS, name="z"), replace(MORE, priority=100)),
        {"z": "waits"},
    ),
    "... so who chooses first is never kept waiting": (
        both_lost(replace(LESS, priority=300), MORE),
        {"less": "gamma"},
    ),
    "... nor is anybody by a host that has renewed meanwhile": (
        both_lost(LESS, MORE, beta_heard=NOW - 1),
        {"less": "gamma"},
    ),
    "... nor where there is room for both": (
        both_lost(replace(LESS, needs=Needs(memory_bytes=2**30)), MORE),
        {"less": "gamma"},
    ),
    "... nor by what may not run there": (
        both_lost(LESS, replace(MORE, backups=("alpha",))),
        {"less": "gamma"},
    ),
    "what must be apart from it lets it choose first": (
        both_lost(replace(LESS, needs=Needs(), apart_from=("more",)), MORE),
        {"less": "waits"},
    ),
    "... and what only prefers to be": (
        both_lost(replace(LESS, needs=Needs(), prefer_apart_from=("more",)), MORE),
        {"less": "waits"},
    ),
    "... and what goes where there is most room": (
        both_lost(replace(LESS, needs=Needs(memory_bytes=2**30), placement=Placement.ROOMIEST), MORE),
        {"less": "waits"},
    ),
}


@pytest.mark.parametrize(("seen", "expected"), CASES.values(), ids=CASES.keys())
def test_who_may_choose_first(seen: View, expected: dict[str, str]) -> None:
    decided = plan(seen)
    assert told(decided) == expected
    assert ("waits" in expected.values()) == (decided.again_s is not None and bool(decided.holds))
