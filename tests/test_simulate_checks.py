"""Every invariant bites: a wrong state made by hand, or a rule broken in the code that plays, is noticed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agents.agent import Agent
from agents.resting import Resting
from agents.steps import Bond, Demote, Ship, Start, Stop, Tree
from failover.leader import Leader
from failover.model import Hold, Kind, MoveWish, Report, Want, frozen_map
from failover.simulate.body import Body
from failover.simulate.copies import Copy, Incoming
from failover.simulate.engine import Universe
from failover.simulate.excuses import excuse
from failover.simulate.host import Host
from failover.simulate.machine import SimulatedMachine
from failover.simulate.memory import MemoryStore
from failover.simulate.scene import Written
from failover.store import Change
from failover.timing import Timing
from failover.wire import Holds, encode
from failover.writes import Set
from tests.universes import HOSTS, V, W, cluster, universe
from tests.wired import OverWires


def broken(made: Universe) -> set[int]:
    """The numbers of the invariants that broke."""
    return {int(found[1]) for line in made.scene.violations if (found := re.search(r"invariant (\d+):", line))}


def leading(made: Universe) -> MemoryStore:
    session = made.scene.world.nodes["leader/holder"].session
    return next(h.leader_store for h in made.hosts.values() if h.leader_store and h.leader_store.session == session)


def early(do: str) -> Callable[[Universe], None]:
    """It is given to a host that is bound by nothing, before the grants of its owner, which was silenced, are over."""

    def made_early(made: Universe) -> None:
        {"stall": lambda host: host.stall(60.0), "power cut": Host.power_off}[do](made.hosts["h1"])
        made.run(made.scene.now + 0.3)
        give_away(made)

    return made_early


def say(made: Universe, **changes: Any) -> None:
    """The leader's next word about v."""
    word = made.record.words()["v"]
    said = replace(word, **{"epoch": word.epoch + 1, "because": "a test says so", **changes})
    assert leading(made).commit(Change(assignments=(said,)))


def tell(made: Universe, host: str, **changes: Any) -> SimulatedMachine:
    """Its agent was told another word about v; it has no turn any more."""
    machine = made.hosts[host].machine
    assert machine is not None
    assert machine.told is not None
    told = machine.told
    word = replace(told.assignments["v"], **{key: value for key, value in changes.items() if key != "disarmed"})
    told = replace(told, assignments=frozen_map({**told.assignments, "v": word}), disarmed="disarmed" in changes)
    machine.publish(told)
    machine.hold(machine.now() + 3.0, told, {})
    return machine


def begin(step: Any, **told: Any) -> Callable[[Universe], None]:
    return lambda made: tell(made, "h1", **told).begin(step)


def give_away(made: Universe) -> None:
    """To a host that has not promised anything."""
    made.bodies["h2"].bonds, made.bodies["h2"].unknown = {}, Bond("", 0, float("-inf"))
    say(made, owner="h2", kind=Kind.TAKEOVER)


def write_by_a_stranger(made: Universe) -> None:
    word = made.record.words()["v"]
    session = made.scene.world.open(4.0)
    made.scene.world.write(session, Set("assignments/v", encode(replace(word, epoch=2, because="mine"))))


def obey_a_wish_twice(made: Universe) -> None:
    store, epoch = MemoryStore(made.scene.world, role="operator"), made.record.words()["v"].epoch
    store.wish("v", lambda wish: replace(wish, move=MoveWish("h3", epoch)))
    say(made, target="h3")
    say(made, target=None)
    say(made, target="h3")


WRONG: dict[str, tuple[Callable[[Universe], object], int]] = {
    "a second copy runs": (lambda made: made.bodies["h3"].run("v", 1), 1),
    "its address is up elsewhere": (lambda made: setattr(made.bodies["h3"].life("v"), "address", True), 2),
    "it is given away while its owner runs it": (give_away, 3),
    "it is given away while its owner stands still within its right": (early("stall"), 3),
    "it is given away when its owner has lost its power, and its right is not over": (early("power cut"), 3),
    "somebody who does not lead decides": (write_by_a_stranger, 4),
    "an agent starts what is wanted stopped": (begin(Start(V, 1, "h1"), want=Want.STOPPED), 5),
    "an agent stops what is ignored": (begin(Stop(V, 1), want=Want.IGNORED), 5),
    "an agent stops while the cluster is disarmed": (begin(Stop(V, 1), disarmed=True), 5),
    "a command is obeyed twice": (obey_a_wish_twice, 6),
    "it is restarted though nobody said so": (lambda made: say(made, want=Want.STOPPED, again=True), 6),
    "a tree is set aside while it runs": (begin(Demote("v", 2)), 7),
    "a decision has no reason": (lambda made: say(made, because=" "), 9),
}


