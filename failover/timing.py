"""The lease arithmetic: how long a host may run what it owns after it last proved that its session lives.

    host     send renewal ──────────────────────────▶ lease over: frozen          (counted from SENDING)
    ZooKeeper        └─ hears of it ─────────────────────────────▶ session expires (counted from HEARING, later)

A follower may tell ZooKeeper's leader of a session's activity one tick late, and the expiry is found at ticks, so
two ticks are given away; the two clocks may drift apart by `drift` of the session; freezing takes `freeze_s`.

Rule 1: a host's lease is over, and all it ran is frozen, before ZooKeeper can end its session. `Timing` cannot be built
        otherwise. Source of the figures: measurements with ZooKeeper 3.8 (tick 200 ms), docs/safety.md.

Without ZooKeeper a host may go on by promises of the others (agents/promise.py):

    holder   ask ──────────────────────────────▶ its right is over: frozen        (counted from SENDING)
    giver     └─ hears, promises ──────────────────────▶ may start it             (counted from HEARING, later)

Rule 2: the holder's end comes first. Both know the length from the answer, so their own settings may differ.

With a leader that grants (failover/grants.py) neither waits for a session:

    holder   ask ─────────────────────▶ its right is over: frozen                 (counted from SENDING)
    leader     └─ hears, grants ──────────────▶ may give away what the holder owns (counted from HEARING, later)

Rule 3: as rule 2, but in shares of a second: what freezes is a guard in real time, so less is given away for it.
Rule 4: a leader grants nothing beyond the end of its own lease, which is that of a host: counted from the sending of an
        acknowledged write. So whoever is elected after it finds all its grants ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from failover.errors import Unsafe

LEAST_DRIFT, MOST_DRIFT = 0.001, 0.1  # a clock that is set right may be slewed by 0.05 %, and so may the other one
LEAST_FREEZE_S = 0.01
LEAST_RENEWALS = 3
LONGEST_S = 60.0  # maxSessionTimeout as `failover init` writes it; the guard takes no longer lease


@dataclass(frozen=True)
class Timing:
    """All in seconds, but `drift`, which is a share: 0.01 is one second in a hundred."""

    session_s: float
    tick_s: float = 0.2
    drift: float = 0.01
    freeze_s: float = 0.05
    margin_s: float = 0.05
    renewals: int = 4  # renewals per lease: three may be lost
    grant_s: float = 0.6  # the length of a grant
    grant_freeze_s: float = 0.02  # the guard freezes ahead of the end; the fence lapses in ticks of 10 ms
    grant_margin_s: float = 0.01
    grant_asks: int = 6  # questions per grant: five may be lost

    def __post_init__(self) -> None:
        self._check_terms()
        if self.lease_s < 4 * self.tick_s:
            least = (4 * self.tick_s + 2 * self.tick_s + self.freeze_s + self.margin_s) / (1 - self.drift)
            raise Unsafe(
                f"a session of {self.session_s:g} s leaves a lease of only {max(self.lease_s, 0):.2f} s",
                hint=f"raise the session to at least {math.ceil(10 * least) / 10:.1f} s",
            )
        if (promised_s := self.promised_s(self.promise_s)) < 3 * self.ask_s:
            raise Unsafe(
                f"promises of {self.promise_s:.2f} s leave a right of only {max(promised_s, 0):.2f} s",
                hint="raise the session or the renewals, or lower freeze and margin",
            )
        if self.granted_s(self.grant_s) < 3 * self.ask_grant_s:
            raise Unsafe(
                f"a grant of {self.grant_s:g} s leaves a right of only {max(self.granted_s(self.grant_s), 0):.2f} s",
                hint=f"raise it to at least {math.ceil(1000 * self._least_grant_s()) / 1000:.3f} s",
            )

    def _check_terms(self) -> None:
        """Each by itself: what the arithmetic takes for granted."""
        demands = (
            (
                LEAST_DRIFT <= self.drift <= MOST_DRIFT,
                f"a drift of {self.drift:.2%} is not what two clocks do",
                f"write {LEAST_DRIFT:.1%} to {MOST_DRIFT:.0%}; 1% is safe for hosts whose clocks are kept right",
            ),
            (
                self.tick_s > 0,
                f"a tick of {self.tick_s:g} s is none",
                "write the tickTime of zoo.cfg; failover init makes it 200ms",
            ),
            (
                self.freeze_s >= LEAST_FREEZE_S and self.grant_freeze_s >= LEAST_FREEZE_S,
                f"nothing is frozen within {min(self.freeze_s, self.grant_freeze_s):g} s",
                f"allow at least {LEAST_FREEZE_S * 1000:g}ms: the fence lapses in such steps",
            ),
            (
                self.margin_s >= 0 and self.grant_margin_s >= 0,
                f"a margin of {min(self.margin_s, self.grant_margin_s):g} s takes away what keeps two hosts apart",
                "write 0 or more",
            ),
            (
                self.renewals >= LEAST_RENEWALS and self.grant_asks > LEAST_RENEWALS,
                "one renewal or question that is lost would end a right",
                f"renew at least {LEAST_RENEWALS} times per lease, ask at least {LEAST_RENEWALS + 1} times per grant",
            ),
            (
                self.session_s <= LONGEST_S,
                f"a session of {self.session_s:g} s is longer than ZooKeeper and the guard allow",
                f"at most {LONGEST_S:g} s; a host that is lost would be waited for so long",
            ),
        )
        for holds, message, hint in demands:
            if not holds:
                raise Unsafe(message, hint=hint)

    @property
    def lease_s(self) -> float:
        """From the sending of an acknowledged renewal until everything must be frozen."""
        return self.session_s * (1 - self.drift) - 2 * self.tick_s - self.freeze_s - self.margin_s

    @property
    def renew_s(self) -> float:
        return self.lease_s / self.renewals

    @property
    def promise_s(self) -> float:
        """For so long a host promises not to start what another one owns: as long as a lease is."""
        return self.lease_s

    @property
    def ask_s(self) -> float:
        """The pause between two questions. Datagrams get lost: seven in a row may be."""
        return self.promise_s / (2 * self.renewals)

    def promised_s(self, length_s: float) -> float:
        """From the sending of a question until everything must be frozen, when the answer promised `length_s`."""
        return length_s * (1 - self.drift) - self.freeze_s - self.margin_s

    @property
    def ask_grant_s(self) -> float:
        """The pause between two questions for a grant."""
        return self.grant_s / self.grant_asks

    def granted_s(self, length_s: float) -> float:
        """From the sending of a question until everything must be frozen, when the answer granted `length_s`."""
        return length_s * (1 - self.drift) - self.grant_freeze_s - self.grant_margin_s

    def _least_grant_s(self) -> float:
        return (self.grant_freeze_s + self.grant_margin_s) / (1 - self.drift - 3 / self.grant_asks)

    def with_session(self, negotiated_s: float) -> Timing:
        """ZooKeeper decides how long a session is; a shorter one than asked for shortens the lease."""
        return replace(self, session_s=min(negotiated_s, self.session_s))

    def proof(self) -> str:
        return (
            f"a host renews every {self.renew_s:.2f} s, is frozen {self.lease_s:.2f} s after its last renewal, "
            f"and can be taken over no earlier than {self.session_s:.2f} s after it; "
            f"without ZooKeeper it asks the others every {self.ask_s:.2f} s, is frozen "
            f"{self.promised_s(self.promise_s):.2f} s after the last question that all of them answered, "
            f"and none of them starts it earlier than {self.promise_s:.2f} s after it"
        )


PROFILES = {
    "fast": Timing(session_s=2.0, grant_s=0.2),
    "normal": Timing(session_s=4.0, grant_s=0.6),
    "patient": Timing(session_s=10.0, grant_s=2.0),
}
