"""What a command says while it waits for what becomes of its wish."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.cli.answer import Answer, answer_to
from failover.model import Assignment, Hold, State, View, VserverReport, Want
from failover.orders import Awaited
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
