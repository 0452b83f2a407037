"""What failover/store.py promises of leases, kept by the store in memory and by a real ZooKeeper alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failover.errors import Unreachable
from failover.grants.protocol import Footing
from failover.model import Assignment, Report
from failover.store import Change, Rest
from tests.stores import FIRST, TAKEN, TIMING, Stores, footing_of, leading, lease_of

# --- leases -----------------------------------------------------------------------------------------------------------


class Clock:
    """Boot time, as a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def renewed(stores: Stores, agent: Any, clock: Clock, at: float) -> None:
    """Answered in no time."""
    before, clock.now = agent.footing, at
    agent.renew(at)
    stores.until(lambda: agent.footing not in (before, None))


def test_every_renewal_has_a_version_and_counts_when_one_that_came_two_ticks_later_is_acknowledged(
    stores: Stores,
) -> None:
    operator, clock = stores.opened[0], Clock()
    agent = stores.fresh("agent", "alpha", clock=clock)
    before = operator.view().leases["alpha"].version
    assert agent.renewed_at == 100.0, "the attempt that began the session"
    for number in range(1, 11):
        agent.renew(clock.now + number / 1000)
    stores.until(lambda: agent.footing.lease == before + 10)
    assert operator.view().leases["alpha"].version == before + 10
    assert operator.view().leases["alpha"].alive
    assert agent.renewed_at == 100.0, "ZooKeeper's leader need not have heard of them"
    renewed(stores, agent, clock, 100.5)
    assert agent.renewed_at == pytest.approx(100.01)
    renewed(stores, agent, clock, 100.6)
    assert agent.renewed_at == pytest.approx(100.01)
    renewed(stores, agent, clock, 101.1)
    assert agent.renewed_at == pytest.approx(100.6)
    stores.cut(agent)
    agent.renew(105.0)
    assert agent.renewed_at == pytest.approx(100.6)


def reported(stores: Stores) -> Report:
    return stores.opened[0].view().reports.get("alpha", Report("alpha"))  # type: ignore[no-any-return]


def test_what_was_asked_while_it_rested_on_grants_counts_when_the_lease_is_claimed_anew(stores: Stores) -> None:
    clock = Clock()
    agent = stores.fresh("agent", "alpha", clock=clock)
    agent.rest_on_grants()
    stores.until(lambda: agent.rest == Rest(granted=True))
    clock.now = 200.0
    agent.renew(200.0)
    for version in ("a later write", "one that is sent after its answer"):
        agent.report(Report("alpha", version=version))
        stores.until(lambda version=version: reported(stores).version == version)
    clock.now = 201.0
    agent.claim_anew()
    stores.until(lambda: agent.fresh and agent.rest == Rest())
    assert agent.renewed_at == pytest.approx(200.0)


def test_what_a_host_goes_by_is_the_version_that_it_wrote_last_and_nothing_while_that_is_in_doubt(
    stores: Stores,
) -> None:
    agent = stores.fresh("agent", "alpha")
    first = agent.footing
    assert first == footing_of(stores, "alpha")
    agent.renew(agent.renewed_at + 0.001)
    stores.until(lambda: agent.footing != first)
    assert agent.footing == Footing(first.lease + 1, first.taken) == footing_of(stores, "alpha")
    agent.claim_anew()
    assert agent.footing in (None, Footing(first.lease + 2, first.taken)), "at once, or in a moment"
    stores.until(lambda: agent.fresh)
    assert agent.footing == Footing(first.lease + 2, first.taken) == footing_of(stores, "alpha")
    stores.cut(agent)
    assert agent.footing is None


def test_a_lease_that_rests_on_grants_is_not_renewed_and_proves_no_session(stores: Stores) -> None:
    agent = stores.fresh("agent", "alpha")
    before = agent.footing
    assert agent.rest == Rest()
    agent.rest_on_grants()
    stores.until(lambda: agent.rest == Rest(granted=True))
    assert agent.renewed_at is None
    assert agent.footing == Footing(before.lease + 1, before.taken)
    resting = lease_of(stores, "alpha")
    assert (resting.granted, resting.alive) == (True, True)
    agent.renew(1e9)
    agent.rest_on_grants()
    agent.report(Report("alpha", version="a later write"))
    stores.until(lambda: "alpha" in stores.opened[0].view().reports)
    assert lease_of(stores, "alpha") == resting
    agent.claim_anew()
    stores.until(lambda: agent.fresh)
    assert (agent.rest, lease_of(stores, "alpha").granted) == (Rest(), False)
    assert agent.renewed_at is not None


