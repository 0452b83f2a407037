"""Which requests of a session surely reached ZooKeeper's leader, whatever server is lost with what it has heard."""

from __future__ import annotations

import random

import pytest

from failover.touches import Touches
from tests.universes import played

TICK = 0.2
KEPT = 2 * TICK


def test_nothing_counts_at_first_but_the_attempt_that_began_the_session() -> None:
    touches = Touches(KEPT)
    assert touches.told_at is None and touches.written_at is None
    touches.begun(5.0)
    assert touches.told_at == 5.0 and touches.written_at is None


def test_a_write_counts_when_another_one_two_ticks_after_its_answer_is_acknowledged() -> None:
    touches = Touches(KEPT)
    touches.begun(5.0)
    touches.acknowledged(10.0, 10.1)
    assert (touches.told_at, touches.written_at) == (5.0, 10.0)
    touches.acknowledged(10.49, 10.5)
    assert touches.told_at == 5.0, "the answer to the first one is not two ticks old"
    touches.acknowledged(10.5, 10.6)
    assert touches.told_at == 10.0
    touches.acknowledged(20.0, 20.0)
    assert (touches.told_at, touches.written_at) == (10.5, 20.0)


def test_a_question_counts_as_well_but_proves_nothing_of_what_was_before_it() -> None:
    touches = Touches(KEPT)
    touches.answered(10.0, 10.0)
    touches.answered(11.0, 11.0)
    assert touches.told_at is None
    touches.acknowledged(11.3, 11.3)
    assert touches.told_at == 10.0


def test_of_many_questions_it_keeps_the_few_that_matter() -> None:
    touches = Touches(KEPT)
    for number in range(10_000):
        touches.answered(number * 0.05, number * 0.05 + 0.01)
    assert len(touches._requests) < 12
    touches.acknowledged(500.0, 500.0)
    assert touches.told_at == pytest.approx(9_991 * 0.05)


def test_what_is_taken_up_anew_never_counts_from_an_earlier_time() -> None:
    touches = Touches(KEPT)
    touches.begun(10.0)
    touches.begun(9.0)
    assert touches.told_at == 10.0


def test_skipped_time_moves_all_of_it() -> None:
    touches = Touches(KEPT)
    touches.begun(1.0)
    touches.acknowledged(2.0, 2.0)
    touches.skip(100.0)
    assert (touches.told_at, touches.written_at) == (101.0, 102.0)
    touches.acknowledged(102.5, 102.5)
    assert touches.told_at == 102.0


class Servers:
    """ZooKeeper's leader, and one server after another that keeps to itself what it hears for half a tick or, if the
    leader has stood still, for up to two. True time; requests and answers take theirs, and stay in order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.now = chance, 0.0
        self.leader_heard_at = 0.0
        self.kept: float | None = None
        self.told_next = chance.uniform(0, TICK / 2)

    def until(self, now: float) -> None:
        while self.told_next <= now:
            if self.kept is not None:
                self.leader_heard_at = max(self.leader_heard_at, self.told_next)
            self.kept = None
            self.told_next += self.chance.choice((TICK / 2, TICK / 2, self.chance.uniform(TICK / 2, KEPT)))
        self.now = now

    def cut(self) -> None:
        """The server is lost; the session is taken up at another one."""
        self.kept, self.leader_heard_at = None, self.now


@pytest.mark.parametrize("seed", range(200))
def test_what_counts_is_never_later_than_what_the_leader_has_heard(seed: int) -> None:
    chance = random.Random(seed)
    servers, touches = Servers(chance), Touches(KEPT)
    touches.begun(0.0)
    now, counted = 0.0, 0
    for _ in range(60):
        sent_at = now + chance.choice((0.01, 0.05, 0.39, 0.4, 0.5, 1.0))
        heard_at = sent_at + chance.choice((0.0, 0.01, 0.3))
        now = heard_at + chance.choice((0.0, 0.01, 0.3))
        servers.until(heard_at)
        servers.kept = heard_at
        if chance.random() < 0.5:
            touches.answered(sent_at, now)
        else:
            before = touches.told_at
            touches.acknowledged(sent_at, now)
            counted += touches.told_at != before
        # the server is lost at the very moment at which it has heard of it: the leader knows no more
        assert touches.told_at is not None and touches.told_at <= servers.leader_heard_at
        if chance.random() < 0.1:
            servers.until(now)
            servers.cut()
            touches.begun(now)
    assert counted > 3


@pytest.mark.parametrize("number", range(25))
def test_whenever_a_host_is_cut_off_it_is_frozen_before_its_session_can_end(number: int) -> None:
    """Early enough for nothing to rest on grants yet. Somewhere between two renewals the newest one is lost."""
    outcome = played({1.2 + number * 0.03: "isolate h1"}, until_s=15.0)
    assert outcome.violations == ()
    assert outcome.fenced == {"h1"}
