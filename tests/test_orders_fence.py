"""What `failover fence` comes to, a rule a row: `pytest -v` prints them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover import orders
from failover.errors import BadInput, Refused, Unsafe
from failover.model import Cut, CutWish, Fence, Fencing, HostIntent, View
from failover.timing import PROFILES
from tests.orders import Command, Does, No, Rows, Says, check, disarmed, do, hosts, leaderless
from tests.views import NOW, owned, view

CUT = do(orders.cut, "alpha")
INSIST = do(orders.cut, "alpha", though_alive=True)
RENEW_S = PROFILES["fast"].renew_s


def seen(silent_s: float, *, device: bool = True, last: Fencing | None = None, **rest: object) -> View:
    base = view(word=owned(), **rest)  # type: ignore[arg-type]
    fence = Fence("fence_apc", {"plug": "1"}) if device else None
    leases = dict(base.leases)
    if silent_s >= 0:
        leases["alpha"] = replace(leases["alpha"], store_at=NOW - silent_s)
    else:
        del leases["alpha"]
    known = {**base.cluster.hosts, "alpha": replace(base.cluster.hosts["alpha"], fence=fence)}
    return replace(
        base,
        cluster=replace(base.cluster, hosts=known),
        leases=leases,
        memory=replace(base.memory, fencings={"alpha": last} if last else {}),
    )


OFF = Fencing(40, NOW - 3.0, Cut.OFF, NOW - 1.0)
SILENT = seen(2 * RENEW_S)
DONE = Does({"alpha": HostIntent(cut=CutWish(NOW))}, "fence_apc is to cut the power of alpha")
UP = No(Unsafe, "alpha is up: it renewed its lease 0.1 s ago", "failover fence alpha --though-alive")

CASES: Rows = {
    "the power of a host that has missed two renewals is cut": (SILENT, CUT, DONE),
    "... and of one whose session is gone": (seen(0.1, lost=("alpha",)), CUT, DONE),
    "... and not of one that takes part": (seen(0.1), CUT, UP),
    "... unless that is wanted": (seen(0.1), INSIST, Does({"alpha": HostIntent(cut=CutWish(NOW, True))}, ".*")),
    "what was said of the host before stays": (
        hosts(SILENT, alpha=HostIntent(drained=True, reason="disks")),
        CUT,
        Does({"alpha": HostIntent(drained=True, reason="disks", cut=CutWish(NOW))}, ".*"),
    ),
    "one without a device only a person can vouch for": (
        seen(9.0, device=False),
        CUT,
        No(Unsafe, "only a person can know that alpha is off", "failover fence alpha --confirmed"),
    ),
    "one that is off by its device is off": (seen(9.0, last=OFF), CUT, Says("alpha is off already, says fence_apc")),
    "... but not once it has renewed its lease": (seen(9.0, last=replace(OFF, version=39)), CUT, DONE),
    "the leader's own host is not cut": (
        replace(SILENT, leader="alpha"),
        INSIST,
        No(Refused, "alpha leads the cluster"),
    ),
    "one that never joined is not cut": (seen(-1.0), INSIST, No(Refused, "alpha has never joined")),
    "nothing is cut while nobody leads": (leaderless(SILENT), CUT, No(Refused, "nobody would obey")),
    "nothing is cut while the cluster is disarmed": (
        disarmed(SILENT),
        INSIST,
        No(Refused, "the cluster is disarmed", "failover arm"),
    ),
    "an unknown host is named": (
        SILENT,
        do(orders.cut, "alfa"),
        No(BadInput, "there is no host alfa", "did you mean alpha"),
    ),
    "a person's word needs no device": (
        seen(0.1, device=False),
        do(orders.fence, "alpha"),
        Does({"alpha": HostIntent(vouched=40)}, "alpha counts as off once it has missed two renewals.*"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    check(CASES[name])


def test_a_wish_is_another_one_each_time() -> None:
    command: Command = CUT
    later = replace(SILENT, now=NOW + 1.0)
    wishes = [command(found).hosts["alpha"](HostIntent()).cut for found in (SILENT, later)]
    assert wishes == [CutWish(NOW), CutWish(NOW + 1.0)]
