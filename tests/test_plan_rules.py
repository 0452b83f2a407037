"""The leader's policy where several vservers meet: rules, room, priority, order. Each row's name is a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failover.model import (
    Assignment,
    Capacity,
    Cluster,
    ClusterIntent,
    Host,
    HostIntent,
    Intents,
    Lease,
    Memory,
    MoveWish,
    Needs,
    Placement,
    Replica,
    Report,
    Shipment,
    State,
    View,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.plan import Plan, plan
from failover.plan.board import hosts_of
from failover.timing import PROFILES

NOW = 1000.0
HOSTS = ("alpha", "beta", "gamma")
GIB = 2**30


def vs(name: str, primary: str = "alpha", backups: tuple[str, ...] = ("beta", "gamma"), **rest: Any) -> Vserver:
    return Vserver(name, primary, backups, **rest)


def word_of(vserver: Vserver, owner: str, words: dict[str, dict[str, Any]] | None) -> Assignment:
    word = Assignment(vserver.name, owner, 7, because="it said so", hosts=hosts_of(vserver, owner))
    return replace(word, **(words or {}).get(vserver.name, {}))


def world(
    *vservers: Vserver,
    on: dict[str, str] | None = None,
    lost: tuple[str, ...] = (),
    drained: tuple[str, ...] = (),
    states: dict[str, State] | None = None,
    intents: dict[str, VserverIntent] | None = None,
    words: dict[str, dict[str, Any]] | None = None,
    memory_gib: dict[str, float] | None = None,
    by_hand: dict[str, str] | None = None,
    disarmed: bool = False,
    disarm_in_force: bool = False,
) -> View:
    """Every vserver runs on its primary under epoch 7, with fresh replicas everywhere else, unless said otherwise.

    `on`: another owner; none: not assigned yet. `words`: what else is different in an assignment. `by_hand`: where a
    human has started a copy.
    """
    owners = {vserver.name: (on or {}).get(vserver.name, vserver.primary) for vserver in vservers}
    assignments = {v.name: word_of(v, owners[v.name], words) for v in vservers if owners[v.name] != "none"}
    said: dict[str, dict[str, VserverReport]] = {host: {} for host in HOSTS}
    for name, owner in owners.items():
        state = (states or {}).get(name, State.RUNNING)
        if owner == "none":
            said["alpha"][name] = VserverReport(State.STOPPED, 0)
        else:
            shipments = {host: Shipment(12, 1.0) for host in HOSTS if host != owner}
            said[owner][name] = VserverReport(state, 7, shipments=shipments)
    for name, host in (by_hand or {}).items():
        said[host][name] = VserverReport(State.RUNNING, 7, by_hand=True)
    return View(
        Cluster(
            "test",
            {
                host: Host(host, f"10.0.0.{n}", capacity=Capacity(int((memory_gib or {}).get(host, 64) * GIB), 16.0))
                for n, host in enumerate(HOSTS, 1)
            },
            {vserver.name: vserver for vserver in vservers},
            timing=PROFILES["fast"],
        ),
        NOW,
        leases={host: Lease(host, host not in lost, 40, NOW) for host in HOSTS},
        reports={
            host: Report(
                host,
                vservers=said[host],
                replicas={name: Replica(12, 7) for name in owners if name not in said[host]},
                store_at=NOW,
            )
            for host in HOSTS
        },
        assignments=assignments,
        intents=Intents(
            intents or {},
            {host: HostIntent(drained=True) for host in drained},
            ClusterIntent(disarmed=disarmed),
        ),
        memory=Memory(disarmed=disarm_in_force),
        leader="gamma",
    )


def told(decided: Plan) -> dict[str, str]:
    """Per vserver that is spoken of: its new place (`-> target` while it is asked), or `waits`."""
    found = {hold.subject: "waits" for hold in decided.holds}
    for change in decided.changes:
        for word in change.assignments:
            found[word.vserver] = f"-> {word.target}" if word.target else word.owner
    return found


BIG = Needs(memory_bytes=3 * GIB)
TOGETHER = vs("app", together_with=("db",))
APART = vs("app", apart_from=("db",))

CASES: dict[str, tuple[View, dict[str, str]]] = {
    # room
    "what has no room on the first backup goes to the second": (
        world(vs("v1", needs=BIG), vs("v2", "beta", ("gamma",), needs=BIG), lost=("alpha",), memory_gib={"beta": 4}),
        {"v1": "gamma"},
    ),
    "what has room nowhere waits": (
        world(vs("v1", needs=BIG), lost=("alpha",), memory_gib={"beta": 2, "gamma": 2}),
        {"v1": "waits"},
    ),
    "who has the higher priority chooses first": (
        world(vs("a", needs=BIG, priority=9), vs("z", needs=BIG), lost=("alpha",), memory_gib={"beta": 4, "gamma": 2}),
        {"z": "beta", "a": "waits"},
    ),
    "at one priority the name decides": (
        world(vs("a", needs=BIG), vs("z", needs=BIG), lost=("alpha",), memory_gib={"beta": 4, "gamma": 2}),
        {"a": "beta", "z": "waits"},
    ),
    "too few processors are too little room": (
        world(vs("v1", needs=Needs(cpus=17.0)), on={"v1": "none"}),
        {"v1": "waits"},
    ),
    "what is owned and stopped takes room all the same": (
        world(
            vs("v1", needs=BIG),
            vs("v2", "beta", ("gamma",), needs=BIG, want=Want.STOPPED),
            words={"v2": {"want": Want.STOPPED}},
            states={"v2": State.STOPPED},
            lost=("alpha",),
            memory_gib={"beta": 4},
        ),
        {"v1": "gamma"},
    ),
    "a standing lack of room moves nothing": (world(vs("v1", needs=BIG), memory_gib={"alpha": 1}), {}),
    "a drain asks for room, too": (
        world(vs("v1", needs=BIG), drained=("alpha",), memory_gib={"beta": 2}),
        {"v1": "-> gamma"},
    ),
    # placement
    "the roomiest backup takes over, if so declared": (
        world(vs("v1", placement=Placement.ROOMIEST), lost=("alpha",), memory_gib={"beta": 8, "gamma": 16}),
        {"v1": "gamma"},
    ),
    "... and two that go at once spread out": (
        world(
            vs("v1", placement=Placement.ROOMIEST, needs=BIG),
            vs("v2", placement=Placement.ROOMIEST, needs=BIG),
            lost=("alpha",),
            memory_gib={"beta": 15, "gamma": 16},
        ),
        {"v1": "gamma", "v2": "beta"},
    ),
    "at equal room the written order decides": (
        world(vs("v1", placement=Placement.ROOMIEST), lost=("alpha",)),
        {"v1": "beta"},
    ),
    # apart
    "what must be apart from another does not take over beside it": (
        world(APART, vs("db", "beta", ("gamma",)), lost=("alpha",)),
        {"app": "gamma"},
    ),
    "... whichever of the two says so": (
        world(vs("app"), vs("db", "beta", ("gamma",), apart_from=("app",)), lost=("alpha",)),
        {"app": "gamma"},
    ),
    "... and waits when there is no other host": (
        world(vs("app", "alpha", ("beta",), apart_from=("db",)), vs("db", "beta", ()), lost=("alpha",)),
        {"app": "waits"},
    ),
    "two that must be apart are never sent to one host": (
        world(APART, vs("db"), lost=("alpha",)),
        {"app": "beta", "db": "gamma"},
    ),
    "a standing breach is mended by moving the lower priority": (
        world(vs("app", apart_from=("db",), priority=200), vs("db")),
        {"db": "-> beta"},
    ),
    "a stopped vserver is not in the way": (
        world(APART, vs("db", want=Want.STOPPED), words={"db": {"want": Want.STOPPED}}, states={"db": State.STOPPED}),
        {},
    ),
    "a move that would break a rule is answered": (
        world(APART, vs("db", "beta", ("gamma",)), intents={"app": VserverIntent(move=MoveWish("beta", 7))}),
        {"app": "alpha"},
    ),
    # together
    "a set that loses its host goes to one host": (
        world(TOGETHER, vs("db", "alpha", ("gamma",)), lost=("alpha",)),
        {"app": "gamma", "db": "gamma"},
    ),
    "a move takes the whole set along": (
        world(TOGETHER, vs("db"), intents={"db": VserverIntent(move=MoveWish("beta", 7))}),
        {"app": "-> beta", "db": "-> beta"},
    ),
    "a move is refused where one of the set may not go": (
        world(TOGETHER, vs("db", "alpha", ("gamma",)), intents={"app": VserverIntent(move=MoveWish("beta", 7))}),
        {"app": "alpha"},
    ),
    "a failure takes the whole set along": (
        world(TOGETHER, vs("db"), states={"app": State.ERROR}),
        {"app": "-> beta", "db": "-> beta"},
    ),
    "a set needs room for all of it": (
        world(
            vs("app", together_with=("db",), needs=BIG),
            vs("db", needs=BIG),
            lost=("alpha",),
            memory_gib={"beta": 4, "gamma": 6},
        ),
        {"app": "gamma", "db": "gamma"},
    ),
    "a set that was torn comes together where the higher priority is": (
        world(TOGETHER, vs("db", priority=200), on={"db": "beta"}),
        {"app": "-> beta"},
    ),
    "a set on a drained host leaves it together": (
        world(TOGETHER, vs("db", "alpha", ("gamma",)), drained=("alpha",)),
        {"app": "-> gamma", "db": "-> gamma"},
    ),
    # soft rules
    "a wish to be apart is followed where it can be": (
        world(vs("app", prefer_apart_from=("db",)), vs("db", "beta", ("gamma",)), lost=("alpha",)),
        {"app": "gamma"},
    ),
    "... and costs no takeover where it cannot": (
        world(vs("app", "alpha", ("beta",), prefer_apart_from=("db",)), vs("db", "beta", ()), lost=("alpha",)),
        {"app": "beta"},
    ),
    "a wish to be together is followed where it can be": (
        world(vs("app", prefer_together_with=("db",)), vs("db", "gamma", ("beta",)), lost=("alpha",)),
        {"app": "gamma"},
    ),
    # order
    "what starts after another waits until that runs": (
        world(vs("app", start_after=("db",)), vs("db", "alpha", ("gamma",)), lost=("alpha",)),
        {"db": "gamma", "app": "waits"},
    ),
    "... also when that waits itself": (
        world(
            vs("app", start_after=("db",)),
            vs("db", "alpha", ("beta",), start_after=("disk",)),
            vs("disk", "alpha", ("gamma",)),
            lost=("alpha",),
        ),
        {"disk": "gamma", "db": "waits", "app": "waits"},
    ),
    "... and then starts": (
        world(vs("app", start_after=("db",)), vs("db", "gamma"), lost=("alpha",)),
        {"app": "beta"},
    ),
    "... or when it has waited long enough": (
        world(
            vs("app", start_after=("db",)),
            vs("db", "gamma"),
            states={"db": State.STOPPED},
            words={"db": {"at": NOW - 60}},
            lost=("alpha",),
        ),
        {"app": "beta"},
    ),
    "what cannot run is not waited for": (
        world(vs("app", start_after=("db",)), vs("db", "alpha", ()), lost=("alpha",)),
        {"db": "waits", "app": "beta"},
    ),
    "what is in error is not waited for": (
        world(vs("app", start_after=("db",)), vs("db", "gamma", ()), states={"db": State.ERROR}, lost=("alpha",)),
        {"db": "waits", "app": "beta"},
    ),
    # disarm
    "a disarmed cluster starts nothing": (
        world(vs("v1"), on={"v1": "none"}, disarmed=True, disarm_in_force=True),
        {"v1": "waits"},
    ),
    "... takes nothing over": (
        world(vs("v1"), lost=("alpha",), disarmed=True, disarm_in_force=True),
        {"v1": "waits"},
    ),
    "... empties no drained host": (
        world(vs("v1"), drained=("alpha",), disarmed=True, disarm_in_force=True),
        {"v1": "waits"},
    ),
    "... but ends a second copy": (
        world(vs("v1"), by_hand={"v1": "gamma"}, disarmed=True, disarm_in_force=True),
        {"v1": "alpha"},
    ),
    "... and adopts one whose owner is lost": (
        world(vs("v1"), by_hand={"v1": "gamma"}, lost=("alpha",), disarmed=True, disarm_in_force=True),
        {"v1": "gamma"},
    ),
    "... or does not run it": (
        world(
            vs("v1"),
            by_hand={"v1": "gamma"},
            states={"v1": State.STOPPED},
            disarmed=True,
            disarm_in_force=True,
        ),
        {"v1": "-> gamma"},
    ),
    "... and starts nothing again": (
        world(vs("v1"), states={"v1": State.STOPPED}, disarmed=True, disarm_in_force=True),
        {"v1": "waits"},
    ),
    "a disarm is put off until a takeover that has begun is finished": (
        world(vs("v1"), lost=("alpha",), disarmed=True),
        {"v1": "beta"},
    ),
    "... but begins nothing else": (world(vs("v1"), drained=("alpha",), disarmed=True), {"v1": "waits"}),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    view, expected = CASES[name]
    assert told(plan(view)) == expected


DISARMS: dict[str, tuple[View, bool]] = {
    "a disarm is in force at once when nothing is under way": (world(vs("v1"), disarmed=True), True),
    "... not while a takeover is to be decided": (world(vs("v1"), lost=("alpha",), disarmed=True), False),
    "... nor while what was given does not run yet": (
        world(vs("v1"), states={"v1": State.STOPPED}, disarmed=True),
        False,
    ),
    "... but what is in error holds nothing up": (world(vs("v1"), states={"v1": State.ERROR}, disarmed=True), True),
    "an armed cluster is not disarmed": (world(vs("v1"), disarm_in_force=True), False),
}


@pytest.mark.parametrize("name", DISARMS)
def test_when_a_disarm_is_in_force(name: str) -> None:
    view, expected = DISARMS[name]
    assert plan(view).memory.disarmed is expected


def test_a_loss_is_remembered_once() -> None:
    seen = world(vs("v1"), lost=("beta",))
    memory = plan(seen).memory
    assert memory.losses == {"beta": (NOW,)}
    assert plan(replace(seen, memory=memory, now=NOW + 5)).memory == memory


def test_a_leader_looks_again_when_a_deadline_comes() -> None:
    seen = world(vs("v1", failback_s=60.0), on={"v1": "beta"})
    lately = replace(seen, leases={**seen.leases, "alpha": replace(seen.leases["alpha"], since_at=NOW - 20)})
    assert plan(lately).again_s == pytest.approx(40.0)
    assert told(plan(replace(lately, now=NOW + 40))) == {"v1": "-> alpha"}


def test_a_host_that_may_only_be_slow_to_boot_is_not_lost_yet() -> None:
    gone = world(vs("v1"), lost=("beta",))
    gone = replace(gone, leases={**gone.leases, "beta": replace(gone.leases["beta"], store_at=NOW - 600)})
    assert plan(replace(gone, led_at=NOW - 59)).memory.losses == {}
    assert plan(replace(gone, led_at=NOW - 60)).memory.losses == {"beta": (NOW,)}
