"""Where the leader runs: on a host that owns little, if one is there, and nobody waits long for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.grants.granting import Granting
from failover.handover import PATIENCE_S, SHORTEST_S, Handover
from failover.leader import Leader
from failover.model import View, VserverIntent, Want
from failover.plan import stands_after_s
from failover.plan.standing import LONGEST_S, STEP_S
from failover.simulate.memory import MemoryStore
from failover.simulate.znodes import World
from failover.store import Change
from failover.timing import PROFILES
from tests.views import HOSTS, V1, cluster, owned, view

V2 = replace(V1, name="v2", primary="beta", backups=("gamma", "alpha"))
TIMING = PROFILES["fast"]


def owning(*, v1: str | None = "alpha", v2: str | None = "beta", **differs: object) -> View:
    """Who owns v1, and who v2."""
    seen = view(word=owned(), **differs)  # type: ignore[arg-type]
    words = {name: owned(vserver=name, owner=owner) for name, owner in (("v1", v1), ("v2", v2)) if owner is not None}
    return replace(seen, cluster=cluster(V1, V2), assignments=words)


# name: (the cluster, whose process led last, who stands after how many steps)
CASES: dict[str, tuple[View, str | None, dict[str, int]]] = {
    "who owns nothing stands first, then by name": (owning(), None, {"gamma": 0, "alpha": 1, "beta": 2}),
    "who owns more waits longer": (owning(v2="alpha"), None, {"beta": 0, "gamma": 1, "alpha": 2}),
    "what is not assigned yet counts where it belongs": (
        owning(v1=None, v2=None),
        None,
        {"gamma": 0, "alpha": 1, "beta": 2},
    ),
    "nobody waits for the host of the last leader, which may be lost": (
        owning(),
        "gamma",
        {"alpha": 0, "beta": 1},
    ),
    "nobody waits for a host that is lost": (owning(lost=("gamma",)), None, {"alpha": 0, "beta": 1}),
    "a host whose agent is not there stands last": (owning(lost=("gamma",)), None, {"gamma": 2}),
    "what is to be stopped does no harm": (
        owning(intent=VserverIntent(want=Want.STOPPED)),
        None,
        {"alpha": 0, "gamma": 1, "beta": 2},
    ),
    "a drained host stands after all others": (owning(drained=("gamma",)), None, {"alpha": 0, "beta": 1, "gamma": 2}),
    "so does one that is shut down": (owning(leaving=("gamma",)), None, {"alpha": 0, "beta": 1, "gamma": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_stands(name: str) -> None:
    seen, before, expected = CASES[name]
    assert {host: stands_after_s(seen, host, before) for host in expected} == {
        host: pytest.approx(steps * STEP_S) for host, steps in expected.items()
    }


def test_of_many_hosts_nobody_waits_longer_than_for_a_moment() -> None:
    hosts = tuple(f"host{number:02}" for number in range(20))
    seen = view()
    leases = {name: replace(seen.leases["alpha"], host=name) for name in hosts}
    many = replace(seen, cluster=cluster(hosts=hosts), leases=leases)
    waits = [stands_after_s(many, name, None) for name in hosts]
    assert (waits[0], waits[-1], sorted(waits)) == (0, LONGEST_S, waits)


class Cell:
    """alpha owns v1 and beta owns v2. Every host's agent is there, and its leader's process when it is `begun`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.world = World(lambda: self.now)
        self.stores: dict[str, MemoryStore] = {}
        self.leaders: dict[str, Leader] = {}

    def apply(self) -> None:
        operator = MemoryStore(self.world, role="operator")
        operator.apply(cluster(V1, V2), "")
        for host in HOSTS:
            MemoryStore(self.world, role="agent", host=host)
        first = MemoryStore(self.world, role="leader", host="nobody")
        assert first.lead()
        words = (owned(epoch=1), owned(vserver="v2", owner="beta", epoch=1))
        assert all(first.commit(Change(assignments=(word,))) for word in words)
        first.close()

    def begin(self, host: str) -> None:
        store = MemoryStore(self.world, role="leader", host=host, timing=TIMING, clock=lambda: self.now)
        granting = Granting(store, TIMING, lambda: self.now)
        self.stores[host] = store
        self.leaders[host] = Leader(store, host, granting, lambda _: None, clock=lambda: self.now)

    def turn(self, host: str) -> float:
        return self.leaders[host].turn()

    def end(self, host: str) -> None:
        self.leaders.pop(host)
        self.stores.pop(host).close()

    @property
    def leader(self) -> str | None:
        return MemoryStore(self.world, role="operator").view().leader


@pytest.fixture
def cell() -> Cell:
    made = Cell()
    made.apply()
    return made


def test_who_owns_less_is_elected_though_others_were_quicker(cell: Cell) -> None:
    for host in HOSTS:
        cell.begin(host)
    assert cell.turn("alpha") == pytest.approx(STEP_S)
    assert cell.turn("beta") == pytest.approx(2 * STEP_S)
    assert cell.leader is None
    cell.turn("gamma")
    assert cell.leader == "gamma"


