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
from failover.grants.protocol import Ask, Footing, Grant, Grantee, Grantor, Known
from failover.model import Lease
from failover.timing import PROFILES, Timing

TIMING = PROFILES["fast"]
LEADS_S = TIMING.leads_s(TIMING.leader_session_s)
HERE, ELSEWHERE = Footing(7, 2), Footing(8, 2)
LEASE = Lease("alpha", True, 7, 0.0, granted=True, taken=2)
FOREVER = 1e9

# --- the rules --------------------------------------------------------------------------------------------------------


def reading(lease: Lease = LEASE, now: float = 10.0) -> Grantor:
    grantor = Grantor(TIMING)
    grantor.read(lease, now)
    return grantor


REFUSED = {
    "it has read nothing": (Grantor(TIMING), FOREVER, "by another footing"),
    "it goes by an older version": (reading(replace(LEASE, version=6)), FOREVER, "by another footing"),
    "it was taken over from meanwhile": (reading(replace(LEASE, taken=3)), FOREVER, "by another footing"),
    "the leader's own lease is over": (reading(), 10.0, "own lease is over"),
}


@pytest.mark.parametrize(("grantor", "leads_until", "why"), REFUSED.values(), ids=REFUSED)
def test_the_leader_refuses_when(grantor: Grantor, leads_until: float, why: str) -> None:
    said = grantor.answer(Ask("alpha", HERE, 1), leads_until, 10.0)
    assert why in said.refused and said.length_s == 0


def test_a_grant_is_no_longer_than_the_leaders_own_lease() -> None:
    assert reading().answer(Ask("alpha", HERE, 1), 10.15, 10.0).length_s == pytest.approx(0.15)
    assert reading().answer(Ask("alpha", HERE, 1), FOREVER, 10.0).length_s == TIMING.grant_s


def test_a_right_is_over_a_length_after_the_last_question_and_not_a_moment_before() -> None:
    grantor = reading()
    grantor.answer(Ask("alpha", HERE, 1), FOREVER, 10.1)
    assert not grantor.over(LEASE, 10.299)
    assert grantor.over(LEASE, 10.3)
    assert grantor.end("alpha") == pytest.approx(10.3)
    assert not grantor.over(replace(LEASE, version=8), 99.0), "it has written since"


def test_a_record_that_says_granted_counts_as_a_question_when_it_is_read_for_the_first_time() -> None:
    grantor, later = reading(), replace(LEASE, version=8)
    assert not grantor.over(LEASE, 10.1)
    grantor.read(LEASE, 10.1)
    assert grantor.over(LEASE, 10.2), "read again it is no news"
    grantor.read(later, 10.2)
    assert not grantor.over(later, 10.3)


def test_a_leader_that_has_not_read_a_record_that_says_granted_does_not_find_it_over() -> None:
    assert not Grantor(TIMING).over(LEASE, FOREVER)


def test_what_was_granted_to_a_host_on_its_session_must_end_as_well() -> None:
    on_session = replace(LEASE, granted=False)
    assert Grantor(TIMING).over(on_session, 10.0)
    grantor = reading(on_session)
    assert grantor.over(on_session, 10.0), "its session is its right, and nothing was granted"
    grantor.answer(Ask("alpha", HERE, 1), FOREVER, 10.0)
    assert not grantor.over(on_session, 10.1)
    assert grantor.over(on_session, 10.2)


def test_from_the_sending_of_a_takeover_nothing_is_granted_upon_its_footing_whatever_comes_of_it() -> None:
    grantor = reading()
    assert grantor.give_up(LEASE, 10.5)
    assert "being given away" in grantor.answer(Ask("alpha", HERE, 1), FOREVER, 10.5).refused
    grantor.read(LEASE, 11.0)
    assert "being given away" in grantor.answer(Ask("alpha", HERE, 2), FOREVER, 11.0).refused
    grantor.read(replace(LEASE, version=8), 12.0)
    assert not grantor.answer(Ask("alpha", ELSEWHERE, 3), FOREVER, 12.0).refused


