"""The contract of a machine, about replicas: how one is made, what is refused, and whose tree it is after a move."""

from __future__ import annotations

from typing import Any

import pytest

from agents.steps import Demote, SeenVserver, Ship, Stop, Tree
from failover.model import Replica, State
from tests.machines import Machines

# --- syncs ------------------------------------------------------------------------------------------------------------


def shipped_once(machines: Machines, **rest: Any) -> SeenVserver:
    machines.told("beta")
    return machines.do(Ship(machines.vserver, "beta", 7, **rest))


def test_a_ship_makes_a_complete_generation_at_the_backup(machines: Machines) -> None:
    machines.start()
    machines.write("a")
    before, before_there = machines.machine["alpha"].now(), machines.machine["beta"].now()
    seen = shipped_once(machines)
    shipped = seen.shipped["beta"]
    began_there = before_there + shipped.at - before
    assert (shipped.epoch, shipped.final, shipped.rounds, shipped.because) == (7, False, 1, "")
    assert shipped.generation > 0
    assert before <= shipped.at <= shipped.at + shipped.took_s <= machines.machine["alpha"].now()
    assert shipped.tried_at <= shipped.at
    theirs = machines.see("beta")
    assert (theirs.state, theirs.tree) == (State.STOPPED, Tree.REPLICA)
    assert theirs.replica == Replica(shipped.generation, 7)
    assert theirs.received_at is not None, "the backup knows itself how old it is"
    assert before_there - 0.01 <= theirs.received_at <= began_there + shipped.took_s
    assert seen.received_at is None
    assert machines.has("a", "beta")
    assert seen.state is State.RUNNING


def test_a_generation_is_made_when_there_is_something_new_or_a_new_epoch(machines: Machines) -> None:
    first = shipped_once(machines).shipped["beta"]
    second = machines.do(Ship(machines.vserver, "beta", 7)).shipped["beta"]
    assert (second.generation, second.rounds) == (first.generation, 2)
    assert second.at > first.at
    machines.write("a")
    third = machines.do(Ship(machines.vserver, "beta", 7)).shipped["beta"]
    assert third.generation > second.generation
    assert machines.see("beta").replica == Replica(third.generation, 7)
    for host in ("alpha", "beta"):
        machines.told(host, epoch=8)
    fourth = machines.do(Ship(machines.vserver, "beta", 8)).shipped["beta"]
    assert (fourth.epoch, fourth.rounds) == (8, 1)
    assert fourth.generation > third.generation
    assert machines.see("beta").replica == Replica(fourth.generation, 8)


REFUSED: dict[str, dict[str, Any]] = {
    "whose epoch is over": {"epoch": 8},
    "from a host that is not the owner": {"owner": "beta"},
    "of which it has not been told yet": {"epoch": 6},
}


@pytest.mark.parametrize("told", REFUSED.values(), ids=REFUSED)
def test_a_ship_is_refused_by_the_receiver(machines: Machines, told: dict[str, Any]) -> None:
    before = machines.machine["alpha"].now()
    machines.told("beta", **told)
    seen = machines.do(Ship(machines.vserver, "beta", 7))
    shipped = seen.shipped["beta"]
    assert shipped.because
    assert (shipped.generation, shipped.rounds, shipped.final) == (0, 0, False)
    assert shipped.tried_at >= before
    assert seen.failed["ship beta"] == (7, shipped.because)
    assert seen.failures == (), "those are of its life"
    assert machines.see("beta").tree is Tree.NONE


def test_a_ship_waits_a_moment_until_the_receiver_is_told(machines: Machines) -> None:
    machines.told("beta", epoch=6)
    machines.begin(Ship(machines.vserver, "beta", 7))
    machines.elapse(0.3)
    machines.told("beta", epoch=7)
    machines.until(lambda: not machines.see().busy)
    assert machines.see().shipped["beta"].because == ""
    assert machines.see("beta").tree is Tree.REPLICA


def test_nothing_is_ever_received_where_a_live_tree_lies(machines: Machines) -> None:
    machines.write("a")
    machines.lay("beta")
    machines.start_by_hand("beta")
    assert shipped_once(machines).shipped["beta"].because
    assert (machines.see("beta").state, machines.see("beta").tree) == (State.RUNNING, Tree.LIVE)
    assert not machines.has("a", "beta")