def test_if_that_one_does_not_stand_the_next_does_soon(cell: Cell) -> None:
    cell.begin("alpha")
    cell.now += cell.turn("alpha") - 0.01
    assert cell.turn("alpha") == pytest.approx(0.01), "it waits from when it saw that nobody leads"
    cell.now += 0.01
    cell.turn("alpha")
    assert cell.leader == "alpha"


def beta_leads(cell: Cell) -> None:
    cell.begin("beta")
    cell.now += cell.turn("beta")
    cell.turn("beta")
    assert cell.leader == "beta"


def live(cell: Cell, length_s: float) -> None:
    """Every process that is there has a turn every few seconds, and when it asks for one."""
    end, due = cell.now + length_s, dict.fromkeys(cell.leaders, cell.now)
    while (now := min(due.values())) < end:
        cell.now = now
        for host in [host for host, at in due.items() if at <= now]:
            due[host] = now + min(max(cell.turn(host), 0.001), 5.0)
        if cell.leader is None:  # all hear of it
            due = {host: min(at, now + 0.01) for host, at in due.items()}
    cell.now = end


def test_a_leader_hands_over_to_a_host_that_has_owned_less_for_long(cell: Cell) -> None:
    beta_leads(cell)
    cell.begin("gamma")
    live(cell, PATIENCE_S - 10.0)
    assert cell.leader == "beta"
    live(cell, 20.0)
    assert cell.leader == "gamma"
    live(cell, 10 * PATIENCE_S)
    assert cell.leader == "gamma"


def test_it_stays_where_no_other_host_owns_less(cell: Cell) -> None:
    cell.begin("gamma")
    cell.turn("gamma")
    epoch = cell.stores["gamma"].epoch
    cell.begin("alpha")
    live(cell, 2 * PATIENCE_S)
    assert cell.stores["gamma"].epoch == epoch is not None


def test_a_host_that_owns_less_only_for_a_while_is_no_reason(cell: Cell) -> None:
    beta_leads(cell)
    cell.begin("gamma")
    operator = MemoryStore(cell.world, role="operator")
    for _ in range(4):
        live(cell, 0.6 * PATIENCE_S)
        wants = operator.view().intents.hosts.get("gamma")
        drained = not (wants and wants.drained)
        operator.wish_host("gamma", lambda wish, drained=drained: replace(wish, drained=drained))
        operator.wish_host("alpha", lambda wish, drained=drained: replace(wish, drained=drained))
    assert cell.leader == "beta"


def test_in_vain_it_is_tried_ever_more_rarely(cell: Cell) -> None:
    beta_leads(cell)  # and no process stands by on gamma
    epochs = []
    for _ in range(3):
        live(cell, PATIENCE_S + 10.0)
        epochs.append(cell.stores["beta"].epoch)
    assert cell.leader == "beta"
    assert epochs == [epochs[0], epochs[0], epochs[0] + 1]


def test_it_steps_down_when_all_that_it_has_granted_is_over(cell: Cell) -> None:
    beta_leads(cell)
    cell.begin("gamma")
    leader, granting = cell.leaders["beta"], cell.leaders["beta"]._granting
    live(cell, PATIENCE_S - 10.0)
    granting.resign = lambda: 3.0  # type: ignore[method-assign]
    cell.now += 20.0
    leader.turn()
    assert leader.turn() == pytest.approx(3.0) and cell.leader == "beta"
    cell.now += 2.9
    assert leader.turn() == pytest.approx(0.1) and cell.leader == "beta"
    cell.now += 0.2
    leader.turn()
    assert cell.leader is None


def test_at_the_loss_of_the_leader_the_first_of_the_others_does_not_wait(cell: Cell) -> None:
    for host in ("gamma", "beta", "alpha"):
        cell.begin(host)
        cell.turn(host)
    assert cell.leader == "gamma"
    cell.now += 100
    cell.end("gamma")
    assert cell.turn("beta") == pytest.approx(STEP_S)
    cell.turn("alpha")
    assert cell.leader == "alpha"


def test_before_there_is_a_cluster_anybody_leads_at_once() -> None:
    cell = Cell()
    cell.begin("beta")
    cell.turn("beta")
    assert cell.stores["beta"].leader == "beta"


def test_a_leader_that_was_not_restarted_after_other_terms_were_applied_says_so(cell: Cell) -> None:
    operator = MemoryStore(cell.world, role="operator")
    view = operator.view()
    operator.apply(replace(view.cluster, timing=PROFILES["patient"]), "", view.cluster_version)
    cell.begin("gamma")
    cell.turn("gamma")
    cell.turn("gamma")
    (hold,) = [hold for hold in operator.view().holds if hold.subject == "failover-leader on gamma"]
    assert "another timing than the one that is applied" in hold.because and "restart it" in hold.hint


def test_a_pause_before_it_steps_down_is_never_lost_in_the_rounding_of_a_clock() -> None:
    now = 1e6
    handover = Handover(lambda: now)
    handover.begin(1.0)
    now += 1.0 - 1e-9
    assert handover.left_s == SHORTEST_S
    now += 1.0
    assert handover.left_s is not None and handover.left_s < 0
