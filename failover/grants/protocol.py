"""Grants: the leader lets a host run what it owns for a fraction of a second, again and again, in datagrams.

    host (its guard)                                  leader
    ask, several times per length ──────────────────▶ leads, has not given it up? then it remembers an end,
    its right counts from the SENDING of a question   which counts from the HEARING ◀── granted: so many seconds

    what the host's lease record says                 its right may be given away when
    granted: false                                    its session is gone, and all that was granted is over
    granted: true                                     all that was granted is over, whether its session lives or not

Rule 1: a host goes by one footing: the version of its lease record, as it wrote it, and how often it had been taken
        over from, as it read it afterwards. Every question names it. A leader grants only upon the footing that it has
        read itself since its election, so nothing counts that a write or a takeover has overtaken.
Rule 2: a record that says granted, read by a leader for the first time, counts as a question: the host may run for one
        length by having written it. Heard at the reading; or earlier, when this process has seen that very record
        before its election. (Older leaders have granted nothing beyond their own lease, timing.py.)
Rule 3: from the sending of a takeover nothing is granted upon the version that it was decided on, or an older one,
        whatever comes of it; and it is not sent if something was granted since it was decided.
Rule 4: before a host sends that its lease rests on grants, its right is cut to the length of a grant, on disk.
Rule 5: an answer counts once, for a question of this very process that has no answer yet. What is lost ends a right
        early; what comes late, twice or from before extends none.

tests/model/lease.pml shows that these are enough, and that each is needed. Pure, for one thread. Both clocks are boot
times, each of its own host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from failover.model import Lease
from failover.timing import Timing

PORT = 7182  # UDP, of every host's address: the leader's process hears questions there


@dataclass(frozen=True)
class Footing:
    """What a host goes by: the version of its lease record, and that of the record of the takeovers from it."""

    lease: int
    taken: int


@dataclass(frozen=True)
class Ask:
    """May I run on? `number`: never used before by the process that asks."""

    host: str
    footing: Footing
    number: int


@dataclass(frozen=True)
class Grant:
    """`length_s` from the hearing of the question; 0, with a reason, when it is refused."""

    number: int
    length_s: float = 0.0
    refused: str = ""


def footing_of(lease: Lease) -> Footing:
    return Footing(lease.version, lease.taken)


@dataclass(frozen=True)
class Known:
    """A lease record that says granted, and when this process, which did not lead yet, had first seen it. `store_at`:
    when it was written, on the store's clock; with the version, it tells a record from any other."""

    version: int
    store_at: float
    at: float

    def is_of(self, lease: Lease) -> bool:
        return (self.version, self.store_at) == (lease.version, lease.store_at)


