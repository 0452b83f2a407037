"""When an agent goes over to grants, and when back to its session."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from agents.lease import NOTHING, Granted
from agents.resting import CALM_S, CALMEST_S, Resting
from failover.simulate.memory import MemoryStore, World
from failover.store import Rest
from failover.timing import PROFILES

TIMING = PROFILES["normal"]
L = TIMING.grant_s
HELD_S = TIMING.granted_s(L)


class Host:
    """Its agent has claimed its lease at 100 s, and the leader answers when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store = MemoryStore(
            World(lambda: self.now), role="agent", host="alpha", timing=TIMING, clock=lambda: self.now
        )
        self.resting = Resting(self.store, TIMING)
        self.wanted = True

    def turn(self, granted: Granted = NOTHING, *, calm: bool = True, held: bool = True) -> bool:
        """As the agent does it; whether it went over."""
        goes = self.resting.turn(granted, wanted=self.wanted, calm=calm, now=self.now)
        if goes:
            self.resting.go_over(self.now, held=held)
        return goes

    def grant(self, *, troubled: bool = False) -> Granted:
        """Upon what the guard asks upon."""
        return Granted(self.resting.footing(), self.now + HELD_S, troubled)

    def try_on(self) -> None:
        self.turn()
        self.now += CALM_S
        self.turn()
        assert self.resting.tries

    def go_over(self) -> None:
        self.try_on()
        assert self.turn(self.grant())
        assert self.store.rest == Rest(granted=True)

    def session_end(self) -> float:
        renewed_at = self.store.renewed_at
        return float("-inf") if renewed_at is None else renewed_at + TIMING.lease_s


@pytest.fixture
def host() -> Host:
    return Host()


def test_it_stays_on_its_session_for_a_while_and_then_has_the_leader_asked(host: Host) -> None:
    assert not host.turn()
    assert host.resting.footing() is None, "nothing is asked yet"
    assert host.resting.look_at() == host.now + CALM_S
    host.now += CALM_S
    assert not host.turn()
    assert host.resting.footing() == host.store.footing


@pytest.mark.parametrize("what", ["not wanted", "not calm"])
def test_it_does_not_try_when_it_is(host: Host, what: str) -> None:
    host.wanted = what != "not wanted"
    for _ in range(5):
        host.turn(calm=what != "not calm")
        host.now += CALM_S
    assert not host.resting.tries


def test_it_goes_over_only_with_a_grant_in_hand_upon_what_it_goes_by(host: Host) -> None:
    host.try_on()
    footing = host.resting.footing()
    assert not host.turn(Granted(footing, host.now - 1)), "it is over"
    assert not host.turn(Granted(footing, host.now + HELD_S, troubled=True))
    host.store.renew(host.now)
    assert not host.turn(Granted(footing, host.now + HELD_S)), "another footing"
    assert host.turn(host.grant())
    assert host.store.rest == Rest(granted=True)


def test_the_right_is_cut_before_it_is_sent_that_the_lease_rests_on_grants(host: Host) -> None:
    host.try_on()
    session, granted = host.session_end(), host.grant()
    assert host.resting.until(session, granted) == session
    assert host.resting.turn(granted, wanted=True, calm=True, now=host.now)
    assert host.resting.until(session, NOTHING) == host.now + HELD_S < session
    assert host.store.rest == Rest(), "not sent yet"


def test_a_guard_that_does_not_take_the_cut_keeps_it_on_its_session(host: Host) -> None:
    host.try_on()
    host.turn(host.grant(), held=False)
    assert host.store.rest == Rest()
    assert host.resting.until(host.session_end(), NOTHING) == host.session_end()


def test_on_grants_the_right_is_what_was_granted_and_no_session(host: Host) -> None:
    host.go_over()
    host.now += 1
    assert host.store.renewed_at is None
    assert host.resting.until(host.session_end(), host.grant()) == host.now + HELD_S
    assert not host.turn(host.grant())


def test_in_trouble_it_claims_its_lease_anew_and_keeps_what_was_granted(host: Host) -> None:
    host.go_over()
    until = host.resting.until(host.session_end(), host.grant())
    host.now += L / 2
    host.turn(Granted(host.resting.footing(), until, troubled=True))
    assert host.store.rest == Rest()
    assert host.resting.until(float("-inf"), NOTHING) == until, "while it does not know yet what it was told"
    host.turn()
    assert host.resting.until(host.session_end(), NOTHING) == host.session_end()


def test_it_says_why_it_is_back_on_its_session_until_it_goes_over_again(host: Host) -> None:
    host.go_over()
    assert host.resting.because == ""
    host.turn(replace(host.grant(troubled=True), because="no answer in time from the leader"))
    assert host.resting.because == "no answer in time from the leader"
    host.turn()
    host.now += CALMEST_S
    host.turn()
    assert host.resting.tries and host.resting.because == "no answer in time from the leader"
    host.turn(host.grant())
    assert host.resting.because == ""


def test_where_no_grants_are_wanted_there_is_nothing_to_say(host: Host) -> None:
    host.go_over()
    host.wanted = False
    host.turn(host.grant())
    assert (host.store.rest, host.resting.because) == (Rest(), "")


def test_trouble_upon_an_older_footing_is_none(host: Host) -> None:
    host.try_on()
    older = host.resting.footing()
    host.turn(host.grant())
    host.turn(Granted(older, host.now + HELD_S, troubled=True))
    assert host.store.rest == Rest(granted=True)


def test_when_grants_are_not_wanted_any_more_it_goes_back(host: Host) -> None:
    host.go_over()
    host.wanted = False
    host.turn(host.grant())
    assert host.store.rest == Rest()


def test_where_nobody_grants_it_tries_ever_more_rarely(host: Host) -> None:
    tries: list[float] = []
    for _ in range(2000):
        tried = host.resting.tries
        host.turn()
        tries += [host.now] if host.resting.tries and not tried else []
        host.now += 0.1
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(pauses) >= 4
    assert all(later > earlier for earlier, later in pairwise(pauses[:4]))
    assert not host.resting.granted


def test_it_goes_over_for_no_longer_than_it_was_granted_whatever_its_own_terms_are(host: Host) -> None:
    """The leader's may be others, and it knows of no more."""
    host.try_on()
    granted = replace(host.grant(), until=host.now + 0.8 * HELD_S)
    assert host.turn(granted)
    assert host.resting.until(host.session_end(), NOTHING) == granted.until