def test_no_takeover_is_sent_when_something_was_granted_since_it_was_decided() -> None:
    grantor = reading()
    assert grantor.over(LEASE, 10.5)
    assert not grantor.answer(Ask("alpha", HERE, 1), FOREVER, 10.5).refused
    assert not grantor.give_up(LEASE, 10.6)
    assert not grantor.answer(Ask("alpha", HERE, 2), FOREVER, 10.7).refused, "nothing was given away"


def test_nor_is_anything_granted_upon_an_older_record_than_the_one_that_was_given_away() -> None:
    """The host has claimed its lease anew, this leader has not read that as a grantor, and the session has ended."""
    grantor = reading()
    assert grantor.give_up(replace(LEASE, version=8, granted=False, alive=False), 10.5)
    assert "being given away" in grantor.answer(Ask("alpha", HERE, 1), FOREVER, 10.6).refused


def asking() -> Grantee:
    return Grantee("alpha", HERE, TIMING.grant_s, TIMING.granted_s)


def test_the_right_counts_from_the_sending_of_a_question_and_every_answer_once() -> None:
    grantee = asking()
    grantee.ask(1, 10.0), grantee.ask(2, 10.1)
    grantee.heard(Grant(1, 0.1))
    assert grantee.until == pytest.approx(10.0 + TIMING.granted_s(0.1))
    grantee.heard(Grant(1, 0.2))  # twice
    grantee.heard(Grant(7, 0.2))  # never asked
    assert grantee.until == pytest.approx(10.0 + TIMING.granted_s(0.1))
    grantee.heard(Grant(2, 60.0))  # no grant is longer than ours
    assert grantee.until == pytest.approx(10.1 + TIMING.granted_s(TIMING.grant_s))
    assert grantee.answered_at == 10.1


def test_an_answer_to_a_question_that_is_too_old_extends_nothing() -> None:
    grantee = asking()
    grantee.ask(1, 10.0)
    grantee.ask(2, 10.0 + TIMING.grant_s)
    grantee.heard(Grant(1, 0.2))
    assert grantee.until == float("-inf")


def test_a_refusal_ends_no_right_early_and_is_known() -> None:
    grantee = asking()
    for number, grant in enumerate((Grant(0, 0.2), Grant(1, refused="why not"))):
        grantee.ask(number, 10.0 + number / 100)
        grantee.heard(grant)
    assert (grantee.until, grantee.refused) == (10.0 + TIMING.granted_s(0.2), "why not")
    grantee.ask(2, 10.05)
    grantee.heard(Grant(2, 0.2))
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
        Unsafe, match=r"a grant of 0\.05 s leaves a right of only 0\.0. s: raise grant to at least 0\.062 s"
    ):
        Timing(session_s=2.0, grant_s=0.05).checked()
    assert Timing(session_s=2.0, grant_s=0.062).checked()


# --- random schedules -------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """The host's records in the store, and who owns the one vserver. Every call is one transaction, in order."""

    version: int = 1
    taken: int = 0
    granted: bool = False
    owned: bool = True  # else somebody else owns it

    def lease(self) -> Lease:
        return Lease("alpha", True, self.version, 0.0, granted=self.granted, taken=self.taken)


@dataclass
class Host:
    rate: float
    writes: int = 0  # so many were begun: ZooKeeper answers in order, so the answer to an older one counts no more
    grantee: Grantee | None = None  # upon the footing that it goes by
    owns: bool = True  # as it was last told
    granted: bool = False  # what it has written last, as far as it knows; a session gives no right here
    writing: bool = False
    until: float = float("-inf")  # its right, on its clock

    def right(self, now: float) -> bool:
        return self.owns and now * self.rate < self.until