def test_a_connection_that_is_lost_changes_nothing_in_what_the_lease_rests_on_before_the_next_claim(
    stores: Stores,
) -> None:
    agent = stores.fresh("agent", "alpha")
    agent.rest_on_grants()
    stores.cut(agent)
    assert agent.rest.granted, "settled or not: the answer may be lost"
    agent.rest_on_grants()
    stores.mend(agent)
    stores.until(lambda: agent.fresh)
    assert (agent.rest, lease_of(stores, "alpha").granted) == (Rest(), False)


def test_whose_grants_are_over_is_taken_over_while_its_session_lives_unless_it_has_claimed_anew(stores: Stores) -> None:
    leader, agent = leading(stores), stores.fresh("agent", "alpha")
    assert leader.commit(Change(assignments=(FIRST,)))
    agent.rest_on_grants()
    stores.until(lambda: agent.rest == Rest(granted=True))
    version = leader.look_at_lease("alpha").version
    agent.claim_anew()
    stores.until(lambda: agent.fresh)
    assert not leader.commit(Change(assignments=(TAKEN,), vouched=(("alpha", version),)))
    agent.rest_on_grants()
    stores.until(lambda: agent.rest == Rest(granted=True))
    stores.until(lambda: leader.fresh)
    before, seen = agent.footing, leader.look_at_lease("alpha")
    assert before == Footing(seen.version, seen.taken)
    assert leader.commit(Change(assignments=(TAKEN,), vouched=(("alpha", seen.version),)))
    taken = leader.view().leases["alpha"]
    assert (taken.version, taken.taken) == (seen.version, seen.taken + 1), "what it goes by counts no more"
    assert agent.footing == before, "it has read nothing yet"
    agent.claim_anew()
    stores.until(lambda: agent.fresh)
    assert agent.told().assignments["web1"].owner == "beta"
    assert agent.footing == Footing(seen.version + 1, seen.taken + 1)


def test_several_takeovers_from_one_host_may_rest_on_one_look(stores: Stores) -> None:
    leader, agent = leading(stores), stores.fresh("agent", "alpha")
    second = Assignment("web2", "alpha", 1)
    assert leader.commit(Change(assignments=(FIRST, second)))
    version = leader.look_at_lease("alpha").version
    for taken in (TAKEN, replace(second, owner="beta", epoch=2)):
        assert leader.commit(Change(assignments=(taken,), vouched=(("alpha", version),)))
    assert leader.look_at_lease("alpha").taken == agent.footing.taken + 2


def test_a_lease_that_is_looked_at_is_seen_as_it_is(stores: Stores) -> None:
    leader, agent = leading(stores), stores.fresh("agent", "alpha")
    before, joined_at = agent.footing, agent.renewed_at
    agent.renew(joined_at + 0.001)
    agent.renew(joined_at + 0.002)
    stores.until(lambda: agent.footing == Footing(before.lease + 2, before.taken))
    assert leader.look_at_lease("alpha").version == agent.footing.lease == leader.view().leases["alpha"].version
    assert leader.look_at_lease("gamma") is None


# --- the leader's own lease -------------------------------------------------------------------------------------------


def test_a_leader_leads_for_a_lease_from_the_newest_proof_that_counts(stores: Stores) -> None:
    leads_s, clock = TIMING.leads_s(TIMING.leader_session_s), Clock()
    leader = stores.fresh("leader", "beta", clock=clock)
    assert (leader.leads_until, leader.proved_at) == (None, None)
    stores.until(leader.lead)
    assert (leader.leads_until, leader.proved_at) == (None, 100.0)
    clock.now = 100.5
    leader.pulse(100.5)
    stores.until(lambda: leader.proved_at == 100.5)
    assert leader.leads_until == pytest.approx(100.0 + leads_s)
    leader.pulse(99.0)  # an answer that comes late takes nothing away
    clock.now = 101.0
    leader.pulse(101.0)
    stores.until(lambda: leader.proved_at == 101.0)
    assert leader.leads_until == pytest.approx(100.5 + leads_s)


def test_a_leader_that_is_cut_off_or_deposed_proves_nothing_more(stores: Stores) -> None:
    leader = leading(stores)
    stores.depose(leader)
    leader.pulse(1e9)
    stores.until(lambda: leader.lead() == 2)
    assert leader.proved_at < 1e8, "only what was sent since it was elected again"
    assert leader.leads_until is None
    other = stores.fresh("leader", "alpha")
    other.pulse(1e9)
    assert (other.leads_until, other.proved_at) == (None, None), "it does not lead"


