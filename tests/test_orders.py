"""What an operator's commands about a vserver come to, a rule a row: `pytest -v tests/test_orders.py` prints them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover import orders
from failover.errors import BadInput, Refused
from failover.model import ClusterIntent, HostIntent, MoveWish, Needs, View, VserverIntent, Want
from failover.plan import plan
from tests.orders import (
    ACCEPT,
    CLEAR,
    DB1,
    DRAIN,
    ERROR,
    FAILBACK,
    FENCE,
    HEALTHY,
    IGNORE,
    MOVE,
    MOVING,
    REMOVE,
    RESTART,
    START,
    STOP,
    STOPPED,
    TAKEOVER,
    Command,
    Does,
    No,
    Rows,
    Says,
    beside,
    check,
    disarmed,
    do,
    given,
    silent,
    small,
    wishing,
)
from tests.views import V1, owned, view

PLACES: Rows = {
    "a move is a wish for the present epoch": (HEALTHY, MOVE, Does({"v1": MOVING}, awaits=("v1",))),
    "a move to the present host is answered": (HEALTHY, do(orders.move, "v1", "alpha"), Says("v1 is on alpha already")),
    "a move to where it is being moved is answered": (
        view(word=owned(target="beta")),
        MOVE,
        Says("v1 is being moved to beta already"),
    ),
    "a move elsewhere waits for the one that has begun": (
        view(word=owned(target="gamma")),
        MOVE,
        No(Refused, "v1 is being moved to gamma right now"),
    ),
    "... but what could not be sent for its first start may go elsewhere": (
        view(word=owned(target="gamma", unstarted=True)),
        MOVE,
        Does({"v1": MOVING}, awaits=("v1",)),
    ),
    "of two moves before the leader's answer the newer counts": (
        wishing(move=MoveWish("gamma", 7)),
        MOVE,
        Does({"v1": MOVING}, awaits=("v1",)),
    ),
    "a move that the leader has not answered can be taken back": (
        wishing(move=MoveWish("gamma", 7)),
        do(orders.move, "v1", "alpha"),
        Does({"v1": VserverIntent()}, "v1 stays on alpha", ("v1",)),
    ),
    "an unknown vserver is named with the nearest": (
        HEALTHY,
        do(orders.move, "V1", "beta"),
        No(BadInput, "there is no vserver V1", "did you mean v1?"),
    ),
    "an unknown host is named with the nearest": (
        HEALTHY,
        do(orders.move, "v1", "betta"),
        No(BadInput, "there is no host betta", "did you mean beta?"),
    ),
    "a host that may never run it is refused": (
        view(word=owned(), vserver=replace(V1, backups=("gamma",))),
        MOVE,
        No(Refused, "v1 may not go to beta: beta is neither its primary nor one of its backups"),
    ),
    "a drained host is refused": (view(word=owned(), drained=("beta",)), MOVE, No(Refused, "beta is drained")),
    "a lost host is refused": (view(word=owned(), lost=("beta",)), MOVE, No(Refused, "beta is lost")),
    "a move beside one that must be apart is refused with its name": (
        beside(view(word=owned(), vserver=replace(V1, apart_from=("db1",))), DB1, db1="beta"),
        MOVE,
        No(Refused, "v1 may not go to beta: beta runs db1, which must be apart from it"),
    ),
    "a move without room is refused": (
        small(beside(HEALTHY, replace(DB1, needs=Needs(2**30)), db1="beta"), "beta", 2**30, Needs(2**30)),
        MOVE,
        No(Refused, "v1 may not go to beta: beta has 0.0G of memory free, and it needs 1.0G"),
    ),
    "a move to where one of the set may never run is refused with its name": (
        beside(HEALTHY, replace(DB1, backups=("gamma",), together_with=("v1",)), db1="alpha"),
        MOVE,
        No(Refused, "v1 may not go to beta: beta may not run db1, which must be together with it"),
    ),
    "a host on which it failed may be named by an operator": (
        view(word=owned(failed_on=("beta",))),
        MOVE,
        Does({"v1": MOVING}, awaits=("v1",)),
    ),
    "a lost owner cannot hand over": (
        view(word=owned(), lost=("alpha",)),
        MOVE,
        No(Refused, "alpha, its owner, is lost", "failover start v1 --on beta --accept-loss"),
    ),
    "what was never started cannot be moved": (view(), MOVE, No(Refused, "v1 has no owner yet")),
    "what is ignored is not moved": (wishing(want=Want.IGNORED), MOVE, No(Refused, "ignored", "failover start v1")),
    "what is being restarted is not moved": (
        view(word=owned(want=Want.STOPPED, again=True)),
        MOVE,
        No(Refused, "v1 is being restarted right now"),
    ),
    "a set moves as a whole, whoever of it is named": (
        beside(HEALTHY, replace(DB1, together_with=("v1",)), db1="alpha"),
        MOVE,
        Does({"v1": MOVING}, "v1 takes db1 along", ("v1", "db1")),
    ),
    "... but not who is there already": (
        beside(HEALTHY, replace(DB1, together_with=("v1",)), db1="beta"),
        MOVE,
        Does({"v1": MOVING}, awaits=("v1",)),
    ),
    "a failback is a move to the primary that does not hold": (
        view(word=owned(owner="beta")),
        FAILBACK,
        Does({"v1": VserverIntent(move=MoveWish("alpha", 7, stay=False))}, awaits=("v1",)),
    ),
    "a failback of what is at home is answered": (HEALTHY, FAILBACK, Says("v1 is on alpha already")),
}

STATES: Rows = {
    "a start of what runs well is answered": (HEALTHY, START, Says("v1 is running on alpha already")),
    "a start wants it started, whatever was wished before": (
        wishing(want=Want.STOPPED),
        START,
        Does({"v1": VserverIntent(want=Want.STARTED, cleared_epoch=7)}, awaits=("v1",)),
    ),
    "a start ends that it is ignored": (
        wishing(want=Want.IGNORED),
        START,
        Does({"v1": VserverIntent(want=Want.STARTED, cleared_epoch=7)}, awaits=("v1",)),
    ),
    "a start forgives errors": (
        view(word=owned(), says={"alpha": ERROR}),
        START,
        Does({"v1": VserverIntent(want=Want.STARTED, cleared_epoch=7)}, awaits=("v1",)),
    ),
    "a start that no host can obey yet is no error": (
        view(),
        START,
        Does({"v1": VserverIntent(want=Want.STARTED)}, awaits=("v1",)),
    ),
    "a start loses no move before it": (
        wishing(want=Want.STOPPED, move=MoveWish("beta", 7)),
        START,
        Does({"v1": replace(MOVING, want=Want.STARTED, cleared_epoch=7)}, awaits=("v1",)),
    ),
    "a loss is accepted for a named replica": (
        view(word=owned(), lost=("alpha",), age={"beta": 90.0}),
        ACCEPT,
        Does(
            {"v1": VserverIntent(want=Want.STARTED, move=MoveWish("beta", 7, accept_loss=True), cleared_epoch=7)},
            awaits=("v1",),
        ),
    ),
    "... also when its owner lives, but cannot run it": (
        view(word=owned(), says={"alpha": ERROR}),
        ACCEPT,
        Does(
            {"v1": VserverIntent(want=Want.STARTED, move=MoveWish("beta", 7, accept_loss=True), cleared_epoch=7)},
            awaits=("v1",),
        ),
    ),
    "a loss is accepted only together with a host": (
        HEALTHY,
        do(orders.start, "v1", on="beta"),
        No(BadInput, "--on HOST and --accept-loss go together"),
    ),
    "no loss is accepted while the owner runs it": (
        HEALTHY,
        ACCEPT,
        No(Refused, "v1 belongs to alpha, which is up", "failover move v1 beta"),
    ),
    "no loss is accepted on the owner itself": (
        HEALTHY,
        do(orders.start, "v1", on="alpha", accept_loss=True),
        No(Refused, "v1 belongs to alpha already", "failover start v1"),
    ),
    "no loss is accepted where there is no replica": (
        view(word=owned(), lost=("alpha",), replicas={"beta": None}),
        ACCEPT,
        No(Refused, "v1 cannot be started on beta: it has no complete replica"),
    ),
    "no loss is accepted of what was never started": (view(), ACCEPT, No(Refused, "there is nothing to lose")),
    "a stop wants it stopped": (HEALTHY, STOP, Does({"v1": VserverIntent(want=Want.STOPPED)}, awaits=("v1",))),
    "a stop ends a restart": (
        wishing(restart_epoch=7),
        STOP,
        Does({"v1": VserverIntent(want=Want.STOPPED)}, awaits=("v1",)),
    ),
    "a second stop is answered, and awaited all the same": (
        wishing(want=Want.STOPPED),
        STOP,
        Says("v1 is wanted stopped already", ("v1",)),
    ),
    "a stop ends that it is ignored": (
        wishing(want=Want.IGNORED),
        STOP,
        Does({"v1": VserverIntent(want=Want.STOPPED)}, awaits=("v1",)),
    ),
    "a restart is a wish for the present epoch": (
        HEALTHY,
        RESTART,
        Does({"v1": VserverIntent(restart_epoch=7)}, awaits=("v1",)),
    ),
    "a second restart is answered": (wishing(restart_epoch=7), RESTART, Says("v1 is being restarted already")),
    "... also while it is stopped": (
        view(word=owned(want=Want.STOPPED, again=True)),
        RESTART,
        Says("v1 is being restarted already"),
    ),
    "what is stopped is not restarted": (
        wishing(want=Want.STOPPED),
        RESTART,
        No(Refused, "v1 is stopped", "failover start v1"),
    ),
    "what is being moved is not restarted": (
        wishing(move=MoveWish("beta", 7)),
        RESTART,
        No(Refused, "v1 is being moved to beta right now"),
    ),
    "what is to be restarted is not moved": (wishing(restart_epoch=7), MOVE, No(Refused, "being restarted right now")),
    "what is in error is not restarted": (
        view(word=owned(), says={"alpha": ERROR}),
        RESTART,
        No(Refused, "v1 is in error on alpha: no init", "failover clear v1"),
    ),
    "a lost owner restarts nothing": (
        view(word=owned(), lost=("alpha",)),
        RESTART,
        No(Refused, "alpha, its owner, is lost"),
    ),
    "an ignored vserver is left alone": (
        wishing(move=MoveWish("beta", 7)),
        IGNORE,
        Does({"v1": VserverIntent(want=Want.IGNORED)}, "v1 is left alone as it is, until: failover start v1", ("v1",)),
    ),
    "a second ignore is answered": (wishing(want=Want.IGNORED), IGNORE, Says("v1 is ignored already")),
    "a removed vserver is forgotten": (
        HEALTHY,
        REMOVE,
        Does({"v1": VserverIntent(want=Want.IGNORED, removed=True)}, "v1 is forgotten: .*", ("v1",)),
    ),
    "a second remove is answered": (wishing(removed=True), REMOVE, Says("v1 is removed already")),
    "errors are forgiven": (
        view(word=owned(), says={"alpha": ERROR}),
        CLEAR,
        Does({"v1": VserverIntent(cleared_epoch=7)}, awaits=("v1",)),
    ),
    "the hosts on which it failed are forgiven": (
        view(word=owned(failed_on=("beta",))),
        CLEAR,
        Does({"v1": VserverIntent(cleared_epoch=7)}, awaits=("v1",)),
    ),
    "the hosts that could not take it are forgiven": (
        view(word=owned(unreached=("beta",))),
        CLEAR,
        Does({"v1": VserverIntent(cleared_epoch=7)}, awaits=("v1",)),
    ),
    "where there are no errors there is nothing to forgive": (HEALTHY, CLEAR, Says("v1 has no errors")),
}

CASES: Rows = {**PLACES, **STATES}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    check(CASES[name])


def test_no_row_is_lost_to_another_of_the_same_name() -> None:
    assert len(CASES) == len(PLACES) + len(STATES)


# --- what becomes of an order -----------------------------------------------------------------------------------------


def test_an_order_is_signed() -> None:
    seen = disarmed(silent(HEALTHY, "alpha", 3.0))
    (moved,) = orders.signed(MOVE(HEALTHY), "anna", 5.0).vservers.values()
    (fenced,) = orders.signed(FENCE(seen), "anna", 5.0).hosts.values()
    armed = orders.signed(orders.arm(seen), "anna", 5.0).cluster
    assert armed
    assert moved(VserverIntent()) == replace(MOVING, by="anna", at=5.0)
    assert fenced(HostIntent(reason="x")) == HostIntent(vouched=40, reason="x", by="anna", at=5.0)
    assert armed(seen.intents.cluster) == ClusterIntent(by="anna", at=5.0)


OBEYED: dict[str, tuple[View, Command]] = {
    "a move": (HEALTHY, MOVE),
    "a takeover": (HEALTHY, TAKEOVER),
    "a failback": (view(word=owned(owner="beta")), FAILBACK),
    "a drain": (HEALTHY, DRAIN),
    "an accepted loss": (view(word=owned(), lost=("alpha",), age={"beta": 90.0, "gamma": 99.0}), ACCEPT),
    "a stop": (HEALTHY, STOP),
    "an ignore": (HEALTHY, IGNORE),
    "a start": (
        view(word=owned(want=Want.STOPPED), says={"alpha": STOPPED}, intent=VserverIntent(want=Want.STOPPED)),
        START,
    ),
    "a clear": (view(word=owned(), says={"alpha": ERROR}), CLEAR),
}


@pytest.mark.parametrize("name", OBEYED)
def test_the_leaders_next_word_is_the_one_awaited(name: str) -> None:
    seen, command = OBEYED[name]
    order = command(seen)
    ((word,),) = (change.assignments for change in plan(given(seen, order)).changes)
    assert word.epoch == 8
    assert order.awaited[0].reached(word if word.target is None else replace(word, owner=word.target))
    assert not plan(seen).changes or name == "a clear"


def test_a_restart_is_done_when_it_is_wanted_started_again() -> None:
    (awaited,) = RESTART(HEALTHY).awaited
    stopping = owned(epoch=8, want=Want.STOPPED, again=True)
    assert [awaited.reached(word) for word in (owned(), stopping, owned(epoch=9))] == [False, False, True]