@pytest.mark.parametrize(("do", "number"), WRONG.values(), ids=WRONG)
def test_a_wrong_state_is_noticed(do: Callable[[Universe], object], number: int) -> None:
    made = universe()
    made.run(20.0)
    assert not broken(made)
    do(made)
    made.scene.touch()
    made.run(22.0)
    assert number in broken(made)


def test_a_second_copy_counts_only_after_a_while_when_a_human_has_started_it() -> None:
    made = universe({20: "by-hand v h3"})
    made.run(300.0)
    assert not broken(made)
    assert made.final("v") == "started@h1"


# --- rules that are broken in the code that plays ---------------------------------------------------------------------


def test_a_guard_that_does_not_freeze_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Body, "freeze", lambda self, name: False)
    made = universe({20: "isolate h1"})
    made.run(60.0)
    assert 1 in broken(made)


def test_an_agent_that_ignores_its_lease_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def terms(agent: Agent) -> tuple[Timing, float]:
        return agent._timing, agent._machine.now() + 30.0

    monkeypatch.setattr(Agent, "_terms", terms)
    monkeypatch.setattr(Resting, "until", lambda resting, session, granted: session)
    made = universe({20: "isolate h1"})
    made.run(60.0)
    assert {1, 3} & broken(made)


def test_a_takeover_of_a_host_that_lives_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("failover.plan.decide.alive", lambda view, host: host != "h1")
    monkeypatch.setattr("failover.plan.lost.alive", lambda view, host: host != "h1")
    made = universe()
    made.run(60.0)
    assert {1, 3} & broken(made)


def commit_anything(body: Body, name: str, new: Incoming) -> None:
    copy = body.copy(name)
    copy.generation, copy.epoch, copy.content, copy.incoming = new.generation, new.epoch, new.content, None


def test_a_receiver_that_takes_anything_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Body, "receivable", lambda body, name, source, epoch: body.copy(name))
    monkeypatch.setattr(Body, "commit", commit_anything)
    made = universe({18.5: "agent-restart h2", 19.9: "agent-stop h2"})  # its guard lets it run on for a while
    made.run(20.0)
    made.bodies["h2"].run("v", 1, by_hand=True)
    made.scene.written.append(Written("v", 1, 20.0))
    made.bodies["h1"].write("v", len(made.scene.written) - 1)
    made.bodies["h3"].write("v", 0)
    made.bodies["h3"].copy("v").content |= {1}
    tell(made, "h3", epoch=9)
    machine = tell(made, "h1")
    epoch = made.record.words()["v"].epoch
    machine.begin(Ship(V, "h2", epoch))
    machine.begin(Ship(V, "h3", epoch))
    made.run(23.0)
    assert broken(made) >= {4, 7, 10}


def test_a_start_from_a_torn_tree_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def promote(body: Body, name: str, epoch: int, *, anyway: bool = False) -> None:
        body.copies[name] = Copy(Tree.REPLICA, 0, epoch)

    monkeypatch.setattr(Body, "promote", promote)
    made = universe({20: "power-off h1"})
    made.run(60.0)
    assert 8 in broken(made)


def power_cut_at(made: Universe, moment: Callable[[Incoming], bool]) -> Incoming:
    """h2 loses power at the first moment of a round to it that is like that; h1 is gone when h2 is back."""
    copy = made.bodies["h2"].copy("v")
    while copy.incoming is None or not moment(copy.incoming):
        assert made.scene.scheduler.step(90.0)
    found = copy.incoming
    made.hosts["h2"].power_off()
    made.hosts["h1"].power_off()
    made.hosts["h2"].power_on()
    made.run(made.scene.now + 60.0)
    return found


MOMENTS: dict[str, tuple[Callable[[Incoming], bool], bool]] = {
    "half of it has arrived": (lambda new: 0 < new.arrived_bytes < new.need_bytes, False),
    "it is committed, and not all is moved into place": (lambda new: new.committed and new.need_bytes > 0, True),
}


@pytest.mark.parametrize(("moment", "is_new"), MOMENTS.values(), ids=MOMENTS)
def test_a_power_cut_in_mid_round_leaves_one_generation_or_the_other(
    moment: Callable[[Incoming], bool], is_new: bool
) -> None:
    made = universe({20: "write v 2G"}, replace(V, backups=("h2",), max_data_loss_s=600.0), W)
    new = power_cut_at(made, moment)
    assert not broken(made)
    assert made.final("v") == "started@h2", "\n".join(text for _, text in made.scene.story)
    assert (made.bodies["h2"].copy("v").content == new.content) is is_new