class Grantor:
    """What one leader has granted since its election."""

    def __init__(
        self,
        timing: Timing,
        known: Mapping[str, Known] | None = None,
        now: float = float("-inf"),
        before: Grantor | None = None,
    ) -> None:
        """`known`: what it had seen before its election, which was at `now` at the latest. `before`: of this very
        process when it led last; that lease may not be over, if no other leader came in between."""
        self._timing, self._known, self._elected_at = timing, known or {}, now
        self._read: dict[str, Footing] = {}
        self._ends: dict[str, float] = dict(before._ends) if before is not None else {}
        self._given_up: dict[str, int] = {}  # the version of its lease record that a takeover was decided upon

    def read(self, lease: Lease, now: float) -> None:
        """The record was read, after the election and before `now`. What is older than the last reading came late."""
        before = self._read.get(lease.host)
        if before is not None and (lease.version < before.lease or lease.taken < before.taken):
            return
        self._read[lease.host] = footing_of(lease)
        if lease.granted and (before is None or before.lease != lease.version):
            known = self._known.get(lease.host)
            written_by = known.at if known is not None and known.is_of(lease) else now
            by_older_leaders = self._elected_at
            self._ends[lease.host] = max(self.end(lease.host), by_older_leaders, written_by + self._timing.grant_s)

    def has_read(self, lease: Lease) -> bool:
        return self._read.get(lease.host) == footing_of(lease)

    def knows(self, ask: Ask) -> bool:
        """Whether it has read what the host goes by; else it should read it again before it answers."""
        return self._read.get(ask.host) == ask.footing

    def answer(self, ask: Ask, leads_until: float, now: float) -> Grant:
        """`now`: no earlier than the hearing of the question; `leads_until`: the end of the leader's own lease."""
        length_s = min(self._timing.grant_s, leads_until - now)
        if not self.knows(ask):
            return Grant(ask.number, refused=f"{ask.host} goes by {ask.footing}, this leader by another footing")
        if self._given_up.get(ask.host, -1) >= ask.footing.lease:
            return Grant(ask.number, refused=f"what {ask.host} owns is being given away: it must claim its lease anew")
        if length_s <= 0:
            return Grant(ask.number, refused="this leader's own lease is over")
        self._ends[ask.host] = max(self.end(ask.host), now + length_s)
        return Grant(ask.number, length_s)

    def end(self, host: str) -> float:
        """The end of all that may have been granted to it."""
        return self._ends.get(host, float("-inf"))

    def last_end(self) -> float:
        """The same of all hosts."""
        return max(self._ends.values(), default=float("-inf"))

    def over(self, lease: Lease, now: float) -> bool:
        """Whether nothing is granted to the host any more. Then a takeover may be decided upon this record, if that
        says granted; if it does not, only when its session is gone."""
        known = not lease.granted or self.has_read(lease) or self._given_up.get(lease.host) == lease.version
        return known and now >= self.end(lease.host)

    def give_up(self, lease: Lease, now: float) -> bool:
        """A takeover that was decided upon this record is about to be sent (rule 3). False: it must not be, for
        something was granted since."""
        if not self.over(lease, now):
            return False
        self._given_up[lease.host] = lease.version
        return True

    def skip(self, before: float, length_s: float) -> None:
        """As if so much time had passed with questions and answers as they are: for the simulator. What was over stays
        over."""
        self._ends = {host: end + length_s if end > before else end for host, end in self._ends.items()}


class Grantee:
    """What one host was granted upon one footing. `until`: its right; `refused`: why not, by the newest answer."""

    def __init__(self, host: str, footing: Footing, grant_s: float, held_s: Callable[[float], float]) -> None:
        """`held_s`: what of a length may be used (Timing.granted_s); `grant_s`: the longest."""
        self._host, self.footing, self._grant_s, self._held_s = host, footing, grant_s, held_s
        self._sent: dict[int, float] = {}
        self.until = float("-inf")
        self.answered_at = float("-inf")  # the sending of the newest question that had an answer
        self.refused = ""
        self.length_s = 0.0  # of the longest grant

    def ask(self, number: int, now: float) -> Ask:
        """`now`: no later than the sending."""
        self._sent = {number: at for number, at in self._sent.items() if at > now - self._grant_s}
        self._sent[number] = now
        return Ask(self._host, self.footing, number)

    def heard(self, grant: Grant) -> None:
        sent_at = self._sent.pop(grant.number, None)
        if sent_at is None or sent_at < self.answered_at:
            return
        self.answered_at, self.refused = sent_at, grant.refused
        if not grant.refused:
            self.length_s = max(grant.length_s, self.length_s)
            self.until = max(self.until, sent_at + self._held_s(min(grant.length_s, self._grant_s)))

    def skip(self, length_s: float) -> None:
        """As if so much time had passed with questions and answers as they are."""
        self._sent = {number: at + length_s for number, at in self._sent.items()}
        self.until, self.answered_at = self.until + length_s, self.answered_at + length_s


@dataclass(frozen=True)
class Letter:
    """What a datagram holds: a question from a host, or the answer to it."""

    ask: Ask | None = None
    grant: Grant | None = None
    target: str = ""  # of an answer: the host that has asked
