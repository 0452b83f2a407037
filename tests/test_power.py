"""The leader's hand on the hosts' power: in which order it writes, hears, begins, and what it makes of the end. S16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from failover.errors import Unreachable
from failover.fencing import Ended
from failover.grants.granting import Granting
from failover.leader import Leader
from failover.model import (
    Assignment,
    Cluster,
    Cut,
    CutWish,
    Fence,
    Fencing,
    Host,
    Replica,
    Report,
    Shipment,
    State,
    Vserver,
    VserverReport,
    frozen_map,
)  # fmt: skip
from failover.simulate.memory import MemoryStore
from failover.simulate.znodes import World
from failover.store import Change
from failover.timing import PROFILES
from failover.writes import Delete

TIMING = PROFILES["normal"]
APC = Fence("fence_apc", frozen_map({"plug": "1"}))
HOSTS = {
    "alpha": Host("alpha", "10.0.0.1", fence=APC),
    "beta": Host("beta", "10.0.0.2"),
    "gamma": Host("gamma", "10.0.0.3"),
}
V1 = Vserver("v1", "alpha", ("beta",), max_data_loss_s=3600.0)
ABOVE = ("alpha", "beta")


class Outlet:
    """What was begun and given up; what has ended is put into `over`."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, float]] = []
        self.given_up: list[str] = []
        self.over: list[Ended] = []

    def cut(self, host: str, fence: Fence, began_at: float) -> None:
        self.begun.append((host, fence.agent, began_at))

    def give_up(self, host: str = "") -> None:
        self.given_up.append(host)

    def ended(self) -> Sequence[Ended]:
        over, self.over = self.over, []
        return over


