"""What agents/agent.py expects of a machine, kept by the simulated one and by a real one alike.

What the simulator says of the cluster is worth as much as this suite and test_machine_contract_syncs.py.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from agents.promise import Answer, Question
from agents.steps import Bond, Demote, Freeze, Kill, SeenVserver, Ship, Start, Stop, Thaw, Tree
from failover.model import Check, Replica, State, Want
from tests.machines import Machines


def is_gone(seen: SeenVserver) -> bool:
    return seen.state is State.STOPPED and not seen.networked


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_start_makes_it_run_and_its_addresses_answer(machines: Machines) -> None:
    before = machines.see()
    assert (before.state, before.tree, before.networked) == (State.STOPPED, Tree.LIVE, False)
    seen = machines.start()
    assert (seen.state, seen.networked, seen.failures, seen.failed) == (State.RUNNING, True, (), {})
    assert machines.answers()
    assert seen.marks["begun"] <= seen.marks["address"] <= seen.marks["started"]
    assert seen.marks["begun"] <= seen.since_at


def test_what_is_seen_running_has_all_its_marks(machines: Machines) -> None:
    """The leader writes down the first sight of it, and never again."""
    sights = [machines.see()]
    machines.begin(Start(machines.vserver, 7, "alpha"))

    def runs() -> bool:
        sights.append(machines.see())
        return sights[-1].state is State.RUNNING and sights[-1].since_at > 0

    machines.until(runs)
    marks = sights[-1].marks
    assert marks["begun"] <= marks["address"] <= marks["started"]


def test_begin_never_waits_and_the_agent_is_woken_when_the_step_is_over(machines: Machines) -> None:
    with machines.slow_start():
        machines.begin(Start(machines.vserver, 7, "alpha"))
        assert machines.see().busy == ("start",)
        before = machines.woken["alpha"]
    machines.until(lambda: machines.woken["alpha"] > before)
    assert machines.see().busy == (), "it is woken afterwards"


def test_of_the_steps_that_change_its_life_there_is_one_at_a_time(machines: Machines) -> None:
    with machines.slow_start():
        machines.begin(Start(machines.vserver, 7, "alpha"), Start(machines.vserver, 7, "alpha"))
        machines.begin(Stop(machines.vserver, 7, because="it is ill"), Kill(machines.vserver.name, 7))
        assert machines.see().busy == ("start",)
    machines.until(lambda: not machines.see().busy)
    seen = machines.see()
    assert (seen.state, seen.failures) == (State.RUNNING, ()), "what was not begun is not remembered"


def test_what_runs_is_left_as_it_is_by_another_start(machines: Machines) -> None:
    before = machines.start()
    seen = machines.start()
    assert (seen.state, seen.since_at, seen.networked) == (State.RUNNING, before.since_at, True)
    assert (seen.failures, seen.failed) == ((), {})
    assert machines.answers()


def test_what_is_frozen_is_not_thawed_by_a_start(machines: Machines) -> None:
    machines.start()
    machines.do(Freeze(machines.vserver.name))
    assert machines.start().state is State.FROZEN


def test_a_start_whose_word_is_over_does_nothing_and_is_no_failure(machines: Machines) -> None:
    machines.set_aside(generation=5, epoch=6)
    machines.told(epoch=8)
    seen = machines.start(epoch=7)
    assert is_gone(seen)
    assert (seen.tree, seen.failures, seen.failed) == (Tree.REPLICA, (), {})
    machines.start(epoch=8)
    assert machines.start(epoch=7).state is State.RUNNING


def test_a_start_that_finds_its_word_changed_is_dropped_and_no_failure(machines: Machines) -> None:
    with machines.slow_start():
        machines.begin(Start(machines.vserver, 7, "alpha"))
        machines.elapse(0.2)
        machines.told(owner="beta", epoch=8)
    machines.until(lambda: not machines.see().busy)
    seen = machines.see()
    assert is_gone(seen)
    assert (seen.failures, seen.failed) == ((), {})


def test_a_start_after_the_end_of_the_lease_is_dropped_and_no_failure(machines: Machines) -> None:
    machines.told(lease_s=0.2)
    machines.elapse(0.3)
    seen = machines.start()
    assert is_gone(seen)
    assert (seen.failures, seen.failed) == ((), {})


def test_a_start_that_the_end_of_the_lease_overtakes_is_dropped_and_no_failure(machines: Machines) -> None:
    machines.told(lease_s=0.5)
    with machines.slow_start():
        machines.begin(Start(machines.vserver, 7, "alpha"))
        machines.elapse(0.6)
    machines.until(lambda: not machines.see().busy)
    seen = machines.see()
    assert is_gone(seen)
    assert (seen.failures, seen.failed) == ((), {})


def test_a_start_that_fails_is_a_failure_with_its_epoch_and_leaves_nothing(machines: Machines) -> None:
    machines.cannot_start()
    seen = machines.start()
    assert is_gone(seen)
    (failure,) = seen.failures
    assert (failure.epoch, failure.because) == (7, seen.failed["start"][1])
    assert seen.failed["start"][0] == 7
    machines.cannot_start(False)
    seen = machines.start()
    assert (seen.state, seen.failed, seen.failures) == (State.RUNNING, {}, (failure,))


# record, rest of the start; whether it starts
REPLICAS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "a complete one": ({"generation": 5, "epoch": 6}, {}, True),
    "none that is complete": ({}, {}, False),
    "none that has diverged": ({"generation": 5, "epoch": 6, "diverged": True}, {}, False),
    "one that has diverged, if an operator says so": (
        {"generation": 5, "epoch": 6, "diverged": True},
        {"anyway": True},
        True,
    ),
    "none that has heard of a later epoch": ({"generation": 5, "epoch": 8}, {}, False),
}


@pytest.mark.parametrize(("record", "rest", "starts"), REPLICAS.values(), ids=REPLICAS)
def test_of_the_replicas_is_started(
    machines: Machines, record: dict[str, Any], rest: dict[str, Any], starts: bool
) -> None:
    machines.set_aside(**record)
    replica = Replica(5, record["epoch"], record.get("diverged", False)) if record else None
    before = machines.see()
    assert (before.tree, before.replica) == (Tree.REPLICA if record else Tree.NONE, replica)
    seen = machines.start(**rest)
    assert seen.state is (State.RUNNING if starts else State.STOPPED)
    assert [failure.epoch for failure in seen.failures] == ([] if starts else [7])
    assert (seen.tree, seen.replica) == ((Tree.LIVE, None) if starts else (before.tree, replica))


# --- ending -----------------------------------------------------------------------------------------------------------


def test_a_stop_takes_the_network_away_and_is_no_failure(machines: Machines) -> None:
    machines.start()
    seen = machines.do(Stop(machines.vserver, 7))
    assert is_gone(seen)
    assert (seen.failures, seen.failed) == ((), {})
    assert not machines.answers()


def test_what_does_not_stop_in_time_is_killed(machines: Machines) -> None:
    machines.does_not_listen()
    machines.start()
    seen = machines.do(Stop(machines.vserver, 7, timeout_s=0.3))
    assert is_gone(seen)
    assert seen.failed == {}


def test_a_stop_because_of_a_failure_counts_as_one(machines: Machines) -> None:
    machines.start()
    (failure,) = machines.do(Stop(machines.vserver, 7, because="tcp 80 does not answer (3 times)")).failures
    assert (failure.epoch, failure.because) == (7, "tcp 80 does not answer (3 times)")
    assert failure.at <= machines.machine["alpha"].now()


def test_a_kill_ends_it_frozen_or_not_and_is_no_failure(machines: Machines) -> None:
    for steps in ((), (Freeze(machines.vserver.name),)):
        machines.start()
        seen = machines.do(*steps, Kill(machines.vserver.name, 7))
        assert is_gone(seen)
        assert (seen.failures, seen.failed) == ((), {})
        assert not machines.answers()


def test_an_end_that_nobody_asked_for_is_a_failure_of_the_word_it_ran_under(machines: Machines) -> None:
    machines.start()
    machines.told(epoch=8)
    machines.see()
    machines.die()
    machines.until(lambda: machines.see().state is State.STOPPED)
    seen = machines.see()
    (failure,) = seen.failures
    assert (failure.epoch, failure.because) == (8, seen.because)
    assert seen.because
    assert seen.networked, "its addresses go with a step of ours"
    assert machines.see().failures == (failure,), "it counts once"


@pytest.mark.parametrize("word", [{"owner": "beta", "epoch": 8}, {"want": Want.IGNORED, "epoch": 8}], ids=str)
def test_the_end_of_what_is_not_ours_is_no_failure(machines: Machines, word: dict[str, Any]) -> None:
    machines.start()
    machines.told(**word)
    machines.see()
    machines.die()
    machines.until(lambda: machines.see().state is State.STOPPED)
    assert machines.see().failures == ()


def test_where_there_is_nothing_to_do_a_step_does_nothing_and_does_not_fail(machines: Machines) -> None:
    name = machines.vserver.name
    seen = machines.do(Freeze(name), Thaw(name), Stop(machines.vserver, 7), Kill(name, 7))
    assert is_gone(seen)
    assert (seen.failures, seen.failed) == ((), {})
    assert machines.do(Demote(name, 7), Demote(name, 7)).failed == {}


def test_more_failures_are_remembered_than_any_restart_allows(machines: Machines) -> None:
    for number in range(20):
        machines.do(Stop(machines.vserver, 7, because=f"for the {number}th time"))
    assert [failure.because for failure in machines.see().failures] == [f"for the {n}th time" for n in range(20)]


# --- the lease --------------------------------------------------------------------------------------------------------


def test_what_is_held_is_frozen_at_the_end_though_the_agent_does_nothing(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=0.5)
    machines.until(lambda: machines.see().state is State.FROZEN)
    seen = machines.see()
    assert (seen.networked, seen.failures) == (True, ())
    machines.elapse(0.1)
    assert not machines.answers()


def test_what_is_held_again_before_the_end_goes_on(machines: Machines) -> None:
    machines.start()
    for _ in range(4):
        machines.told(lease_s=1.0)
        machines.elapse(0.3)
        assert machines.see().state is State.RUNNING
    assert machines.answers()


def test_what_is_held_again_after_the_end_goes_on(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=0.2)
    machines.until(lambda: machines.see().state is State.FROZEN)
    machines.told()
    machines.until(lambda: machines.see().state is State.RUNNING)
    assert machines.answers()


def test_it_is_thawed_under_a_lease(machines: Machines) -> None:
    machines.start()
    assert machines.do(Freeze(machines.vserver.name)).state is State.FROZEN
    machines.told()
    assert machines.see().state is State.FROZEN, "it was not the guard who froze it"
    assert machines.do(Thaw(machines.vserver.name)).state is State.RUNNING
    assert machines.answers()


def test_it_is_not_thawed_after_the_end_of_the_lease(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=0.2)
    machines.until(lambda: machines.see().state is State.FROZEN)
    machines.elapse(0.1)
    seen = machines.do(Thaw(machines.vserver.name))
    assert (seen.state, seen.failed) == (State.FROZEN, {})


def test_what_was_given_away_is_frozen_at_its_old_end(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=0.5)
    machines.told(owner="beta", epoch=8, lease_s=30.0)
    machines.until(lambda: machines.see().state is State.FROZEN)


def test_what_is_ignored_is_left_alone_at_the_end(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=1.0)
    machines.told(epoch=8, want=Want.IGNORED)
    machines.elapse(1.1)
    assert machines.see().state is State.RUNNING
    assert machines.answers()


@pytest.mark.parametrize("lease_s", [-1.0, 0.0, 3600.0])
def test_a_word_for_a_time_that_is_over_or_beyond_reason_is_not_taken(machines: Machines, lease_s: float) -> None:
    machines.start()
    machines.told(lease_s=1.0)
    assert not machines.hears(lease_s=lease_s)
    assert machines.see().state is State.RUNNING, "the old end stands"
    machines.until(lambda: machines.see().state is State.FROZEN)


def test_a_word_that_the_guard_has_not_taken_gives_no_right(machines: Machines) -> None:
    machines.told(lease_s=0.4)
    with machines.guard_hanging():
        assert not machines.hears(lease_s=30.0)
        machines.elapse(0.4)
        assert is_gone(machines.start())


# --- what a human has started -----------------------------------------------------------------------------------------


def test_a_copy_that_a_human_started_is_by_hand_since_the_word_at_its_first_sight(machines: Machines) -> None:
    machines.told(owner="beta", epoch=8)
    assert not machines.see().by_hand
    machines.start_by_hand()
    seen = machines.see()
    assert (seen.state, seen.by_hand, seen.by_hand_epoch) == (State.RUNNING, True, 8)
    machines.told(owner="beta", epoch=9)
    assert (machines.see().by_hand, machines.see().by_hand_epoch) == (True, 8)
    machines.do(Kill(machines.vserver.name, 9))
    machines.start_by_hand()
    assert (machines.see().by_hand, machines.see().by_hand_epoch) == (True, 9), "another copy has its own first sight"


def test_a_copy_that_was_adopted_is_by_hand_no_more(machines: Machines) -> None:
    machines.told(owner="beta", epoch=8)
    machines.start_by_hand()
    assert machines.see().by_hand
    machines.told(epoch=9)
    machines.until(lambda: not machines.see().by_hand)
    machines.told(owner="beta", epoch=10)
    assert not machines.see().by_hand
    machines.new_agent()
    machines.told(owner="beta", epoch=11)
    assert not machines.see().by_hand


# --- promises ---------------------------------------------------------------------------------------------------------


def promise(machines: Machines, length_s: float) -> Bond:
    """To beta, by alpha."""
    bond = Bond("beta", 8, machines.machine["alpha"].now() + length_s)
    assert machines.machine["alpha"].promise(machines.vserver.name, bond)
    return bond


def test_what_is_promised_is_not_started_until_that_is_over(machines: Machines) -> None:
    bond = promise(machines, 1.0)
    assert machines.see().bond == bond
    seen = machines.start()
    assert is_gone(seen)
    assert (seen.failures, seen.failed) == ((), {})
    machines.until(lambda: machines.machine["alpha"].now() > bond.until)
    assert machines.start().state is State.RUNNING


def test_what_is_promised_is_not_thawed_until_that_is_over(machines: Machines) -> None:
    machines.start()
    machines.do(Freeze(machines.vserver.name))
    bond = promise(machines, 1.0)
    assert machines.do(Thaw(machines.vserver.name)).state is State.FROZEN
    machines.until(lambda: machines.machine["alpha"].now() > bond.until)
    assert machines.do(Thaw(machines.vserver.name)).state is State.RUNNING


def test_a_promise_outlives_the_agent_and_is_never_shortened(machines: Machines) -> None:
    bond = promise(machines, 30.0)
    promise(machines, 1.0)
    machines.new_agent()
    machines.told()
    assert machines.see().bond == bond
    assert is_gone(machines.start())


def test_nothing_is_promised_while_a_start_is_under_way(machines: Machines) -> None:
    with machines.slow_start():
        machines.begin(Start(machines.vserver, 7, "alpha"))
        bond = Bond("beta", 8, machines.machine["alpha"].now() + 1.0)
        assert not machines.machine["alpha"].promise(machines.vserver.name, bond)
    machines.until(lambda: not machines.see().busy)
    assert machines.see().state is State.RUNNING


def test_what_others_have_promised_lets_it_run_beyond_the_lease_and_no_longer(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=1.0)
    assert machines.hears(lease_s=-1.0, promised_s=2.0)
    machines.elapse(1.1)
    assert machines.see().state is State.RUNNING
    machines.until(lambda: machines.see().state is State.FROZEN)


def test_what_others_have_promised_thaws_nothing(machines: Machines) -> None:
    machines.start()
    machines.told(lease_s=0.2)
    machines.until(lambda: machines.see().state is State.FROZEN)
    machines.hears(lease_s=-1.0, promised_s=2.0)
    machines.elapse(0.2)
    assert machines.see().state is State.FROZEN


def test_what_was_published_is_recalled_by_the_next_agent(machines: Machines) -> None:
    machines.told(epoch=9)
    machines.new_agent()
    told = machines.machine["alpha"].recall()
    assert (told.host, told.assignments[machines.vserver.name].epoch) == ("alpha", 9)


def test_a_question_is_heard_and_its_answer_counts_once(machines: Machines) -> None:
    alpha, beta, name = machines.machine["alpha"], machines.machine["beta"], machines.vserver.name
    machines.told("beta")
    numbers, heard = itertools.count(1), list[Any]()

    def asked() -> list[Any]:
        """Until one has not been lost on its way."""
        alpha.ask("beta", Question(next(numbers), 5.0, {name: 7}))
        machines.elapse(0.1)
        heard.extend(beta.heard())
        return heard

    machines.until(asked)
    source, question = heard[-1]
    assert (source, question.length_s, question.epochs) == ("alpha", 5.0, {name: 7})
    answer = Answer(question.number, 5.0, (name,), life=question.life)
    for _ in range(3):
        beta.answer("alpha", answer)
    machines.elapse(0.2)
    assert alpha.heard() == (("beta", answer),)
    assert beta.heard() == ()


# --- looking ----------------------------------------------------------------------------------------------------------


def test_nothing_is_seen_of_a_name_that_nobody_knows(machines: Machines) -> None:
    machines.new_agent()
    seen = machines.machine["alpha"].observe(["nobody"]).vservers["nobody"]
    assert replace(seen, bond=None) == SeenVserver()


def test_a_host_says_what_it_has_and_when_it_is_shut_down(machines: Machines) -> None:
    assert machines.look().capacity == machines.capacity()
    assert not machines.look().leaving
    machines.shut_down()
    assert machines.look().leaving


def test_failing_checks_are_seen_of_what_is_to_run_and_does(machines: Machines) -> None:
    machines.vserver = replace(machines.vserver, checks=(Check(tcp=80, every_s=0.1, timeout_s=0.5, fails=2),))
    machines.serves()
    machines.told()
    machines.start()
    machines.see()
    machines.until(machines.is_well)
    assert not machines.see().failing
    machines.fails()
    machines.until(lambda: machines.see().failing)
    machines.told(want=Want.STOPPED)
    assert not machines.see().failing, "it is to be stopped"
    machines.told()
    machines.see()
    machines.do(Stop(machines.vserver, 7))
    assert not machines.see().failing, "it does not run"


def test_the_next_agent_finds_what_runs_and_lies_there_but_no_failures(machines: Machines) -> None:
    machines.start()
    machines.told("beta")
    machines.do(Ship(machines.vserver, "beta", 7))
    machines.do(Stop(machines.vserver, 7, because="it is ill"))
    before = machines.start()
    assert before.failures
    machines.new_agent()
    machines.told()
    seen = machines.see()
    assert (seen.state, seen.tree, seen.networked, seen.since_at) == (
        State.RUNNING,
        Tree.LIVE,
        True,
        before.since_at,
    )
    assert (seen.by_hand, seen.failures, seen.failed, seen.shipped) == (False, (), {}, {})
