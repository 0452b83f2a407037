"""The guard's questions to the leader: when, upon what, and what an answer is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.asking import MISSED, Asking
from agents.lease import NOTHING, Asks, Granted
from failover.grants.protocol import Ask, Footing, Grant, Letter
from failover.timing import PROFILES

TIMING = PROFILES["normal"]
HERE, NEWER = Footing(7, 0), Footing(8, 0)
ASKS = Asks("alpha", "10.0.0.2", HERE, "00", TIMING)
PAUSE_S, LENGTH_S = TIMING.ask_grant_s, TIMING.grant_s


class Leader:
    """It keeps the questions."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.asking = Asking(lambda asks, letter: self.asked.append(letter.ask), first=100)  # type: ignore[arg-type]

    def answer(self, length_s: float = LENGTH_S, refused: str = "", target: str = "alpha") -> None:
        self.asking.hear(Letter(grant=Grant(self.asked[-1].number, length_s, refused), target=target))


def test_it_asks_nothing_without_a_word_that_says_so() -> None:
    leader = Leader()
    leader.asking.turn(10.0)
    assert (leader.asked, leader.asking.granted(10.0)) == ([], NOTHING)
    assert leader.asking.wait_s(10.0) == float("inf")


def test_it_asks_at_once_and_then_after_each_pause_never_under_the_same_number() -> None:
    leader = Leader()
    leader.asking.obey(ASKS, 10.0)
    for now in (10.0, 10.0 + PAUSE_S / 2, 10.0 + PAUSE_S, 10.0 + PAUSE_S, 10.0 + 2 * PAUSE_S):
        leader.asking.turn(now)
    assert leader.asked == [Ask("alpha", HERE, number) for number in (101, 102, 103)]
    assert leader.asking.wait_s(10.0 + 2.5 * PAUSE_S) == pytest.approx(PAUSE_S / 2)


def test_two_processes_do_not_use_the_same_numbers() -> None:
    numbers = {Asking(lambda asks, letter: None).number for _ in range(20)}
    assert len(numbers) == 20


def test_an_answer_counts_from_its_question_and_only_when_it_is_for_this_host() -> None:
    leader = Leader()
    leader.asking.obey(ASKS, 10.0)
    leader.asking.turn(10.0)
    leader.answer(target="beta")
    assert leader.asking.granted(10.0).until == float("-inf")
    leader.answer()
    assert leader.asking.granted(10.0) == Granted(HERE, 10.0 + TIMING.granted_s(LENGTH_S))


def test_a_newer_footing_begins_anew() -> None:
    leader = Leader()
    leader.asking.obey(ASKS, 10.0)
    leader.asking.turn(10.0)
    late = leader.asked[-1]
    leader.asking.obey(replace(ASKS, footing=NEWER), 10.05)
    leader.asking.hear(Letter(grant=Grant(late.number, LENGTH_S), target="alpha"))
    assert leader.asking.granted(10.05) == Granted(NEWER)
    leader.asking.turn(10.05)
    assert leader.asked[-1] == Ask("alpha", NEWER, 102), "at once"


def test_who_asks_no_more_has_been_granted_nothing() -> None:
    leader = Leader()
    leader.asking.obey(ASKS, 10.0)
    leader.asking.turn(10.0)
    leader.asking.obey(None, 10.0)
    leader.answer()
    leader.asking.turn(11.0)
    assert (leader.asking.granted(10.0), len(leader.asked)) == (NOTHING, 1)


def test_it_is_trouble_when_answers_stay_away_or_are_refusals_and_over_with_the_next_grant() -> None:
    leader = Leader()
    leader.asking.obey(ASKS, 10.0)
    leader.asking.turn(10.0)
    assert not leader.asking.granted(10.0 + (MISSED - 0.1) * PAUSE_S).troubled
    assert leader.asking.granted(10.0 + (MISSED + 0.1) * PAUSE_S).troubled, "there was none at all"
    leader.asking.turn(10.3)
    leader.answer(0.0, "why not")
    assert leader.asking.granted(10.3).troubled
    leader.asking.turn(10.4)
    leader.answer()
    assert not leader.asking.granted(10.4).troubled
    assert leader.asking.granted(10.4 + (MISSED + 0.1) * PAUSE_S).troubled


def test_every_grant_is_news_and_to_be_looked_at_are_the_first_and_trouble_and_its_end() -> None:
    leader, told = Leader(), []
    leader.asking.obey(ASKS, 10.0)
    for now, answered in ((10.0, True), (10.1, True), (10.2, False), (10.3, False), (10.4, False), (10.5, True)):
        leader.asking.turn(now)
        if answered:
            leader.answer()
        if (news := leader.asking.news(now)) is not None:
            told.append((now, news[0].troubled, news[1]))
    assert told == [(10.0, False, True), (10.1, False, False), (10.4, True, True), (10.5, False, True)]


def test_it_asks_as_often_as_it_must_when_the_leader_grants_less_than_its_own_terms_have() -> None:
    """One that was started with other terms."""
    leader, less_s = Leader(), LENGTH_S / 3
    leader.asking.obey(ASKS, 10.0)
    leader.asking.turn(10.0)
    leader.answer(less_s)
    assert leader.asking.wait_s(10.0) == pytest.approx(PAUSE_S / 3)
    now = 10.0 + MISSED * PAUSE_S / 3
    assert not leader.asking.granted(now - 0.001).troubled
    assert leader.asking.granted(now + 0.001).troubled and leader.asking.granted(now + 0.001).until > now
