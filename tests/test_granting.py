"""What the leader's process grants, and how it sees those that rest on grants."""

from __future__ import annotations

from typing import Any

import pytest

from failover.grants.granting import ASKED_S, Granting
from failover.grants.protocol import Ask, Grant
from failover.leader import IDLE_S
from failover.simulate.memory import MemoryStore, World
from failover.store import Change
from tests.stores import CLUSTER, FIRST, TAKEN, TIMING

L = TIMING.grant_s
LEADS_S = TIMING.leads_s(TIMING.leader_session_s) - TIMING.kept_s  # after the newest proof


class Cluster:
    """A leader on beta, and the agent of alpha, which owns web1. The store's clock is ahead of boot time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.world = World(lambda: 5000.0 + self.now)
        MemoryStore(self.world, role="operator").apply(CLUSTER, "")
        self.leader = self.store("leader", "beta")
        self.agent = self.store("agent", "alpha")
        self.granting = Granting(self.leader, TIMING, self.clock)
        self.granting.lead(self.leader.lead())
        self.now += TIMING.kept_s
        self.leader.pulse(self.now)
        assert self.leader.commit(Change(assignments=(FIRST,)))

    def clock(self) -> float:
        return self.now

    def elapse(self, length_s: float) -> None:
        """While the leader hears of the store, and is awake."""
        end = self.now + length_s
        while self.now < end:
            self.now = min(end, self.now + 0.05)
            self.leader.pulse(self.now)
            self.granting.pulse()

    def pulse(self, length_s: float) -> None:
        """While the leader proves that it leads only when it wants to."""
        end = self.now + length_s
        while self.now < end:
            self.now += 0.01
            self.granting.pulse()

    def store(self, role: Any, host: str) -> MemoryStore:
        return MemoryStore(self.world, role=role, host=host, timing=TIMING, clock=self.clock)

    def ask(self, number: int = 1) -> Grant | None:
        assert self.agent.footing is not None
        return self.granting.hear(Ask("alpha", self.agent.footing, number))

    def go_over(self) -> None:
        self.agent.rest_on_grants()
        assert self.agent.rest.granted and self.agent.rest.settled
        self.granting.read("alpha")

    def seen(self, *, reading: bool = True) -> Any:
        """As the leader has it by now; it reads whatever it should."""
        self.leader.look_at_lease("alpha")
        for host in self.granting.unread(self.leader.view()) if reading else ():
            self.granting.read(host)
        return self.granting.seen(self.leader.view()).leases["alpha"]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_record_is_read_before_anything_is_granted_upon_it(cluster: Cluster) -> None:
    assert cluster.ask() is None
    cluster.granting.read("alpha")
    assert cluster.ask() == Grant(1, L)
    cluster.agent.renew(cluster.now)
    assert cluster.ask() is None, "another version"


def test_who_does_not_lead_answers_nothing(cluster: Cluster) -> None:
    cluster.granting.read("alpha")
    other = Granting(cluster.store("leader", "alpha"), TIMING, cluster.clock)
    other.lead(None)
    other.read("alpha")
    assert cluster.agent.footing is not None
    assert other.hear(Ask("alpha", cluster.agent.footing, 1)) is None
    cluster.granting.resign()
    assert cluster.ask() is None


def test_a_leader_grants_nothing_beyond_its_own_lease_and_proves_it_while_it_is_asked(cluster: Cluster) -> None:
    cluster.granting.read("alpha")
    cluster.now += LEADS_S - L / 2
    granted = cluster.ask()
    assert granted is not None and granted.length_s == pytest.approx(L / 2)
    cluster.elapse(2 * TIMING.kept_s)
    granted = cluster.ask()
    assert granted is not None and granted.length_s == L
    cluster.now += ASKED_S + 1
    proved = cluster.leader.leads_until
    cluster.granting.pulse()
    assert cluster.leader.leads_until == proved, "nobody asks"
    granted = cluster.ask()
    assert granted is not None and "own lease is over" in granted.refused
    cluster.pulse(2 * TIMING.kept_s)
    assert not (cluster.ask() or Grant(0, refused="?")).refused


def test_who_rests_on_grants_is_alive_until_they_are_over_whatever_its_session(
    cluster: Cluster,
) -> None:
    cluster.go_over()
    cluster.elapse(L / 2)
    assert cluster.ask() == Grant(1, L)
    cluster.elapse(L - 0.001)
    seen = cluster.seen()
    assert (seen.alive, seen.store_at) == (True, 5000.0 + cluster.now)
    cluster.elapse(0.002)
    seen = cluster.seen()
    assert not seen.alive
    assert seen.store_at == pytest.approx(5000.0 + cluster.now - 0.001), "it may have run until its grant was over"
    assert cluster.leader.view().leases["alpha"].alive, "its session lives"


def test_the_leader_looks_again_when_the_next_grant_is_over(cluster: Cluster) -> None:
    view = cluster.leader.view()
    assert cluster.granting.again_s(view) == float("inf"), "nobody rests on grants"
    cluster.go_over()
    cluster.leader.look_at_lease("alpha")
    assert cluster.granting.again_s(cluster.leader.view()) == pytest.approx(L)


def test_a_new_leader_finds_nobody_over_before_it_has_read_and_waited(cluster: Cluster) -> None:
    cluster.go_over()
    cluster.elapse(10)
    cluster.granting.lead(2)
    assert cluster.seen(reading=False).alive
    cluster.leader.look_at_lease("alpha")
    assert cluster.granting.unread(cluster.leader.view()) == ("alpha",)
    cluster.granting.read("alpha")
    assert cluster.granting.unread(cluster.leader.view()) == ()
    assert cluster.seen().alive
    cluster.elapse(L)
    assert not cluster.seen().alive


def test_nothing_is_decided_while_it_is_unsure_whether_who_is_gone_is_over(cluster: Cluster) -> None:
    cluster.go_over()
    cluster.agent.die()
    cluster.elapse(TIMING.session_s + 1)
    cluster.world.expire()
    cluster.granting.lead(2)
    cluster.leader.look_at_lease("alpha")
    assert cluster.granting.unsure_s(cluster.leader.view()) > 0
    cluster.granting.read("alpha")
    assert cluster.granting.unsure_s(cluster.leader.view()) == pytest.approx(L)
    cluster.elapse(L)
    assert cluster.granting.unsure_s(cluster.leader.view()) == 0.0


def test_who_has_no_session_is_granted_nothing_more(cluster: Cluster) -> None:
    cluster.go_over()
    footing = cluster.agent.footing
    assert footing is not None
    cluster.agent.die()
    cluster.elapse(TIMING.session_s + 1)
    cluster.world.expire()
    cluster.granting.read("alpha")
    granted = cluster.granting.hear(Ask("alpha", footing, 5))
    assert granted is not None and "the session of alpha is over" in granted.refused


def test_what_was_granted_to_a_host_on_its_session_keeps_it_alive_as_well(cluster: Cluster) -> None:
    cluster.granting.read("alpha")
    assert cluster.ask() == Grant(1, L)
    cluster.world.end(cluster.agent.session or 0)
    assert cluster.seen().alive, "it may run by the grant"
    cluster.elapse(L)
    assert not cluster.seen().alive


def test_from_the_sending_of_a_takeover_nothing_is_granted_and_what_it_has_taken_stays_over(cluster: Cluster) -> None:
    cluster.go_over()
    cluster.elapse(L)
    assert not cluster.seen().alive
    view = cluster.granting.seen(cluster.leader.view())
    lease = view.leases["alpha"]
    change = Change(assignments=(TAKEN,), vouched=(("alpha", lease.version),))
    cluster.granting.give_up(change, view)
    refused = cluster.ask()
    assert refused is not None and "given away" in refused.refused
    assert cluster.leader.commit(change)
    assert cluster.granting.unread(cluster.leader.view()) == ("alpha",)
    assert not cluster.seen(reading=False).alive, "its footing is another one by the takeover alone"
    assert not cluster.seen().alive
    cluster.agent.claim_anew()
    assert cluster.agent.told().assignments["web1"].owner == "beta"
    cluster.granting.read("alpha")
    assert cluster.seen().alive
    assert not (cluster.ask(9) or Grant(0, refused="?")).refused, "it goes by what it read after the takeover"


def test_a_leader_that_hears_nothing_of_the_store_gives_hosts_time_to_return(cluster: Cluster) -> None:
    cluster.go_over()
    cluster.now += 2 * L
    assert cluster.seen().alive, "the leader itself may be cut off"
    cluster.elapse(0.1)
    assert cluster.seen().alive, "nobody can have returned yet"
    assert 0 < cluster.granting.again_s(cluster.leader.view()) <= TIMING.session_s / 4
    cluster.elapse(TIMING.session_s / 4)
    assert not cluster.seen().alive


def test_a_new_leader_finds_who_was_lost_over_though_nobody_asks_it_anything(cluster: Cluster) -> None:
    """The others are on their sessions by then, and stay there for a while."""
    cluster.go_over()
    cluster.granting.lead(None)
    cluster.granting.lead(2)
    cluster.seen()
    cluster.pulse(TIMING.session_s / 4 + L)
    assert not cluster.seen().alive
    for _ in range(3):
        cluster.pulse(IDLE_S)
        assert not cluster.seen().alive, "nor does it come to life again"


def test_hosts_that_fall_silent_together_are_over_together(cluster: Cluster) -> None:
    cluster.go_over()
    other = cluster.store("agent", "gamma")
    other.rest_on_grants()
    cluster.granting.read("gamma")
    assert other.footing is not None
    cluster.elapse(0.08)
    assert cluster.granting.hear(Ask("gamma", other.footing, 1)) == Grant(1, L)
    cluster.elapse(L - 0.08)
    cluster.leader.look_at_lease("gamma")
    assert cluster.seen().alive, "gamma is silent as well, but not over"
    cluster.elapse(0.08)
    assert not cluster.seen().alive
    assert not cluster.granting.seen(cluster.leader.view()).leases["gamma"].alive


def test_nobody_is_over_by_a_record_that_was_read_before_its_end(cluster: Cluster) -> None:
    """Leases are not watched: it may have gone back to its session."""
    cluster.go_over()
    cluster.leader.look_at_lease("alpha")
    cluster.elapse(L / 2)
    cluster.agent.claim_anew()
    cluster.elapse(L)
    assert cluster.granting.unread(cluster.leader.view()) == ("alpha",)
    assert cluster.granting.seen(cluster.leader.view()).leases["alpha"].alive
    cluster.granting.read("alpha")
    seen = cluster.granting.seen(cluster.leader.view()).leases["alpha"]
    assert (seen.alive, seen.granted) == (True, False)


def test_who_was_over_and_is_back_on_its_session_is_found_there_before_it_asks_again(cluster: Cluster) -> None:
    cluster.go_over()
    cluster.elapse(L)
    assert not cluster.seen().alive
    cluster.leader.look_at_lease("alpha")
    cluster.agent.claim_anew()
    assert cluster.granting.unread(cluster.leader.view()) == ()
    assert not cluster.granting.seen(cluster.leader.view()).leases["alpha"].alive
    again_s = cluster.granting.again_s(cluster.leader.view())
    assert 0 < again_s <= TIMING.session_s / 4
    cluster.elapse(again_s)
    assert cluster.granting.unread(cluster.leader.view()) == ("alpha",)
    cluster.granting.read("alpha")
    seen = cluster.granting.seen(cluster.leader.view()).leases["alpha"]
    assert (seen.alive, seen.granted) == (True, False)
    assert cluster.granting.again_s(cluster.leader.view()) == float("inf")


# --- who was only just elected ----------------------------------------------------------------------------------------


def stood_by(cluster: Cluster) -> None:
    """Another one led while alpha went over to grants, and this process saw it."""
    cluster.granting.lead(None)
    cluster.go_over()
    cluster.leader.look_at_lease("alpha")
    cluster.granting.stand_by(cluster.leader.view())


def test_what_rested_on_grants_while_it_stood_by_is_waited_for_only_as_it_must(cluster: Cluster) -> None:
    stood_by(cluster)
    cluster.elapse(L)
    cluster.granting.lead(2)
    cluster.granting.read("alpha")
    assert cluster.seen().alive, "it may be returning"
    cluster.elapse(L / 2 - 0.001)
    assert cluster.seen().alive
    assert 0 < cluster.granting.again_s(cluster.leader.view()) <= 0.002
    cluster.elapse(0.002)
    assert not cluster.seen().alive


def test_the_leader_before_may_have_granted_until_the_election(cluster: Cluster) -> None:
    """So late the host may have run, and written."""
    stood_by(cluster)
    cluster.elapse(10)
    elected_at = 5000.0 + cluster.now
    cluster.granting.lead(2)
    cluster.granting.read("alpha")
    cluster.elapse(L)
    seen = cluster.seen()
    assert not seen.alive
    assert seen.store_at == pytest.approx(elected_at)


def test_a_record_that_was_written_since_it_stood_by_counts_from_its_reading(cluster: Cluster) -> None:
    stood_by(cluster)
    cluster.elapse(10)
    cluster.agent.claim_anew()
    cluster.agent.rest_on_grants()
    cluster.granting.lead(2)
    cluster.granting.read("alpha")
    cluster.elapse(L - 0.001)
    assert cluster.seen().alive
    cluster.elapse(0.002)
    assert not cluster.seen().alive


def test_who_has_followed_the_store_for_a_moment_only_gives_hosts_the_time_that_it_had_itself(cluster: Cluster) -> None:
    stood_by(cluster)
    cluster.elapse(10)
    cluster.granting.lead(2, followed_s=0.05)
    cluster.granting.read("alpha")
    cluster.elapse(TIMING.session_s / 4 - 0.06)
    assert cluster.seen().alive
    cluster.elapse(0.02)
    assert not cluster.seen().alive


def test_after_a_long_absence_of_the_store_hosts_have_a_whole_session_to_find_it_again(cluster: Cluster) -> None:
    stood_by(cluster)
    cluster.elapse(60)
    cluster.granting.lead(2, followed_s=0.05, away_s=60)
    cluster.granting.read("alpha")
    cluster.elapse(TIMING.session_s - 0.06)
    assert cluster.seen().alive
    cluster.elapse(0.02)
    assert not cluster.seen().alive


def test_who_was_elected_anew_grants_nothing_by_what_it_knew_before(cluster: Cluster) -> None:
    """The store has it as a leader of another epoch already, and it has not taken a turn since."""
    cluster.granting.read("alpha")
    assert cluster.ask(1) == Grant(1, L)
    cluster.granting.lead((cluster.leader.epoch or 0) + 1)
    cluster.granting.read("alpha")
    assert cluster.ask(2) is None


def test_what_it_has_granted_before_it_was_elected_again_must_end_as_well(cluster: Cluster) -> None:
    """Nobody need have led in between, so the lease in which it has done so may not be over."""
    stood_by(cluster)
    cluster.elapse(10)
    epoch = cluster.leader.epoch
    cluster.granting.lead(epoch)
    cluster.granting.read("alpha")
    assert cluster.ask() == Grant(1, L)
    cluster.granting.lead(None)
    cluster.granting.lead(epoch)
    cluster.granting.read("alpha")
    cluster.elapse(L - 0.001)
    assert cluster.seen().alive
    cluster.elapse(0.002)
    assert not cluster.seen().alive


def test_it_proves_that_it_leads_while_a_record_says_granted_though_nobody_asks(cluster: Cluster) -> None:
    """Else it would take its own silence for that of the store."""
    cluster.go_over()
    cluster.granting.lead(2)
    cluster.granting.read("alpha")
    cluster.seen()
    for _ in range(30):
        cluster.now += 0.1
        cluster.granting.pulse()
    assert (cluster.leader.leads_until or 0.0) > cluster.now
    assert not cluster.seen().alive


# --- a lease that ends, a leader that leaves --------------------------------------------------------------------------


def test_hosts_are_sent_back_to_their_sessions_before_the_leaders_own_lease_is_over(cluster: Cluster) -> None:
    cluster.granting.read("alpha")
    cluster.now += LEADS_S - L / 3 - 0.01
    granted = cluster.ask()
    assert granted is not None and granted.length_s == pytest.approx(L / 3 + 0.01)
    cluster.now += 0.02
    refused = cluster.ask()
    assert refused is not None and "own lease is over, or almost" in refused.refused


def test_who_leaves_waits_until_hosts_have_had_the_time_to_return(cluster: Cluster) -> None:
    cluster.granting.read("alpha")
    assert cluster.ask() == Grant(1, L)
    cluster.elapse(0.1)
    assert cluster.granting.resign() == pytest.approx(L - 0.1 + L / 2)
    cluster.now += 0.1
    assert cluster.granting.resign() == pytest.approx(L - 0.2 + L / 2), "also one that was about to hand over"
    cluster.now += 2 * L
    assert cluster.granting.resign() == 0.0


def test_who_has_granted_nothing_leaves_at_once(cluster: Cluster) -> None:
    assert cluster.granting.resign() == 0.0
