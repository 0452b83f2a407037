"""The agent's turn: when it wants the next one, and that nothing is begun without the guard."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from agents.agent import PATIENCE, Agent
from agents.lease import NOTHING, Granted
from agents.promise import Answer, Message, Question
from agents.steps import Bond, Seen, SeenVserver, Step
from failover.grants.protocol import Footing
from failover.model import Told, View, Want
from failover.simulate.memory import MemoryStore, World
from failover.store import Change, Rest
from failover.timing import PROFILES
from tests.seen import CRASHED, NEVER, RESTS, RUNS, failures, shipped
from tests.views import NOW, V1, cluster, owned

TIMING = PROFILES["normal"]  # a renewal every 0.85 s


class Clockwork:
    """A machine that shows what it is given, and keeps what it was to begin."""

    def __init__(self, shown: SeenVserver, *, guarded: bool) -> None:
        self.time, self.shown, self.guarded = 500.0, shown, guarded
        self.begun: list[str] = []
        self.probed, self.asked = False, 0

    @property
    def granted(self) -> Granted:
        return NOTHING

    def now(self) -> float:
        return self.time

    def observe(self, names: Collection[str]) -> Seen:
        return Seen(dict.fromkeys(names, self.shown))

    def begin(self, step: Step) -> None:
        self.begun.append(step.name)

    def hold(self, until: float, told: Told, promised: Mapping[str, float], footing: Footing | None) -> bool:
        return self.guarded

    def live(self) -> None:
        return

    def takes_words(self, told: Told) -> bool:
        return self.guarded or self.probed

    def publish(self, told: Told) -> None:
        return

    def recall(self) -> Told | None:
        return None

    def ask(self, host: str, question: Question) -> None:
        self.asked += 1

    def answer(self, host: str, answer: Answer) -> None:
        return

    def heard(self) -> tuple[tuple[str, Message], ...]:
        return ()

    def promise(self, name: str, bond: Bond) -> bool:
        return True


def agent_of(machine: Clockwork, want: Want = Want.STARTED, every_s: float = 1e9) -> Agent:
    """On alpha, which owns v1 under epoch 1."""
    world = World(lambda: NOW + machine.time)
    vserver = replace(V1, sync=replace(NEVER.sync, every_s=every_s))
    MemoryStore(world, role="operator").apply(cluster(vserver), "")
    leader = MemoryStore(world, role="leader")
    assert leader.lead() is not None
    assert leader.commit(Change(assignments=(owned(epoch=1, want=want),)))
    return Agent(MemoryStore(world, role="agent", host="alpha", timing=TIMING, clock=machine.now), machine, TIMING)


def seen_by_operator(agent: Agent) -> View:
    return MemoryStore(agent._store._world, role="operator").view()  # type: ignore[attr-defined]


# name: (what is seen, what is wanted, the pause between syncs, the pause of the turn, what was begun)
PAUSES: dict[str, tuple[SeenVserver, Want, float, float, list[str]]] = {
    "the next renewal, when nothing is due before": (CRASHED, Want.STOPPED, 1e9, TIMING.renew_s, []),
    "the next restart": (
        replace(CRASHED, failures=failures(0.5, epoch=1)),
        Want.STARTED,
        1e9,
        0.5,
        [],
    ),
    "the next sync": (CRASHED, Want.STOPPED, 1.25, 0.25, []),
    "a restart that is due is begun": (
        replace(CRASHED, failures=failures(1.0, epoch=1)),
        Want.STARTED,
        1e9,
        TIMING.renew_s,
        ["start"],
    ),
}


@pytest.mark.parametrize("name", PAUSES)
def test_the_next_turn_is_due_with(name: str) -> None:
    shown, want, every_s, pause_s, begun = PAUSES[name]
    machine = Clockwork(shown, guarded=True)
    agent = agent_of(machine, want, every_s)
    agent.turn()  # the first renewal is written
    machine.begun.clear()
    assert agent.turn() == pytest.approx(pause_s)
    assert machine.begun == begun


def test_a_turn_between_two_renewals_does_not_put_off_the_second() -> None:
    machine = Clockwork(replace(CRASHED, failures=failures(0.5, epoch=1)), guarded=True)
    agent = agent_of(machine, Want.STOPPED)
    agent.turn()
    machine.time += 0.5
    assert agent.turn() == pytest.approx(TIMING.renew_s - 0.5)


def test_a_sync_that_found_nothing_is_told_of_soon_though_the_last_report_came_right_before_it() -> None:
    machine = Clockwork(replace(CRASHED, shipped=shipped(at=498.0)), guarded=True)
    agent, ages = agent_of(machine, Want.STOPPED), []
    for now, at in ((500.0, 498.0), (500.1, 500.0), (500.5, 500.0), (501.0, 500.0), (502.5, 500.0)):
        machine.time, machine.shown = now, replace(CRASHED, shipped=shipped(at=at))
        agent.turn()
        ages.append(seen_by_operator(agent).reports["alpha"].vservers["v1"].shipments["beta"].age_s)
    assert ages == pytest.approx([2.0, 2.0, 0.5, 0.5, 2.5])


def test_a_final_shipment_is_told_of_at_once_and_then_only_now_and_then() -> None:
    machine = Clockwork(replace(CRASHED, shipped=shipped(at=498.0)), guarded=True)
    agent = agent_of(machine, Want.STOPPED)
    agent.turn()
    said = []
    for now in (500.1, 501.0, 502.0, 502.1):
        machine.time, machine.shown = now, replace(CRASHED, shipped=shipped(at=498.0, final=True))
        agent.turn()
        report = seen_by_operator(agent).reports["alpha"]
        said.append((report.vservers["v1"].shipments["beta"].final, report.store_at - NOW))
    assert said == [(True, pytest.approx(at)) for at in (500.1, 500.1, 500.1, 502.1)]


def test_a_pause_is_never_lost_in_rounding() -> None:
    machine = Clockwork(CRASHED, guarded=True)
    agent = agent_of(machine, Want.STOPPED)
    agent.turn()
    machine.time += TIMING.renew_s - 1e-10
    assert agent.turn() >= 0.001


def test_nothing_is_started_without_the_guard() -> None:
    machine = Clockwork(replace(RESTS, failures=failures(30.0, epoch=1)), guarded=False)
    agent = agent_of(machine)
    agent.turn()
    agent.turn()
    assert "start" not in machine.begun


class Granting(Clockwork):
    """Whatever is asked upon is granted."""

    footing: Footing | None = None
    until = float("-inf")

    @property
    def granted(self) -> Granted:
        return NOTHING if self.footing is None else Granted(self.footing, self.time + TIMING.grant_s)

    def hold(self, until: float, told: Told, promised: Mapping[str, float], footing: Footing | None) -> bool:
        self.footing, self.until = footing, until
        return self.guarded


def test_told_to_end_it_first_goes_back_to_its_session_from_grants() -> None:
    machine = Granting(RUNS, guarded=True)
    agent = agent_of(machine)
    turns(agent, machine, 5.0)
    assert agent._store.rest == Rest(granted=True) and not agent.may_end
    agent.leave()
    agent.turn()
    agent.turn()
    assert agent.may_end and agent._store.rest == Rest()
    assert machine.footing is None, "nobody is asked any more"
    left_s = machine.until - machine.time
    assert TIMING.lease_s - TIMING.told_s(TIMING.renew_s) < left_s <= TIMING.lease_s, "and the guard knows it"
    turns(agent, machine, 5.0)
    assert agent.may_end, "it stays there"


def test_on_its_session_it_may_end_at_once() -> None:
    machine = Clockwork(RUNS, guarded=True)
    agent = agent_of(machine)
    agent.turn()
    assert agent.may_end


def renewals(agent: Agent) -> int:
    return agent._store._world.nodes["leases/alpha"].version  # type: ignore[attr-defined, no-any-return]


def turns(agent: Agent, machine: Clockwork, length_s: float) -> None:
    for _ in range(round(length_s / 0.1)):
        machine.time += 0.1
        agent._store._world.expire()  # type: ignore[attr-defined]
        agent.turn()


def test_without_the_guard_for_two_leases_it_says_no_more_asks_nobody_and_freezes_what_runs() -> None:
    machine = Clockwork(RUNS, guarded=True)
    agent = agent_of(machine)
    turns(agent, machine, 2.0)
    machine.guarded = False
    turns(agent, machine, PATIENCE * TIMING.lease_s - 0.2)
    assert agent._store.connected
    turns(agent, machine, 0.4)
    assert not agent._store.connected
    before = renewals(agent)
    turns(agent, machine, TIMING.lease_s)
    assert (renewals(agent), machine.asked) == (before, 0)
    assert machine.begun[-1] == "freeze"
    machine.guarded = True
    turns(agent, machine, 0.2)
    assert agent._store.fresh
    assert renewals(agent) > before


def test_a_guard_that_starts_anew_costs_nothing() -> None:
    machine = Clockwork(RUNS, guarded=True)
    agent = agent_of(machine)
    for _ in range(5):
        machine.guarded = False
        turns(agent, machine, 1.0)
        machine.guarded = True
        turns(agent, machine, 0.1)
    turns(agent, machine, 3 * TIMING.lease_s)
    assert agent._store.fresh
    assert "freeze" not in machine.begun


def test_a_guard_that_takes_only_words_that_name_nothing_does_not_keep_the_session_alive() -> None:
    machine = Clockwork(RUNS, guarded=False)
    machine.probed = True
    agent = agent_of(machine)
    turns(agent, machine, 2 * PATIENCE * TIMING.lease_s + 0.5)
    assert not agent._store.connected
    turns(agent, machine, TIMING.session_s)
    assert not agent._store.connected
