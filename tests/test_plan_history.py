"""What the leader's events tell beside their text: where something came from, and what a lost host leaves behind."""

from __future__ import annotations

import pytest

from failover.model import State, VserverReport, Want
from failover.plan import bereft, plan
from tests.views import owned, view


def test_a_change_of_owner_says_from_where_and_whether_that_took_part() -> None:
    taken = plan(view(word=owned(), lost=("alpha",))).changes[0].events[0]
    assert (taken.facts["from"], taken.facts["from_alive"], taken.facts["want"]) == ("alpha", False, "started")
    handed = VserverReport(State.STOPPED, 7, handed=13)
    moved = plan(view(word=owned(target="beta"), says={"alpha": handed})).changes[0].events[0]
    assert (moved.kind, moved.facts["from"], moved.facts["from_alive"]) == ("planned", "alpha", True)


def test_a_word_that_leaves_the_owner_names_none() -> None:
    stays = plan(view(word=owned(), drained=("alpha",))).changes[0].events[0]
    assert stays.kind == "moving" and "from" not in stays.facts


STOPPED = VserverReport(State.STOPPED, 7)
BEREFT = {
    "what runs there": (view(word=owned(), lost=("alpha",)), ("v1",)),
    "not what is wanted stopped": (view(word=owned(want=Want.STOPPED), lost=("alpha",)), ()),
    "not what is in error": (view(word=owned(), lost=("alpha",), says={"alpha": VserverReport(State.ERROR, 7)}), ()),
    "not what its shutdown had stopped": (
        view(word=owned(), lost=("alpha",), leaving=("alpha",), says={"alpha": STOPPED}),
        (),
    ),
    "not what another owns": (view(word=owned(owner="beta"), lost=("alpha",)), ()),
}


@pytest.mark.parametrize(("seen", "names"), BEREFT.values(), ids=BEREFT.keys())
def test_what_a_lost_host_leaves_without_an_owner(seen: object, names: tuple[str, ...]) -> None:
    assert bereft(seen, "alpha") == names  # type: ignore[arg-type]