@dataclass
class Leader:
    rate: float
    grantor: Grantor
    leads_until: float  # on its own clock
    seen: Lease | None = None
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
        self.now, self.queue, self.order = 0.0, list[Due](), itertools.count(1)
        self.record, self.breach = Record(), ""
        self.host = Host(self.rate())
        self.loss = self.chance.choice((0.0, 0.1, 0.5))
        self.counted = {"granted": 0, "taken": 0, "escaped": 0, "entered": 0, "elected": 0, "given back": 0}
        self.next_rate = self.rate()
        self.known: dict[str, Known] = {}  # what stands by has seen, on its clock
        self.leader = self.asked = self.elected()
        self.hangs_until = 0.0  # the agent; its guard asks on
        self.claim()
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
            if not self.record.owned and self.host.right(self.now):
                self.breach = f"at {self.now:.3f} the host may run what it does not own any more"

    # --- leaders ------------------------------------------------------------------------------------------------------

    def elected(self) -> Leader:
        now, known = self.now * self.next_rate, self.known
        leader = Leader(self.next_rate, Grantor(TIMING, known, now), now + LEADS_S)
        self.counted["elected"] += 1
        self.next_rate, self.known = self.rate(), {}
        self.stand_by()
        return leader

    def stand_by(self) -> None:
        """Who is elected next looks now and then: soon, seldom or never, and maybe at a server that is behind."""
        read, known = self.record.lease(), self.known

        def note() -> None:
            before = known.get("alpha")
            if known is self.known and (before is None or read.version > before.version):
                known.clear()
                if read.granted:
                    known["alpha"] = Known(read.version, read.store_at, self.now * self.next_rate)

        self.after(self.chance.choice((0.0, 0.02)), note)
        self.after(self.chance.choice((0.01, 0.1, 1.0)), lambda: self.stand_by() if known is self.known else None)

    def step_leader(self, leader: Leader) -> None:
        """It proves its leadership now and then, reads, and takes what it may. It may be deposed."""
        if self.now >= leader.deposed_at + 2:
            return
        if self.now < leader.deposed_at and self.chance.random() < 0.3:
            leader.leads_until = max(leader.leads_until, self.now * leader.rate + LEADS_S)
        if self.chance.random() < 0.3:
            self.look(leader)
        if self.chance.random() < 0.01 and leader.deposed_at == float("inf"):
            # its session ends when the last write that proves it is a session old; then another is elected
            leader.deposed_at = self.now
            self.after(TIMING.leader_session_s, self.elect)
        self.take(leader)
        self.after(self.chance.choice((0.0, 0.01, 0.05)), lambda: self.step_leader(leader))

    def elect(self) -> None:
        self.leader = self.elected()
        self.step_leader(self.leader)

    def look(self, leader: Leader) -> None:
        """A reading, from a server that may be behind a little: what it read is as old as its answer."""
        read = self.record.lease()
        self.after(self.chance.choice((0.0, 0.02)), lambda: self.read(leader, read))

    def read(self, leader: Leader, read: Lease) -> None:
        leader.seen = read
        leader.grantor.read(read, self.now * leader.rate)

    def take(self, leader: Leader) -> None:
        seen = leader.seen
        if seen is not None and seen.granted and leader.grantor.over(seen, self.now * leader.rate):
            self.after(self.chance.choice((0.0, 0.0, 0.1)), lambda: self.give_up(leader, seen))

    def give_up(self, leader: Leader, seen: Lease) -> None:
        """Some time after the decision: meanwhile the host may have come back and asked."""
        if leader.grantor.give_up(seen, self.now * leader.rate):
            self.after(self.chance.choice((0.0, 0.02, 0.4)), lambda: self.commit(leader, seen.version))

    def commit(self, leader: Leader, version: int) -> None:
        """The transaction: it checks the leadership and the version. (Here a session is never gone.)"""
        record = self.record
        if leader is self.leader and record.version == version and record.granted and record.owned:
            record.taken, record.owned = record.taken + 1, False
            self.counted["taken"] += 1
            self.after(1.0, self.give_back)

    def give_back(self) -> None:
        self.record.owned = True
        self.counted["given back"] += 1

    # --- the host -----------------------------------------------------------------------------------------------------

    def step_host(self) -> None:
        host, leader, grantee = self.host, self.asked, self.host.grantee
        act, now = self.chance.random(), self.now * host.rate
        if grantee is not None:
            ask = grantee.ask(next(self.order), now)
            self.send(lambda: self.hear(leader, ask, grantee))
        if self.chance.random() < 0.1:
            self.asked = self.leader
        if self.chance.random() < 0.01:
            self.hangs_until = self.now + 4
        if self.now < self.hangs_until:
            pass
        elif act < 0.02:  # a new process knows nothing, but the guard has the end
            host.grantee = None
            self.claim()
        elif not host.writing and host.granted and (now > host.until - 0.1 or act < 0.04):
            self.claim()
        elif not host.writing and not host.granted and grantee is not None and now < host.until:
            self.enter(grantee.footing)
        self.after(self.chance.choice((0.01, TIMING.ask_grant_s, 0.3)), self.step_host)

    def write(self, after_s: float, perform: Callable[[int], None]) -> None:
        self.host.writes, self.host.writing = self.host.writes + 1, True
        number = self.host.writes
        self.after(after_s, lambda: perform(number))

    def enter(self, footing: Footing) -> None:
        """`granted` is written upon the version that it goes by; the answer may come late, or never."""
        host, sent_at = self.host, self.now * self.host.rate
        host.until = min(host.until, sent_at + TIMING.granted_s(TIMING.grant_s))

        def perform(number: int) -> None:
            if self.record.version == footing.lease:
                self.record.version, self.record.granted = footing.lease + 1, True
                self.answer(number, lambda: self.entered(Footing(footing.lease + 1, footing.taken), sent_at))
            else:
                self.answer(number, self.claim)

        self.write(self.chance.choice((0.0, 0.03, 0.3)), perform)

    def entered(self, footing: Footing, sent_at: float) -> None:
        self.host.granted = True
        self.host.until = max(self.host.until, sent_at + TIMING.granted_s(TIMING.grant_s))
        self.goes_by(footing)
        self.counted["entered"] += 1

    def claim(self) -> None:
        """The record first, then what it was told. While it goes on by grants, it does so until this is done."""

        def perform(number: int) -> None:
            self.record.version, self.record.granted = self.record.version + 1, False
            version = self.record.version
            self.after(self.chance.choice((0.0, 0.03)), lambda: self.answer(number, lambda: self.claimed(version)))

        self.write(self.chance.choice((0.0, 0.05)), perform)

    def claimed(self, version: int) -> None:
        self.host.owns, self.host.granted = self.record.owned, False
        self.goes_by(Footing(version, self.record.taken))
        self.counted["escaped"] += 1

    def answer(self, number: int, act: Callable[[], None]) -> None:
        def hear() -> None:
            if number == self.host.writes:
                self.host.writing = False
                act()

        self.after(self.chance.choice((0.0, 0.05)), hear)

    def goes_by(self, footing: Footing) -> None:
        self.host.grantee = Grantee("alpha", footing, TIMING.grant_s, TIMING.granted_s)

    # --- the datagrams ------------------------------------------------------------------------------------------------

    def hear(self, leader: Leader, ask: Ask, grantee: Grantee) -> None:
        if not leader.grantor.knows(ask):
            self.look(leader)
        said = leader.grantor.answer(ask, leader.leads_until, self.now * leader.rate)
        self.counted["granted"] += not said.refused
        self.send(lambda: self.heard(grantee, said))

    def heard(self, grantee: Grantee, said: Grant) -> None:
        if grantee is self.host.grantee:
            grantee.heard(said)
            self.host.until = max(self.host.until, grantee.until)


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