def test_a_backup_that_cannot_be_reached_keeps_what_it_has(machines: Machines) -> None:
    first = shipped_once(machines).shipped["beta"]
    machines.write("a")
    with machines.cut_off():
        seen = machines.do(Ship(machines.vserver, "beta", 7))
    assert (seen.shipped["beta"].generation, bool(seen.shipped["beta"].because)) == (first.generation, True)
    assert machines.see("beta").replica == Replica(first.generation, 7)
    seen = machines.do(Ship(machines.vserver, "beta", 7))
    assert (seen.shipped["beta"].because, seen.failed) == ("", {})
    assert machines.has("a", "beta")


def test_a_ship_whose_own_word_is_over_has_not_failed(machines: Machines) -> None:
    for host in ("alpha", "beta"):
        machines.told(host, epoch=8)
    seen = machines.do(Ship(machines.vserver, "beta", 7))
    assert (seen.shipped, seen.failed) == ({}, {})


def test_a_tree_that_is_not_live_is_not_shipped(machines: Machines) -> None:
    machines.set_aside(generation=5, epoch=6)
    shipped = shipped_once(machines).shipped["beta"]
    assert (shipped.generation, shipped.rounds, bool(shipped.because)) == (0, 0, True)
    assert machines.see("beta").tree is Tree.NONE


def test_ships_hinder_no_other_step(machines: Machines) -> None:
    machines.start()
    machines.told("beta", epoch=6)
    machines.begin(Ship(machines.vserver, "beta", 7), Ship(machines.vserver, "beta", 7))
    seen = machines.do(Stop(machines.vserver, 7))
    assert (seen.state, seen.busy) == (State.STOPPED, ("ship beta",))
    machines.told("beta", epoch=7)
    machines.until(lambda: not machines.see().busy)
    assert machines.see().shipped["beta"].rounds == 1


# --- the last round, and whose tree it is then ------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True], ids=["by the agent", "by hand"])
def test_a_final_ship_is_final_until_it_is_started(machines: Machines, by_hand: bool) -> None:
    assert shipped_once(machines, final=True).shipped["beta"].final
    if by_hand:
        machines.start_by_hand()
        machines.see()
    else:
        machines.start()
    assert not machines.do(Stop(machines.vserver, 7)).shipped["beta"].final


def test_no_ship_of_what_runs_is_final(machines: Machines) -> None:
    machines.start()
    shipped = shipped_once(machines, final=True).shipped["beta"]
    assert not shipped.final
    assert shipped.because


def test_a_final_ship_that_a_start_overtakes_is_not_final(machines: Machines) -> None:
    machines.told("beta", epoch=6)
    machines.begin(Ship(machines.vserver, "beta", 7, final=True))
    machines.start()
    machines.do(Stop(machines.vserver, 7))
    machines.told("beta", epoch=7)
    machines.until(lambda: not machines.see().busy)
    assert not machines.see().shipped["beta"].final


def test_a_tree_that_the_next_owner_has_whole_becomes_a_replica(machines: Machines) -> None:
    last = shipped_once(machines, final=True).shipped["beta"]
    machines.told(owner="beta", epoch=8)
    seen = machines.do(Demote(machines.vserver.name, 8, last.generation))
    assert (seen.tree, seen.replica) == (Tree.REPLICA, Replica(last.generation, 8))


def test_what_only_a_former_owner_had_is_kept_aside_when_it_follows_the_next(machines: Machines) -> None:
    machines.write("both")
    shipped_once(machines)
    machines.write("mine")
    for host in ("alpha", "beta"):
        machines.told(host, owner="beta", epoch=8)
    replica = machines.do(Demote(machines.vserver.name, 8)).replica
    assert replica is not None
    assert (replica.epoch, replica.diverged, replica.salvaged) == (8, True, ())
    machines.start("beta", epoch=8)
    machines.write("theirs", "beta")
    done = machines.do(Ship(machines.vserver, "alpha", 8), host="beta").shipped["alpha"]
    assert done.because == ""
    replica = machines.see().replica
    assert replica is not None
    assert (replica.generation, replica.epoch, replica.diverged) == (done.generation, 8, False)
    assert len(replica.salvaged) == 1
    assert [machines.has(what, "alpha") for what in ("both", "mine", "theirs")] == [True, False, True]
    assert machines.has_aside("mine", "alpha")