def test_a_host_that_is_cut_off_is_seen_to_be_gone(stores: Stores) -> None:
    agent, leader = stores.fresh("agent", "alpha"), leading(stores)
    stores.until(lambda: leader.view().leases["alpha"].alive)
    before = agent.footing.lease
    for number in range(1, 6):
        agent.renew(agent.renewed_at + number / 1000)
    stores.until(lambda: agent.footing.lease == before + 5)
    stores.cut(agent)
    assert not agent.fresh
    stores.until(lambda: not leader.view().leases["alpha"].alive)
    known = leader.view().leases["alpha"]
    assert known.version == stores.opened[0].view().leases["alpha"].version
    assert known.store_at <= leader.view().now


def test_an_agent_that_closes_leaves_its_session_alone(stores: Stores) -> None:
    agent = stores.fresh("agent", "alpha")
    agent.close()
    assert stores.opened[0].view().leases["alpha"].alive
    stores.gone("alpha")


def test_an_agent_that_pauses_lets_its_session_end_and_comes_back_in_another(stores: Stores) -> None:
    agent = stores.fresh("agent", "alpha")
    agent.pause()
    stores.gone("alpha")
    assert not agent.fresh
    agent.resume()
    stores.until(lambda: agent.fresh)
    assert stores.opened[0].view().leases["alpha"].alive


def test_an_agent_that_pauses_shortly_keeps_its_session(stores: Stores) -> None:
    agent = stores.fresh("agent", "alpha")
    renewed_at = agent.renewed_at
    agent.pause()
    stores.until(lambda: not agent.connected)
    agent.resume()
    stores.until(lambda: agent.fresh)
    assert renewed_at is not None and agent.renewed_at >= renewed_at


def test_a_reconnection_in_the_same_session_is_fresh_again(stores: Stores) -> None:
    agent, leader = stores.fresh("agent", "alpha"), leading(stores)
    stores.cut(agent)
    assert leader.commit(Change(assignments=(FIRST,)))
    stores.mend(agent)
    stores.until(lambda: agent.fresh)
    assert agent.told().assignments == {"web1": FIRST}


# --- the race of a host that comes back against its takeover ----------------------------------------------------------


def test_a_takeover_before_the_return_is_seen_by_who_returns(stores: Stores) -> None:
    agent, leader = stores.fresh("agent", "alpha"), leading(stores)
    assert leader.commit(Change(assignments=(FIRST,)))
    stores.cut(agent)
    stores.gone("alpha")
    stores.until(lambda: not leader.view().leases["alpha"].alive)
    version = leader.view().leases["alpha"].version
    assert leader.commit(Change(assignments=(TAKEN,), leases=(("alpha", version),)))
    stores.mend(agent)
    stores.until(lambda: agent.fresh)
    assert agent.told().assignments == {"web1": TAKEN}, "fresh means that the takeover has been seen"


def test_a_takeover_in_the_midst_of_the_return_is_seen_by_who_returns(stores: Stores) -> None:
    leader = leading(stores)
    told: list[Any] = []
    armed: list[Change] = []

    def clock() -> float:
        """The agent looks at it just before it writes its lease: the last moment for a takeover."""
        if armed:
            assert leader.commit(armed.pop())
        return 1.0

    def changed() -> None:
        if stores.opened[-1].fresh:
            told.append(stores.opened[-1].told().assignments)

    agent = stores.fresh("agent", "alpha", clock=clock, changed=changed)
    assert leader.commit(Change(assignments=(FIRST,)))
    stores.cut(agent)
    stores.gone("alpha")
    stores.until(lambda: not leader.view().leases["alpha"].alive)
    armed.append(Change(assignments=(TAKEN,), leases=(("alpha", leader.view().leases["alpha"].version),)))
    told.clear()
    stores.mend(agent)
    stores.until(lambda: told)
    assert not armed
    assert told[0] == {"web1": TAKEN}, "at the first moment of freshness"


def test_a_takeover_after_the_return_fails(stores: Stores) -> None:
    agent, leader = stores.fresh("agent", "alpha"), leading(stores)
    assert leader.commit(Change(assignments=(FIRST,)))
    stores.cut(agent)
    stores.gone("alpha")
    stores.until(lambda: not leader.view().leases["alpha"].alive)
    version = leader.view().leases["alpha"].version
    stores.mend(agent)
    stores.until(lambda: agent.fresh)
    assert agent.told().assignments == {"web1": FIRST}
    assert not leader.commit(Change(assignments=(TAKEN,), leases=(("alpha", version),)))
    stores.until(lambda: leader.fresh and leader.view().leases["alpha"].alive)
    assert leader.view().leases["alpha"].version > version


