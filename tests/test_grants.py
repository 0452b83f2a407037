"""Grants: never a right in force when the leader finds it over. Tables of the rules, and many random schedules of loss,
delay, repetition, drift, races in the store and changes of the leader."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from failover.errors import Unsafe
from failover.grants import Ask, Grant, Grantee, Grantor
from failover.model import Lease
from failover.timing import PROFILES, Timing

TIMING = PROFILES["fast"]
LEASE = Lease("alpha", True, 7, 0.0, claim=5)
FOREVER = 1e9

# --- the rules --------------------------------------------------------------------------------------------------------

REFUSED = {
    "another leader is asked": (Ask("alpha", 2, 5, 1), LEASE, FOREVER, "this leader has epoch 3"),
    "it has claimed its lease anew": (Ask("alpha", 3, 4, 1), LEASE, FOREVER, "has claimed its lease anew"),
    "its session is over": (
        Ask("alpha", 3, 5, 1),
        replace(LEASE, alive=False),
        FOREVER,
        "the session of alpha is over",
    ),
    "it has never claimed a lease": (Ask("alpha", 3, 5, 1), None, FOREVER, "the session of alpha is over"),
    "it rests on an older leader": (Ask("alpha", 3, 5, 1), replace(LEASE, granted=2), FOREVER, "leader of epoch 2"),
    "it rests on a newer leader": (Ask("alpha", 3, 5, 1), replace(LEASE, granted=4), FOREVER, "leader of epoch 4"),
    "the leader's own lease is over": (Ask("alpha", 3, 5, 1), LEASE, 10.0, "own lease is over"),
}


@pytest.mark.parametrize(("ask", "lease", "leads_until", "why"), REFUSED.values(), ids=REFUSED)
def test_the_leader_refuses_when(ask: Ask, lease: Lease | None, leads_until: float, why: str) -> None:
    said = Grantor(3, TIMING).answer(ask, lease, leads_until, 10.0)
    assert why in said.refused and said.length_s == 0


def test_a_grant_is_no_longer_than_the_leaders_own_lease() -> None:
    assert Grantor(3, TIMING).answer(Ask("alpha", 3, 5, 1), LEASE, 10.15, 10.0).length_s == pytest.approx(0.15)
    assert Grantor(3, TIMING).answer(Ask("alpha", 3, 5, 1), LEASE, FOREVER, 10.0).length_s == TIMING.grant_s


OVER = {
    "granted by this leader, and the end has come": (3, 10.2, True),
    "... not a moment before": (3, 10.199, False),
    "granted by an older leader": (2, 10.0, True),
    "granted by a newer leader": (4, 99.0, False),
    "it rests on its session": (0, 99.0, False),
}


@pytest.mark.parametrize(("granted", "now", "over"), OVER.values(), ids=OVER)
def test_a_right_is_over_when(granted: int, now: float, over: bool) -> None:
    grantor = Grantor(3, TIMING)
    grantor.answer(Ask("alpha", 3, 5, 1), LEASE, FOREVER, 10.0)
    assert grantor.over(replace(LEASE, granted=granted), now) is over


def test_what_was_found_to_be_over_is_granted_again_only_to_a_lease_that_was_claimed_anew() -> None:
    grantor, resting = Grantor(3, TIMING), replace(LEASE, granted=3)
    assert not grantor.answer(Ask("alpha", 3, 5, 1), resting, FOREVER, 10.0).refused
    assert grantor.over(resting, 11.0)
    assert "claim its lease anew" in grantor.answer(Ask("alpha", 3, 5, 2), resting, FOREVER, 11.0).refused
    assert grantor.answer(Ask("alpha", 3, 5, 3), replace(LEASE, version=8), FOREVER, 11.0).refused, "only renewed"
    assert not grantor.answer(Ask("alpha", 3, 9, 4), replace(LEASE, version=9, claim=9), FOREVER, 11.0).refused


def test_the_right_counts_from_the_sending_of_a_question_and_every_answer_once() -> None:
    grantee = Grantee("alpha", 3, 5, TIMING, 100)
    first, second = grantee.ask(10.0), grantee.ask(10.1)
    grantee.heard(Grant(3, first.number, 0.2))
    assert grantee.until == pytest.approx(10.0 + TIMING.granted_s(0.2))
    grantee.heard(Grant(3, first.number, 60.0))  # twice
    grantee.heard(Grant(2, second.number, 60.0))  # of another leader
    grantee.heard(Grant(3, 7, 60.0))  # never asked
    assert grantee.until == pytest.approx(10.0 + TIMING.granted_s(0.2))


def test_a_refusal_ends_no_right_early_and_is_known() -> None:
    grantee = Grantee("alpha", 3, 5, TIMING)
    grantee.heard(Grant(3, grantee.ask(10.0).number, 0.2))
    grantee.heard(Grant(3, grantee.ask(10.1).number, refused="why not"))
    assert (grantee.until, grantee.refused) == (10.0 + TIMING.granted_s(0.2), "why not")
    grantee.heard(Grant(3, grantee.ask(10.2).number, 0.2))
    assert grantee.refused == ""


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_the_holders_end_comes_first_whatever_the_clocks_do(timing: Timing) -> None:
    slow = timing.granted_s(timing.grant_s) / (1 - timing.drift)  # of the holder's seconds, on the leader's clock
    assert slow + timing.grant_freeze_s < timing.grant_s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_lost_questions_do_not_end_a_right(timing: Timing) -> None:
    assert timing.granted_s(timing.grant_s) > 3 * timing.ask_grant_s


def test_a_grant_that_leaves_no_right_is_refused_in_words() -> None:
    with pytest.raises(
        Unsafe, match=r"a grant of 0\.05 s leaves a right of only 0\.0. s: raise it to at least 0\.062 s"
    ):
        Timing(session_s=2.0, grant_s=0.05)
    assert Timing(session_s=2.0, grant_s=0.062).grant_s


# --- random schedules -------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """The lease record in the store, and who owns the one vserver. Every call is one transaction, in order."""

    version: int = 1
    granted: int = 0
    claim: int = 1
    taken_at: float | None = None  # somebody else owns it since


@dataclass
class Host:
    rate: float
    claimed: int = 0  # the version with which it has claimed its lease; 0: it has not yet, or is doing so
    claims: int = 0  # so many were begun
    asks_under: int = 1  # the last claim that it knows to be written
    rests_on: int = 0  # the leader's epoch; 0: nothing, for here a session gives no right
    grantee: Grantee | None = None
    owns: bool = True  # as it was last told
    entering: bool = False

    def right(self, now: float) -> bool:
        return bool(self.rests_on and self.owns and self.grantee and now * self.rate < self.grantee.until)


@dataclass
class Leader:
    epoch: int
    rate: float
    grantor: Grantor
    seen: Record  # its mirror, which may be old
    leads_until: float  # on its own clock
    deposed_at: float = float("inf")  # true time; ZooKeeper knows, the leader may not


@dataclass(order=True)
class Due:
    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


class World:
    """One host, one leader after another, one store, datagrams between them. Time here is true time."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now, self.queue, self.order = 0.0, list[Due](), itertools.count()
        self.record, self.breach = Record(), ""
        self.host = Host(self.rate())
        self.loss = self.chance.choice((0.0, 0.1, 0.5))
        self.counted = {"granted": 0, "taken": 0, "escaped": 0, "entered": 0, "elected": 0}
        self.leader = self.elected(1)
        self.step_host()
        self.step_leader(self.leader)

    def rate(self) -> float:
        return self.chance.uniform(1 - TIMING.drift / 2, 1 + TIMING.drift / 2)

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.queue, Due(self.now + delay_s, next(self.order), act))

    def send(self, act: Callable[[], None]) -> None:
        """A datagram: late, twice or never."""
        for _ in range(self.chance.choice((1, 1, 1, 2))):
            if self.chance.random() >= self.loss:
                self.after(self.chance.choice((0.0, 0.001, 0.02, 0.3)), act)

    def run(self, until: float) -> None:
        while self.queue and self.now < until and not self.breach:
            due = heapq.heappop(self.queue)
            self.now = due.at
            due.act()
            if self.record.taken_at is not None and self.host.right(self.now):
                self.breach = f"at {self.now:.3f} the host may run what was taken at {self.record.taken_at:.3f}"

    # --- leaders ------------------------------------------------------------------------------------------------------

    def elected(self, epoch: int) -> Leader:
        rate = self.rate()
        self.counted["elected"] += 1
        return Leader(epoch, rate, Grantor(epoch, TIMING), replace(self.record), self.now * rate + TIMING.lease_s)

    def step_leader(self, leader: Leader) -> None:
        """It proves its leadership now and then, looks into its mirror, and takes what it may. It may be deposed."""
        if self.now >= leader.deposed_at + 2:
            return
        if self.now < leader.deposed_at and self.chance.random() < 0.3:
            leader.leads_until = max(leader.leads_until, self.now * leader.rate + TIMING.lease_s)
        if self.chance.random() < 0.6:
            leader.seen = replace(self.record)
        if self.chance.random() < 0.03 and leader.deposed_at == float("inf"):
            # its session ends when the last write that proves it is a session old; then another is elected
            leader.deposed_at = self.now
            self.after(TIMING.session_s + TIMING.tick_s, self.elect)
        self.take(leader)
        self.after(self.chance.choice((0.0, 0.01, 0.05)), lambda: self.step_leader(leader))

    def elect(self) -> None:
        self.leader = self.elected(self.leader.epoch + 1)
        self.step_leader(self.leader)

    def take(self, leader: Leader) -> None:
        seen = leader.seen
        lease = Lease("alpha", True, seen.version, 0.0, granted=seen.granted, claim=seen.claim)
        if leader.grantor.over(lease, self.now * leader.rate):
            after = self.chance.choice((0.0, 0.02))
            self.after(after, lambda: self.commit(leader, seen.version))

    def commit(self, leader: Leader, version: int) -> None:
        """The transaction: it checks the leadership and the version."""
        leads = leader.epoch == self.leader.epoch
        if leads and self.record.version == version and self.record.taken_at is None:
            self.record.taken_at = self.now
            self.counted["taken"] += 1

    # --- the host -----------------------------------------------------------------------------------------------------

    def step_host(self) -> None:
        host, leader = self.host, self.leader
        if self.chance.random() < 0.02:  # a new process
            host.grantee, host.rests_on, host.entering = None, 0, False
            self.claim()
        if host.grantee is None:
            host.grantee = Grantee("alpha", leader.epoch, host.asks_under, TIMING, 1000 * next(self.order))
        ask, to = host.grantee.ask(self.now * host.rate), leader
        self.send(lambda: self.hear(to, ask))
        act = self.chance.random()
        stalls = host.grantee.until < self.now * host.rate
        if host.rests_on and (host.grantee.refused or stalls or act < 0.02):
            self.after(self.chance.choice((0.0, 0.05)), self.claim)
        elif host.claimed and not host.rests_on and not host.entering and not stalls and not host.grantee.refused:
            host.entering, version, grantee = True, host.claimed, host.grantee
            self.after(self.chance.choice((0.0, 0.03)), lambda: self.enter(version, grantee))
        elif act < 0.05:
            self.claim()
        self.after(self.chance.choice((0.01, TIMING.ask_grant_s, 0.3)), self.step_host)

    def enter(self, version: int, grantee: Grantee) -> None:
        """`granted` is written upon the version that it claimed; the answer may come late, or never."""
        if self.record.version == version:
            self.record.version, self.record.granted = version + 1, grantee._epoch
            claims = self.host.claims
            self.after(self.chance.choice((0.0, 0.05)), lambda: self.entered(grantee, claims))

    def entered(self, grantee: Grantee, claims: int) -> None:
        host = self.host
        if host.grantee is grantee and host.claims == claims:  # else it is claiming anew: ZooKeeper answers in order
            host.rests_on = grantee._epoch
            self.counted["entered"] += 1

    def claim(self) -> None:
        """The record first, then what it was told. While it goes on by grants, it does so until this is done."""
        version, claims = self.record.version + 1, self.host.claims + 1
        self.record = replace(self.record, version=version, granted=0, claim=version)
        self.host.claims, self.host.claimed = claims, 0
        self.after(self.chance.choice((0.0, 0.03)), lambda: self.claimed(version, claims))

    def claimed(self, version: int, claims: int) -> None:
        host = self.host
        if claims == host.claims:
            host.owns = self.record.taken_at is None
            host.claimed, host.rests_on, host.entering, host.grantee = version, 0, False, None
            host.asks_under = version
            self.counted["escaped"] += 1

    # --- the datagrams ------------------------------------------------------------------------------------------------

    def hear(self, leader: Leader, ask: Ask) -> None:
        seen = leader.seen
        lease = Lease("alpha", True, seen.version, 0.0, granted=seen.granted, claim=seen.claim)
        said = leader.grantor.answer(ask, lease, leader.leads_until, self.now * leader.rate)
        self.counted["granted"] += not said.refused
        self.send(lambda: self.host.grantee.heard(said) if self.host.grantee else None)


def played(seeds: range) -> dict[str, int]:
    total: dict[str, int] = {}
    for seed in seeds:
        world = World(seed)
        world.run(until=8.0)
        assert not world.breach, f"seed {seed}: {world.breach}"
        total = {key: total.get(key, 0) + count for key, count in world.counted.items()}
    return total


def test_never_may_the_host_run_what_was_taken_from_it() -> None:
    total = played(range(1500))
    assert min(total.values()) > 300, f"each of them must have happened often: {total}"