def test_a_start_from_what_is_half_moved_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    really = Copy.settle

    def settle(copy: Copy) -> None:
        if copy.incoming is None or not copy.incoming.need_bytes:
            really(copy)

    monkeypatch.setattr(Copy, "settle", settle)
    made = universe({20: "write v 2G"}, replace(V, backups=("h2",), max_data_loss_s=600.0), W)
    power_cut_at(made, lambda new: new.committed and new.need_bytes > 0)
    assert broken(made) == {8}


def test_a_commit_of_what_has_not_arrived_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(body: Body, name: str, new: Incoming) -> None:
        body.copy(name).incoming = new
        new.committed = True

    monkeypatch.setattr(Body, "begin", begin)
    made = universe({20: "write v 2G"}, replace(V, backups=("h2",), max_data_loss_s=600.0), W)
    power_cut_at(made, lambda new: 0 < new.arrived_bytes < new.need_bytes)
    assert broken(made) == {8}


def test_a_start_of_what_is_in_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = universe({20: "crash v", 25: "crash v", 30: "crash v", 35: "crash v"}, replace(V, backups=()), W)
    made.run(80.0)
    assert made.final("v") == "error@h1"
    assert not broken(made)
    machine = made.hosts["h1"].machine
    assert machine is not None
    machine.begin(Start(V, made.record.words()["v"].epoch, "h1"))
    assert broken(made) == {5}


def test_a_hold_without_a_true_reason_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader says that nobody may run it, though its owner is up and has it."""
    monkeypatch.setattr(Leader, "turn", lambda leader: 3600.0)
    really = SimulatedMachine.begin
    monkeypatch.setattr(
        SimulatedMachine, "begin", lambda self, step: None if isinstance(step, Start) else really(self, step)
    )
    made = universe()
    made.run(20.0)
    made.bodies["h1"].end("v")
    holds = Holds((Hold("v", "no host may run it"), Hold("w", "no host may run it")))
    made.scene.world.write(made.scene.world.open(4.0), Set("holds", encode(holds)))
    made.run(300.0)
    made.outcome()
    assert broken(made) == {11}
    assert "what is said is no reason: no host may run it" in made.scene.violations[-1]


def excused_by_a_drain(made: Universe) -> None:
    store = MemoryStore(made.scene.world, role="operator")
    for host in HOSTS:
        store.wish_host(host, lambda wish: replace(wish, drained=True))


EXCUSES: dict[str, tuple[Callable[[Universe], object], str]] = {
    "none": (lambda made: None, ""),
    "disarmed": (
        lambda made: MemoryStore(made.scene.world, role="operator").wish_cluster(
            lambda wish: replace(wish, disarmed=True)
        ),
        "the cluster is disarmed",
    ),
    "it crashed": (lambda made: made.bodies["h1"].crash("v", "its init died"), "its init died"),
    "all are drained": (excused_by_a_drain, "no host could run it"),
    "no host has it": (lambda made: [body.copies.pop("v") for body in made.bodies.values()], "no host could run it"),
    "its owner has it no more, and the others lack a write": (
        lambda made: [made.bodies["h1"].write("v", 1), made.bodies["h1"].demote("v", 1, None)],
        "no host could run it",
    ),
}


@pytest.mark.parametrize(("do", "why"), EXCUSES.values(), ids=EXCUSES)
def test_what_excuses_that_it_runs_nowhere(do: Callable[[Universe], object], why: str) -> None:
    made = universe()
    made.run(20.0)
    do(made)
    made.bodies["h1"].end("v")
    assert excuse(made.scene, made.hosts, "v", made.record.words()["v"]) == why


def test_what_does_not_run_though_all_is_well_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    really = SimulatedMachine.begin
    monkeypatch.setattr(
        SimulatedMachine, "begin", lambda self, step: None if isinstance(step, Start) else really(self, step)
    )
    made = universe({20: "crash v"})
    made.run(300.0)
    made.outcome()
    assert broken(made) == {11}


def test_a_turn_that_raises_is_a_breach(monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(leader: Leader) -> float:
        raise KeyError("v")

    monkeypatch.setattr(Leader, "turn", turn)
    made = universe()
    made.run(5.0)
    assert broken(made) == {0}


@pytest.mark.parametrize("moment", range(30))
def test_what_a_process_has_written_is_never_unseen_again(moment: int) -> None:
    """Its write overtakes an older reading that is on its way."""
    stores = OverWires()
    stores.fresh("operator").apply(cluster(), "")
    leader, agent = stores.fresh("leader", "h2"), stores.fresh("agent", "h1")
    agent.report(Report("h1"))
    seen = []
    for step in range(60):
        stores.until(iter((False, True)).__next__)
        if step == moment:
            assert leader.lead()
        if step >= moment:
            seen.append(leader.view().leader)
    assert set(seen) == {"h2"}
