"""What a command says while it waits for what becomes of its wish."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import pytest

from failover import orders
from failover.cli.answer import Answer, answer_to, follow, give
from failover.errors import Refused
from failover.model import Assignment, Event, Hold, State, View, VserverReport, Want
from failover.orders import Awaited
from failover.store import Change
from tests.orders import HEALTHY
from tests.stores import InMemory
from tests.views import owned, view

NEXT = owned(epoch=8, because="why")


def on(host: str) -> Awaited:
    return Awaited("v1", 7, lambda word: word.owner == host)


def held(seen: View) -> View:
    return replace(seen, holds=(Hold("v1", "nobody may"),))


def says(word: Assignment, state: State) -> View:
    return view(word=word, says={word.owner: VserverReport(state, word.epoch)})


# name: (the cluster, the wish, whether a hold may still be older than the wish, the answer)
CASES: dict[str, tuple[View, Awaited, bool, Answer]] = {
    "no word yet": (view(word=owned()), on("beta"), True, Answer("")),
    "a hold may be older than the wish": (held(view(word=owned())), on("beta"), True, Answer("")),
    "a hold that stays is the answer": (held(view(word=owned())), on("beta"), False, Answer("v1: nobody may", False)),
    "under way": (view(word=replace(NEXT, target="beta")), on("beta"), False, Answer("v1: why")),
    "answered with no": (view(word=NEXT), on("beta"), False, Answer("v1: why", False)),
    "owned by it, but its agent has not reported": (
        view(word=replace(NEXT, owner="beta"), says={"beta": VserverReport(State.STOPPED, 7)}),
        on("beta"),
        False,
        Answer("v1: why"),
    ),
    "there and running": (
        says(replace(NEXT, owner="beta"), State.RUNNING),
        on("beta"),
        False,
        Answer("v1 is running on beta", True),
    ),
    "there, but it cannot start: the leader's next word is awaited": (
        says(replace(NEXT, owner="beta"), State.ERROR),
        on("beta"),
        False,
        Answer("v1: why"),
    ),
    "stopped as wanted": (
        says(replace(NEXT, want=Want.STOPPED), State.STOPPED),
        Awaited("v1", 7, lambda word: word.want is Want.STOPPED),
        False,
        Answer("v1 is stopped on alpha", True),
    ),
    "stopped only to be started again": (
        says(replace(NEXT, want=Want.STOPPED, again=True), State.STOPPED),
        Awaited("v1", 7, lambda word: word.epoch > 7 and word.want is Want.STARTED),
        False,
        Answer("v1: why"),
    ),
    "what is ignored is left as it is, whatever that is": (
        says(replace(NEXT, want=Want.IGNORED), State.ERROR),
        Awaited("v1", 7, lambda word: word.want is Want.IGNORED),
        False,
        Answer("v1 is left alone", True),
    ),
    "it was so already": (
        says(owned(want=Want.STOPPED), State.STOPPED),
        Awaited("v1", 7, lambda word: word.want is Want.STOPPED),
        True,
        Answer("v1 is stopped on alpha", True),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_answers(name: str) -> None:
    seen, wish, patient, expected = CASES[name]
    assert answer_to(seen, wish, patient=patient) == expected


def test_an_order_is_written_with_who_gave_it_and_its_notice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    stores = InMemory()
    leader = stores.fresh("leader", "alpha")
    operator = stores.fresh("operator")
    operator.apply(HEALTHY.cluster, "")
    for order in (
        orders.drain(HEALTHY, "alpha", reason="new memory"),
        orders.stop(HEALTHY, "v1"),
        orders.disarm(HEALTHY),
    ):
        give(operator, order)
    written = leader.view().intents
    assert (written.hosts["alpha"].drained, written.hosts["alpha"].reason) == (True, "new memory")
    assert written.vservers["v1"].want is Want.STOPPED
    assert written.cluster.disarmed
    intents = (written.hosts["alpha"], written.vservers["v1"], written.cluster)
    assert all(intent.by and intent.at for intent in intents)
    assert capsys.readouterr().out.splitlines() == [
        "alpha is drained; it owns 1 vserver",
        "the manager starts, stops and moves nothing by itself until: failover arm",
    ]


def test_a_no_says_all_that_was_decided_since_the_order() -> None:
    stores = InMemory()
    leader, operator = stores.fresh("leader", "alpha"), stores.fresh("operator")
    operator.apply(HEALTHY.cluster, "")
    assert leader.lead()
    reasons = (
        "first start",
        "an operator moves it",
        "an operator moves it",
        "beta could not start it",
        "it has arrived",
    )
    for epoch, because in enumerate(reasons, 1):
        word = owned(epoch=epoch, because=because)
        assert leader.commit(Change((word,), events=(Event("planned", 1.0, because, "v1", "alpha", epoch),)))
    assert leader.commit(Change(events=(Event("running", 1.0, "v1 runs on alpha", "v1", "alpha", 5),)))
    waiting = Namespace(no_wait=False, timeout=5.0)
    with pytest.raises(Refused, match=r"^v1: an operator moves it; beta could not start it; it has arrived$"):
        follow(operator, waiting, [Awaited("v1", 1, lambda word: word.owner == "beta")])