class Cell:
    """alpha owns v1, beta has a replica, gamma leads. The agents' sessions live whatever they write."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead_s = 0.0  # of the store's clock
        self.world = World(lambda: self.now + self.ahead_s)
        self.operator = MemoryStore(self.world, role="operator")
        self.operator.apply(Cluster("test", frozen_map(HOSTS), frozen_map({"v1": V1})), "")
        self.agents = {host: MemoryStore(self.world, role="agent", host=host) for host in HOSTS}
        self.outlet, self.store = Outlet(), MemoryStore(self.world, role="leader", host="gamma")
        self.leader = self.leading(self.outlet)
        assert self.store.lead()
        word = Assignment("v1", "alpha", 1, hosts=ABOVE, owned_at=900.0, because="so")
        assert self.store.commit(Change(assignments=(word,)))
        self.report("alpha", vservers={"v1": VserverReport(State.RUNNING, 1, shipments={"beta": Shipment(3, 0.5)})})
        self.report("beta", replicas={"v1": Replica(3, 1)})
        self.report("gamma")
        self.leader.turn()

    def leading(self, outlet: Outlet) -> Leader:
        granting = Granting(self.store, TIMING, lambda: self.now)
        return Leader(self.store, "gamma", granting, lambda host: None, clock=lambda: self.now, devices=outlet)

    def report(self, host: str, **said: object) -> None:
        self.agents[host].report(Report(host, cluster_version=1, **said))  # type: ignore[arg-type]

    def go(self, length_s: float, *silent: str) -> float:
        """Time goes by, everybody but these renews, and the leader takes its turns; the pause after the last."""
        end, pause_s = self.now + length_s, 0.0
        while self.now < end - 1e-9:
            self.now = min(end, self.now + TIMING.renew_s / 2)
            for host, agent in self.agents.items():
                if host not in silent:
                    agent.renew(self.now)
            pause_s = self.leader.turn()
        return pause_s

    @property
    def fencing(self) -> Fencing | None:
        return self.operator.view().memory.fencings.get("alpha")

    @property
    def owner(self) -> str:
        return self.operator.view().assignments["v1"].owner

    def said(self) -> list[str]:
        return [event.kind for event in self.operator.history() if event.kind in ("fencing", "fenced", "unfenced")]

    def end(self, *, off: bool, because: str = "") -> None:
        assert self.fencing is not None
        self.outlet.over.append(Ended("alpha", self.fencing.began_at, off, because))


@pytest.fixture
def cell() -> Cell:
    return Cell()


SILENT_S = TIMING.lease_s + 0.02


def test_s16_an_owner_that_renews_no_more_is_taken_over_once_it_is_off_though_its_session_lives(cell: Cell) -> None:
    cell.go(SILENT_S, "alpha")
    assert [host for host, _, _ in cell.outlet.begun] == ["alpha"]
    assert cell.owner == "alpha"
    cell.end(off=True)
    cell.go(0.1, "alpha")
    assert cell.owner == "beta"
    assert cell.operator.view().leases["alpha"].alive
    assert cell.said() == ["fencing", "fenced"]


def test_nobody_is_cut_who_renews(cell: Cell) -> None:
    for _ in range(20):
        pause_s = cell.go(1.0)
        assert 0 < pause_s <= TIMING.lease_s + 0.1
    assert cell.outlet.begun == [] and cell.fencing is None


def test_the_leader_wakes_when_a_lease_is_over(cell: Cell) -> None:
    cell.go(0.5)
    renewed_at, pause_s = cell.now, cell.leader.turn()
    while not cell.outlet.begun:
        assert cell.now < renewed_at + TIMING.lease_s + 0.05
        cell.now += pause_s
        for host in ("beta", "gamma"):
            cell.agents[host].renew(cell.now)
        pause_s = cell.leader.turn()


def test_nobody_is_cut_because_the_clock_of_the_store_has_jumped(cell: Cell) -> None:
    cell.go(20.0)
    cell.now += TIMING.renew_s / 2
    cell.ahead_s = 60.0
    cell.leader.turn()
    cell.leader.turn()
    assert cell.outlet.begun == [] and cell.fencing is None
    cell.go(10.0)
    assert cell.outlet.begun == [] and cell.fencing is None


def test_it_is_written_down_before_it_begins(cell: Cell) -> None:
    written: list[Fencing | None] = []
    begin = cell.outlet.cut

    def cut(host: str, fence: Fence, began_at: float) -> None:
        written.append(cell.fencing)
        begin(host, fence, began_at)

    cell.outlet.cut = cut  # type: ignore[method-assign]
    cell.go(SILENT_S, "alpha")
    assert written[0] is not None and written[0].state is Cut.UNDER_WAY


def test_s16_a_leader_that_was_deposed_cuts_nobody(cell: Cell) -> None:
    """It does not know yet, and what it knows says that alpha is silent."""
    cell.now += SILENT_S
    mirror = cell.store._mirror
    assert cell.world.write(cell.store.session or 0, Delete("leader/holder"))
    other = MemoryStore(cell.world, role="leader", host="beta")
    assert other.lead()
    cell.store._mirror = mirror
    cell.leader.turn()
    assert cell.outlet.begun == [] and cell.fencing is None


def test_s16_who_renews_between_the_decision_and_its_writing_is_not_cut(cell: Cell) -> None:
    remember = cell.store.remember

    def late(memory: object) -> bool:
        cell.agents["alpha"].renew(cell.now)
        return remember(memory)  # type: ignore[arg-type]

    cell.store.remember = late  # type: ignore[method-assign]
    cell.go(SILENT_S, "alpha")
    assert cell.outlet.begun == []
    cell.go(0.05)
    assert cell.fencing is not None and cell.fencing.because == "it has renewed its lease"
    assert cell.owner == "alpha"


def test_s16_who_renews_before_its_power_is_cut_is_not_taken_over_by_that_proof(cell: Cell) -> None:
    """It is off now, but nobody knows what it wrote last; the next proof counts."""
    cell.go(SILENT_S, "alpha")
    cell.agents["alpha"].renew(cell.now)
    cell.end(off=True)
    cell.go(0.2, "alpha")
    assert cell.owner == "alpha"
    cell.go(SILENT_S, "alpha")
    assert len(cell.outlet.begun) == 2
    cell.end(off=True)
    cell.go(0.2, "alpha")
    assert cell.owner == "beta"


def test_who_comes_back_meanwhile_is_spared(cell: Cell) -> None:
    cell.go(SILENT_S, "alpha")
    cell.go(1.0)
    assert "alpha" in cell.outlet.given_up
    cell.end(off=False, because="it has renewed its lease")
    cell.go(0.2)
    assert cell.owner == "alpha"
    assert cell.operator.view().holds == ()


def test_a_failure_changes_nothing_and_is_tried_again(cell: Cell) -> None:
    cell.go(SILENT_S, "alpha")
    cell.end(off=False, because="no route")
    cell.go(0.2, "alpha")
    assert cell.owner == "alpha"
    (hold,) = cell.operator.view().holds
    assert "fence_apc could not cut its power (no route), and tries again" in hold.because
    assert hold.hint.endswith("failover fence alpha --confirmed")
    cell.go(6.0, "alpha")
    assert len(cell.outlet.begun) == 2
    assert cell.said() == ["fencing", "unfenced", "fencing"]


def test_what_has_ended_is_kept_until_it_is_written_down(cell: Cell) -> None:
    cell.go(SILENT_S, "alpha")
    cell.end(off=True)
    remember = cell.store.remember

    def lost(memory: object) -> bool:
        raise Unreachable("the store does not answer")

    cell.store.remember = lost  # type: ignore[method-assign]
    cell.go(0.1, "alpha")
    assert cell.owner == "alpha"
    cell.store.remember = remember  # type: ignore[method-assign]
    cell.go(0.1, "alpha")
    assert cell.owner == "beta"


def test_the_next_leader_waits_for_what_the_one_before_began_and_goes_on(cell: Cell) -> None:
    cell.go(SILENT_S, "alpha")
    cell.store.close()
    cell.store = MemoryStore(cell.world, role="leader", host="gamma")
    cell.outlet = Outlet()
    cell.leader = cell.leading(cell.outlet)
    for _ in range(30):
        cell.go(1.0, "alpha")
    assert cell.outlet.begun == []
    for _ in range(50):
        cell.go(1.0, "alpha")
    assert [host for host, _, _ in cell.outlet.begun] == ["alpha"]


def test_the_next_leader_knows_what_was_proved(cell: Cell) -> None:
    proved = replace(cell.operator.view().memory, fencings={"alpha": Fencing(0, cell.now - 5, Cut.OFF, cell.now - 1)})
    version = cell.operator.view().leases["alpha"].version
    fencings = {"alpha": replace(proved.fencings["alpha"], version=version)}
    assert cell.store.remember(replace(proved, fencings=fencings))
    cell.store.close()
    cell.store = MemoryStore(cell.world, role="leader", host="gamma")
    cell.leader = cell.leading(Outlet())
    cell.go(SILENT_S, "alpha")
    cell.go(0.1, "alpha")
    assert cell.owner == "beta"


def test_a_leader_that_leads_no_more_gives_up_what_it_began(cell: Cell) -> None:
    cell.go(SILENT_S, "alpha")
    assert cell.world.write(cell.store.session or 0, Delete("leader/holder"))
    other = MemoryStore(cell.world, role="leader", host="beta")
    assert other.lead()
    cell.leader.turn()
    assert cell.outlet.given_up[-1] == ""


def test_an_operators_wish_is_obeyed_once(cell: Cell) -> None:
    cell.go(0.5)
    wish = CutWish(cell.now, anyway=True)
    cell.operator.wish_host("alpha", lambda intent: replace(intent, cut=wish))
    cell.go(0.1)
    assert len(cell.outlet.begun) == 1
    cell.go(1.0)
    assert "alpha" not in cell.outlet.given_up
    cell.end(off=False, because="no route")
    cell.go(0.5)
    cell.go(5.0)
    assert len(cell.outlet.begun) == 1
    assert cell.fencing is not None and (cell.fencing.wish_at, cell.fencing.state) == (wish.at, Cut.FAILED)
