"""What failover/store.py promises, kept by the store in memory and by a real ZooKeeper alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from failover.errors import Refused, Unreachable
from failover.model import (
    Assignment,
    ClusterIntent,
    Event,
    Hold,
    HostIntent,
    Memory,
    Report,
    State,
    VserverIntent,
    VserverReport,
    Want,
    frozen_map,
)
from failover.records import HISTORY_MAX
from failover.store import Change
from tests.stores import CLUSTER, FIRST, TAKEN, InMemory, InZooKeeper, Stores, leading
from tests.wired import OverWires

# --- records ----------------------------------------------------------------------------------------------------------


def test_what_each_writes_the_others_see(stores: Stores) -> None:
    operator, leader, agent = stores.opened[0], leading(stores), stores.fresh("agent", "alpha")
    operator.wish("web1", lambda wish: replace(wish, want=Want.STOPPED, by="ann"))
    operator.wish_host("beta", lambda wish: replace(wish, drained=True, reason="new disks"))
    operator.wish_cluster(lambda wish: replace(wish, disarmed=True, reason="a new switch"))
    report = Report("alpha", frozen_map({"web1": VserverReport(State.RUNNING, 1)}), at=5.0)
    agent.report(report)
    memory = Memory(frozen_map({"beta": (1.5,)}), disarmed=True)
    assert leader.remember(memory)
    assert leader.commit(Change(assignments=(FIRST,), events=(Event("first", 1.0, "web1 starts on alpha"),)))
    leader.hold([Hold("web1", "because", "hint")])
    stores.until(
        lambda: agent.told().assignments and agent.told().disarmed and "alpha" in leader.view().reports,
    )
    for view in (operator.view(), leader.view()):
        assert view.cluster == CLUSTER
        assert view.intents.vservers["web1"] == VserverIntent(want=Want.STOPPED, by="ann")
        assert replace(view.intents.hosts["beta"], store_at=0.0) == HostIntent(drained=True, reason="new disks")
        assert view.intents.hosts["beta"].store_at <= view.now
        assert view.intents.cluster == ClusterIntent(disarmed=True, reason="a new switch")
        assert view.memory == memory
        assert view.leases["alpha"].since_at <= view.now
        assert view.led_at <= view.now
        assert view.assignments == {"web1": FIRST}
        assert view.holds == (Hold("web1", "because", "hint"),)
        assert view.leader == "beta"
        assert replace(view.reports["alpha"], store_at=0.0) == report
        assert view.reports["alpha"].store_at <= view.now < view.reports["alpha"].store_at + 60
    assert agent.told().cluster == CLUSTER
    assert agent.told().assignments == {"web1": FIRST}
    assert [event.text for event in operator.history()] == ["web1 starts on alpha"]
    assert operator.cluster_text() == "cluster: contract\n"


def test_a_newer_report_replaces_one_that_is_on_its_way(stores: Stores) -> None:
    operator, agent = stores.opened[0], stores.fresh("agent", "alpha")
    for number in range(50):
        agent.report(Report("alpha", at=float(number)))
    stores.until(lambda: "alpha" in operator.view().reports and operator.view().reports["alpha"].at == 49.0)


def test_a_report_made_while_cut_off_arrives_afterwards(stores: Stores) -> None:
    operator, agent = stores.opened[0], stores.fresh("agent", "alpha")
    stores.cut(agent)
    agent.report(Report("alpha", at=7.0))
    stores.mend(agent)
    stores.until(lambda: "alpha" in operator.view().reports and operator.view().reports["alpha"].at == 7.0)


def test_wishes_of_two_operators_at_once_both_count(stores: Stores) -> None:
    operators = [stores.opened[0], stores.fresh("operator")]

    def wish(operator: Any) -> None:
        for _ in range(20):
            operator.wish("web1", lambda wish: replace(wish, cleared_epoch=wish.cleared_epoch + 1))

    threads = [threading.Thread(target=wish, args=(operator,)) for operator in operators]
    if isinstance(stores, InMemory | OverWires):  # it has no threads of its own, and wants none
        for operator in operators:
            wish(operator)
    else:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert operators[0].view().intents.vservers["web1"].cleared_epoch == 40


def test_history_is_in_order_and_keeps_the_newest(stores: Stores) -> None:
    leader = leading(stores)
    for start in range(0, HISTORY_MAX + 100, 100):
        events = tuple(Event("x", float(number), f"event {number}") for number in range(start, start + 100))
        assert leader.commit(Change(events=events))
    kept = leader.history()
    assert [event.at for event in kept] == [float(number) for number in range(100, HISTORY_MAX + 100)]
    assert [event.at for event in leader.history(limit=3)] == [1097.0, 1098.0, 1099.0]
    assert len(leader.history(limit=2 * HISTORY_MAX)) == HISTORY_MAX


def test_a_cluster_yaml_judged_against_an_older_one_is_refused(stores: Stores) -> None:
    first, second = stores.fresh("operator"), stores.fresh("operator")
    judged = first.view().cluster_version
    second.apply(CLUSTER, "theirs", judged)
    with pytest.raises(Refused, match=r"another cluster\.yaml was applied meanwhile"):
        first.apply(CLUSTER, "ours", judged)
    assert first.cluster_text() == "theirs"
    assert first.view().cluster_version == judged + 1
    first.apply(CLUSTER, "whatever stands there")


def test_without_cluster_yaml_there_is_no_view(stores: Stores) -> None:
    empty = type(stores)() if isinstance(stores, InMemory | OverWires) else InZooKeeper(stores._server)  # type: ignore[attr-defined]
    try:
        for store in (empty.fresh("operator"), empty.fresh("leader", "alpha"), empty.fresh("operator")):
            with pytest.raises(Refused, match=r"no cluster\.yaml"):
                store.view()
    finally:
        empty.close()


# --- leadership -------------------------------------------------------------------------------------------------------


def test_one_leads_and_the_next_has_a_higher_epoch(stores: Stores) -> None:
    first, second = leading(stores, "alpha"), stores.fresh("leader", "beta")
    epoch = first.lead()
    assert epoch is not None
    assert second.lead() is None
    first.close()
    stores.until(second.lead)
    assert second.lead() == epoch + 1
    assert stores.opened[0].view().leader == "beta"
    stores.until(lambda: second.leader == "beta")
    second.close()
    third = stores.fresh("leader", "gamma")
    stores.until(lambda: third.leader is None)


def test_who_steps_down_leads_no_more_and_may_stand_again(stores: Stores) -> None:
    first, second = leading(stores, "alpha"), stores.fresh("leader", "beta")
    epoch = first.lead()
    assert epoch is not None and second.lead() is None
    first.step_down()
    assert (first.epoch, first.leader, first.leads_until) == (None, None, None)
    assert not first.commit(Change(assignments=(FIRST,)))
    stores.until(lambda: second.lead() == epoch + 1)
    first.step_down()
    assert second.lead() == epoch + 1, "only who leads steps down"
    second.step_down()
    stores.until(lambda: first.lead() == epoch + 2)


def test_who_has_stepped_down_without_an_answer_leads_only_under_another_epoch(stores: Stores) -> None:
    leader = leading(stores)
    epoch = leader.lead()
    stores.cut(leader)
    with pytest.raises(Unreachable):
        leader.step_down()
    stores.mend(leader)
    stores.until(leader.lead)
    assert leader.lead() == epoch + 1


def test_a_reconnection_in_the_same_session_keeps_the_leadership(stores: Stores) -> None:
    leader = leading(stores)
    epoch = leader.lead()
    stores.cut(leader)
    assert leader.lead() is None, "it cannot know while it is cut off"
    stores.mend(leader)
    stores.until(leader.lead)
    if leader.lead() == epoch:
        assert leader.commit(Change(assignments=(FIRST,)))
    else:  # the cut was noticed only after the session had ended
        assert leader.lead() == epoch + 1


def test_a_deposed_leader_cannot_write(stores: Stores) -> None:
    old, new = leading(stores, "alpha"), stores.fresh("leader", "beta")
    stores.cut(old)
    stores.until(new.lead)
    stores.mend(old)
    stores.until(lambda: old.fresh)
    assert not old.commit(Change(assignments=(FIRST,)))
    old.hold([Hold("web1", "the old one's")])
    assert not old.remember(Memory(disarmed=True))
    assert old.lead() is None
    assert new.commit(Change(assignments=(FIRST,)))
    assert new.view().holds == ()
    assert new.view().memory == Memory()


def test_a_leader_that_does_not_know_of_its_fall_cannot_write(stores: Stores) -> None:
    old, new = leading(stores, "alpha"), stores.fresh("leader", "beta")
    stores.depose(old)
    stores.until(new.lead)
    assert not old.commit(Change(assignments=(FIRST,)))
    old.hold([Hold("web1", "the old one's")])
    assert new.view().assignments == {}
    assert new.view().holds == ()
    stores.until(lambda: old.fresh and old.lead() is None)


def test_nobody_commits_without_leadership(stores: Stores) -> None:
    store = stores.fresh("leader", "alpha")
    assert not store.commit(Change(assignments=(FIRST,)))
    assert stores.opened[0].view().assignments == {}


# --- commits ----------------------------------------------------------------------------------------------------------

COMMITS = {
    "the first assignment": ((), Change(assignments=(FIRST,)), True),
    "the first assignment twice": ((FIRST,), Change(assignments=(FIRST,)), False),
    "the next epoch": ((FIRST,), Change(assignments=(TAKEN,)), True),
    "the same epoch again": ((FIRST, TAKEN), Change(assignments=(TAKEN,)), False),
    "an epoch left out": ((FIRST,), Change(assignments=(replace(TAKEN, epoch=3),)), False),
    "an assignment that does not exist": ((), Change(assignments=(TAKEN,)), False),
    "one of two that fails": ((FIRST,), Change(assignments=(Assignment("db1", "beta", 1), FIRST)), False),
    "a host that has never joined": ((), Change(assignments=(FIRST,), leases=(("gamma", 0),)), False),
}


@pytest.mark.parametrize(("before", "change", "done"), COMMITS.values(), ids=COMMITS)
def test_a_commit_needs_what_it_was_decided_on(
    stores: Stores, before: tuple[Assignment, ...], change: Change, done: bool
) -> None:
    leader = leading(stores)
    for assignment in before:
        assert leader.commit(Change(assignments=(assignment,)))
    was = leader.view().assignments
    assert leader.commit(replace(change, events=(Event("x", 1.0, "x"),))) is done
    wanted = dict(was) | {assignment.vserver: assignment for assignment in change.assignments}
    assert stores.opened[0].view().assignments == (wanted if done else was), "all of it or nothing"
    assert len(leader.history()) == (1 if done else 0)
    stores.until(lambda: leader.fresh and leader.view().assignments == (wanted if done else was))


def test_a_host_whose_session_lives_cannot_be_taken_over(stores: Stores) -> None:
    leader, _ = leading(stores), stores.fresh("agent", "alpha")
    assert leader.commit(Change(assignments=(FIRST,)))
    version = stores.opened[0].view().leases["alpha"].version
    assert not leader.commit(Change(assignments=(TAKEN,), leases=(("alpha", version),)))


def test_a_host_that_an_operator_vouches_for_is_taken_over_unless_it_has_written_since(stores: Stores) -> None:
    leader, agent = leading(stores), stores.fresh("agent", "alpha")
    assert leader.commit(Change(assignments=(FIRST,)))
    version = stores.opened[0].view().leases["alpha"].version
    agent.renew(1.0)
    stores.until(lambda: stores.opened[0].view().leases["alpha"].version > version)
    assert not leader.commit(Change(assignments=(TAKEN,), vouched=(("alpha", version),)))
    version = stores.opened[0].view().leases["alpha"].version
    assert leader.commit(Change(assignments=(TAKEN,), vouched=(("alpha", version),)))


# --- without a connection ---------------------------------------------------------------------------------------------


def test_what_needs_the_store_says_that_it_cannot_be_reached(stores: Stores) -> None:
    operator, leader, agent = stores.fresh("operator"), leading(stores), stores.fresh("agent", "alpha")
    for store in (operator, leader, agent):
        stores.cut(store)
    calls: tuple[Callable[[], object], ...] = (
        operator.view,
        operator.history,
        operator.cluster_text,
        lambda: operator.apply(CLUSTER, ""),
        lambda: operator.wish("web1", lambda wish: wish),
        lambda: leader.commit(Change()),
        lambda: leader.hold([]),
    )
    for call in calls:
        with pytest.raises(Unreachable):
            call()
    assert leader.lead() is None
    assert agent.told().cluster == CLUSTER, "what was read last is still there, though no longer fresh"
    agent.renew(1.0)
    agent.report(Report("alpha"))


def test_the_caller_is_woken_by_what_concerns_it(stores: Stores) -> None:
    woken = {"agent": 0, "leader": 0}

    def note(who: str) -> Callable[[], None]:
        def changed() -> None:
            woken[who] += 1

        return changed

    agent = stores.fresh("agent", "alpha", changed=note("agent"))
    leader = stores.fresh("leader", "beta", changed=note("leader"))
    stores.until(leader.lead)
    before = woken["agent"]
    assert leader.commit(Change(assignments=(FIRST,)))
    stores.until(lambda: woken["agent"] > before)
    before = woken["leader"]
    agent.report(Report("alpha"))
    stores.until(lambda: woken["leader"] > before)
    before = woken["agent"]
    stores.cut(agent)
    stores.until(lambda: woken["agent"] > before)
