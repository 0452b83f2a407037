"""The guard's questions to the leader: whom it asks, how often, what answers are worth (failover/grants/protocol.py).

    word with `asks` ──▶ every sixth of a length a question ──▶ leader, port 7182
                         ◀── an answer: what the newest word names may run until …
                         ──▶ news for the agent: granted; at once: for the first time, no answers, answers again

Rule 1: it asks upon one footing. What was granted upon an older one is in the ends of the vservers already; a late
        answer to an older question is none.
Rule 2: numbers of questions are never used twice, by no process: they begin at random.
Pure: it is handed the time, and how to send.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from agents.lease import NOTHING, Asks, Granted
from failover.grants.protocol import PORT, Grantee, Letter

SOON_S = 0.0005  # a question may be so early: less could be lost in the rounding of a clock
MISSED = 2.5  # pauses without an answer are trouble: two answers in a row were lost


class Asking:
    """`send`: this letter to the leader there. `first`: the number before that of the first question."""

    def __init__(self, send: Callable[[Asks, Letter], None], first: int | None = None) -> None:
        self._send = send
        self.number = secrets.randbits(63) if first is None else first
        self._grantee: Grantee | None = None
        self._since = self._asked_at = float("-inf")
        self._said = NOTHING
        self.asks: Asks | None = None

    def obey(self, asks: Asks | None, now: float) -> None:
        """As the newest word has it."""
        if asks == self.asks:
            return
        before, self.asks, self._asked_at = self.asks, asks, float("-inf")
        if asks is None:
            self._grantee = None
            return
        if before is None or self._grantee is None or (before.footing, before.leader) != (asks.footing, asks.leader):
            self._since = now
            self._grantee = Grantee(asks.host, asks.footing, asks.timing.grant_s, asks.timing.granted_s)

    def resume(self, asks: Asks, until: float, now: float) -> None:
        """Go on for the guard before this one, which was granted so much upon this."""
        self.obey(asks, now)
        if self._grantee is not None:
            self._grantee.until = until

    def turn(self, now: float) -> None:
        """Ask, when it is time to."""
        if self.asks is None or self._grantee is None or self.wait_s(now) > SOON_S:
            return
        self.number += 1
        self._asked_at = now
        self._send(self.asks, Letter(ask=self._grantee.ask(self.number, now)))

    @property
    def _pause_s(self) -> float:
        """Between two questions; a leader that goes by other terms may grant less at a time."""
        assert self.asks is not None
        timing = self.asks.timing
        granted_s = (self._grantee.length_s if self._grantee is not None else 0.0) or timing.grant_s
        return min(granted_s, timing.grant_s) / timing.grant_asks

    def wait_s(self, now: float) -> float:
        """Until the next question."""
        return float("inf") if self.asks is None else self._asked_at + self._pause_s - now

    def hear(self, letter: Letter) -> None:
        if self._grantee is not None and self.asks is not None and letter.grant and letter.target == self.asks.host:
            self._grantee.heard(letter.grant)

    def granted(self, now: float) -> Granted:
        if self._grantee is None or self.asks is None:
            return NOTHING
        silent_s = now - max(self._since, self._grantee.answered_at)
        silent = silent_s > MISSED * self._pause_s
        unheard = f"no answer in time from the leader at {self.asks.leader}, UDP port {PORT}" if silent else ""
        because = self._grantee.refused or unheard
        return Granted(self.asks.footing, self._grantee.until, bool(because), because)

    def news(self, now: float) -> tuple[Granted, bool] | None:
        """What the agent should know, and whether it should look at once: else it only hears that the guard is well.
        None when it knows."""
        granted, before = self.granted(now), self._said
        self._said = granted
        same = replace(granted, until=0.0) == replace(before, until=0.0)
        first = granted.until > float("-inf") and before.until == float("-inf")
        return (granted, not same or first) if granted != before else None

    def skip(self, length_s: float) -> None:
        """As if so much time had passed with questions and answers as they are: for the simulator."""
        self._asked_at += length_s
        self._since += length_s
        if self._grantee is not None:
            self._grantee.skip(length_s)