def test_a_takeover_fails_also_if_who_returned_is_gone_again(stores: Stores) -> None:
    agent, leader = stores.fresh("agent", "alpha"), leading(stores)
    assert leader.commit(Change(assignments=(FIRST,)))
    stores.cut(agent)
    stores.gone("alpha")
    version = stores.opened[0].view().leases["alpha"].version
    stores.mend(agent)
    stores.until(lambda: agent.fresh)
    stores.cut(agent)
    stores.gone("alpha")
    assert not leader.commit(Change(assignments=(TAKEN,), leases=(("alpha", version),)))
    stores.until(lambda: leader.fresh)
    version = leader.view().leases["alpha"].version
    assert leader.commit(Change(assignments=(TAKEN,), leases=(("alpha", version),)))


# --- what a leader hears ----------------------------------------------------------------------------------------------


def test_a_leader_that_asks_hears_of_every_renewal_before(stores: Stores) -> None:
    leader, agent = leading(stores), stores.fresh("agent", "alpha")
    stores.until(lambda: "alpha" in leader.view().leases)
    for number in range(1, 6):
        agent.renew(agent.renewed_at + number / 1000)
    written = agent.renewed_at
    stores.until(lambda: lease_of(stores, "alpha").version >= 5)
    assert written is not None
    leader.hear()
    heard, there = leader.view().leases["alpha"], lease_of(stores, "alpha")
    assert (heard.version, heard.store_at, heard.alive) == (there.version, there.store_at, True)


def test_who_is_cut_off_hears_nothing(stores: Stores) -> None:
    leader = leading(stores)
    stores.cut(leader)
    with pytest.raises(Unreachable):
        leader.hear()


def test_a_view_says_since_when_the_store_is_followed_without_a_break(stores: Stores) -> None:
    leader = leading(stores)
    first = leader.view().watched_at
    assert 0 < first <= leader.view().now
    stores.cut(leader)
    stores.mend(leader)
    stores.until(lambda: leader.fresh)
    assert first <= leader.view().watched_at <= leader.view().now
    stores.until(lambda: leader.view().now > first + 0.5)
    stores.cut(leader)
    stores.mend(leader)
    stores.until(lambda: leader.fresh)
    assert leader.view().watched_at > first + 0.4


def test_what_was_proved_by_a_power_cut_fails_once_the_host_has_renewed(stores: Stores) -> None:
    """Claim S16: the session may live, but the lease must be what it was before the cut."""
    leader, agent = leading(stores), stores.fresh("agent", "alpha")
    assert leader.commit(Change(assignments=(FIRST,)))
    version = lease_of(stores, "alpha").version
    agent.renew(agent.renewed_at + 0.001)
    stores.until(lambda: lease_of(stores, "alpha").version > version)
    assert not leader.commit(Change(assignments=(TAKEN,), vouched=(("alpha", version),)))
    stores.until(lambda: leader.fresh)
    assert leader.commit(Change(assignments=(TAKEN,), vouched=(("alpha", version + 1),)))


def test_a_leader_knows_the_lease_of_who_has_come_back(stores: Stores) -> None:
    """Nobody watches it: what was said of the lease before (that its host is off) must not be said of it any more."""
    leader, agent, other = leading(stores), stores.fresh("agent", "alpha"), stores.fresh("agent", "beta")
    stores.until(lambda: {"alpha", "beta"} <= leader.view().leases.keys())
    stores.cut(agent)
    stores.gone("alpha")
    stores.until(lambda: not leader.view().leases["alpha"].alive)
    before = leader.view().leases["alpha"].version
    stores.mend(agent)
    stores.until(lambda: agent.fresh and other.fresh)
    stores.until(lambda: leader.view().leases["alpha"].version > before)
    assert leader.view().leases["alpha"].alive


def test_a_leader_knows_the_lease_of_who_was_booted_within_its_session(stores: Stores) -> None:
    leader, agent, _ = leading(stores), stores.fresh("agent", "alpha"), stores.fresh("agent", "beta")
    stores.until(lambda: {"alpha", "beta"} <= leader.view().leases.keys())
    leader.hear()
    before = leader.view().leases["alpha"].version
    stores.cut(agent)
    booted = stores.open("agent", "alpha")
    stores.until(lambda: booted.fresh)
    stores.until(lambda: leader.view().leases["alpha"].version > before)
    assert leader.view().leases["alpha"].alive
