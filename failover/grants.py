"""Grants: the leader lets a host run what it owns for a fraction of a second, again and again, in datagrams.

    host (its guard)                                  leader
    ask, several times per length ──────────────────▶ leads, and has not given it up? then it remembers an end,
    its right counts from the SENDING of a question   which counts from the HEARING ◀── granted: so many seconds

    what the host's lease record says                 when the host's right is over
    granted: 0                                        when its session is        (the session ends after its lease)
    granted: E, the leader's own epoch                when the leader's clock has passed the end of all that it granted
    granted: an older epoch                           already: no leader grants beyond its own lease (timing.py)

Rule 1: a right rests on grants or on the session, never on both. Which one, the host writes in its lease record, each
        time upon the version that it knows; a takeover checks that version. So ZooKeeper's order decides every race.
Rule 2: a host goes over to grants only from the session under which it has claimed its lease (rule 3), upon that very
        version, when it has a grant already; while that write is on its way, its right is the shorter one.
Rule 3: a host goes back by claiming its lease anew: it writes the record first, and reads after it what it was told.
        Every question names the claim that it is asked under, and is refused under any other: until the host knows that
        its claim was written, what it goes by is what it was told before.
Rule 4: once a leader has found a host's right to be over, it grants nothing more to it under that claim: what lapsed
        comes back by rule 3 only.
Rule 5: a leader grants nothing to a host whose record rests on another leader's grants: rule 3 comes first.
Rule 6: an answer counts once, for a question of this very process that has no answer yet. What is lost ends a right
        early; what comes late, twice or from before extends none.

No process uses this yet, and none may before it keeps what docs/decisions/4-grants.md says that the model taught.

Pure, for one thread. Both clocks are boot times, each of its own host.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover.model import Lease
from failover.timing import Timing


@dataclass(frozen=True)
class Ask:
    """May I run on? `epoch`: of the leader that is asked; `claim`: see model.Lease; `number`: never used before by the
    process that asks."""

    host: str
    epoch: int
    claim: int
    number: int


@dataclass(frozen=True)
class Grant:
    """`length_s` from the hearing of the question; 0, with a reason, when it is refused."""

    epoch: int
    number: int
    length_s: float = 0.0
    refused: str = ""


class Grantor:
    """What the leader of one epoch has granted. `leads_until`, its own lease, comes with every question."""

    def __init__(self, epoch: int, timing: Timing) -> None:
        self._epoch, self._timing = epoch, timing
        self._ends: dict[str, float] = {}
        self._given_up: dict[str, int] = {}  # the claim under which its right was found to be over

    def answer(self, ask: Ask, lease: Lease | None, leads_until: float, now: float) -> Grant:
        """`now`: no earlier than the hearing of the question, and no earlier than `lease` was looked up."""
        length_s = min(self._timing.grant_s, leads_until - now)
        why = self._refusal(ask, lease) or ("" if length_s > 0 else "this leader's own lease is over")
        if why:
            return Grant(self._epoch, ask.number, refused=why)
        self._ends[ask.host] = max(self._ends.get(ask.host, now), now + length_s)
        return Grant(self._epoch, ask.number, length_s)

    def over(self, lease: Lease, now: float) -> bool:
        """Whether the right of a host whose record rests on grants is over, so that what it owns may be given away by a
        transaction that checks the version of `lease`. From then on it is granted nothing under that claim."""
        if not 0 < lease.granted <= self._epoch:
            return False  # its session decides, or another leads
        if lease.granted == self._epoch and now < self._ends.get(lease.host, now):
            return False
        self._given_up[lease.host] = lease.claim
        return True

    def granted_until(self, host: str) -> float | None:
        """The end of all that was granted to it, for who must know until when it may have written."""
        return self._ends.get(host)

    def _refusal(self, ask: Ask, lease: Lease | None) -> str:
        if ask.epoch != self._epoch:
            return f"this leader has epoch {self._epoch}"
        if lease is None or not lease.alive:
            return f"the session of {ask.host} is over"
        if lease.granted not in (0, self._epoch):
            return f"{ask.host} rests on the grants of the leader of epoch {lease.granted}"
        if ask.claim != lease.claim:
            return f"{ask.host} has claimed its lease anew, or this leader has not seen yet that it did"
        if self._given_up.get(ask.host) == lease.claim:
            return f"the grants of {ask.host} were over: it must claim its lease anew"
        return ""


class Grantee:
    """What one host has been granted by the leader of one epoch, under one claim. `until`: its right; `refused`: why it
    must go back to its session, by the newest answer."""

    def __init__(self, host: str, epoch: int, claim: int, timing: Timing, number: int = 0) -> None:
        """`number`: the last that this process has used."""
        self._host, self._epoch, self._claim, self._timing, self._number = host, epoch, claim, timing, number
        self._sent: dict[int, float] = {}
        self.until = float("-inf")
        self.refused = ""

    def ask(self, now: float) -> Ask:
        """`now`: no later than the sending."""
        self._sent = {number: at for number, at in self._sent.items() if at > now - self._timing.grant_s}
        self._number += 1
        self._sent[self._number] = now
        return Ask(self._host, self._epoch, self._claim, self._number)

    def heard(self, grant: Grant) -> None:
        sent_at = self._sent.pop(grant.number, None)
        if sent_at is None or grant.epoch != self._epoch:
            return
        self.refused = grant.refused
        if not grant.refused:
            self.until = max(self.until, sent_at + self._timing.granted_s(grant.length_s))
