"""The lease arithmetic: how long a host may run what it owns after it last proved that its session lives.

    host     send renewal ──────────────────────────▶ lease over: frozen          (counted from SENDING)
    ZooKeeper        └─ hears of it ─────────────────────────────▶ session expires (counted from HEARING, later)

A server of ZooKeeper tells its leader of a session's activity by and by, so a renewal counts only when another one, two
ticks after it, is acknowledged (failover/touches.py); the clocks may drift apart by `drift` of the session; freezing
takes `freeze_s`.

Rule 1: a host's lease is over, and all it ran is frozen, before ZooKeeper can end its session. Other terms are not
        `checked`, so cluster.yaml cannot have them. Source of the figures: measurements with ZooKeeper 3.8 (tick
        200 ms), docs/safety.md.

Without ZooKeeper a host may go on by promises of the others (agents/promise.py):

    holder   ask ──────────────────────────────▶ its right is over: frozen        (counted from SENDING)
    giver     └─ hears, promises ──────────────────────▶ may start it             (counted from HEARING, later)

Rule 2: the holder's end comes first. Both know the length from the answer, so their own settings may differ.

With a leader that grants (failover/grants/protocol.py) neither waits for a session:

    holder   ask ─────────────────────▶ its right is over: frozen                 (counted from SENDING)
    leader     └─ hears, grants ──────────────▶ may give away what the holder owns (counted from HEARING, later)

Rule 3: as rule 2, but in shares of a second: what freezes is a guard in real time, so less is given away for it.
Rule 4: a leader grants nothing beyond the end of its own lease, which counts like that of a host. So whoever is elected
        after it finds all its grants ended. Its session is its own, and shorter than a host's: when it ends wrongly
        another one is elected, and hosts have gone back to their sessions. Nothing is frozen at its end but what was
        granted, for which every host has its own time already (rule 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from failover.errors import Unsafe

LEAST_DRIFT, MOST_DRIFT = 0.001, 0.1  # a clock that is set right may be slewed by 0.05 %, and so may the other one
LEAST_FREEZE_S = 0.01
LEAST_TICK_S = 0.2  # as `failover init` writes it (failover/ensemble.py)
MOST_RENEWALS = 20
LEAST_RENEWALS, LEAST_ASKS = 5, 4
LEAST_PROOFS = 2
LONGEST_S = 60.0  # maxSessionTimeout as `failover init` writes it; the guard takes no longer lease


@dataclass(frozen=True)
class Timing:
    """All in seconds, but `drift`, which is a share: 0.01 is one second in a hundred."""

    session_s: float
    tick_s: float = 0.2
    drift: float = 0.01
    freeze_s: float = 0.05
    margin_s: float = 0.05
    renewals: int = 6  # per lease: two may be lost, for one counts only when a later one is acknowledged
    grant_s: float = 0.6  # the length of a grant
    grant_freeze_s: float = 0.02  # the guard freezes ahead of the end; the fence lapses in ticks of 10 ms
    grant_margin_s: float = 0.01
    grant_asks: int = 6  # questions per grant: five may be lost
    leader_session_s: float = 1.4  # of the process that leads, or stands by
    grant_proofs: int = 4  # the leader proves that it leads so often in the length of a grant

    def checked(self) -> Timing:
        """These terms, if they are safe; else raises Unsafe. What others go by, as they say, is taken as it is."""
        self._check_terms()
        if self.lease_s < (least_s := self.kept_s / (1 - 4 / self.renewals)):  # told_s and two renewals fit into it
            least = (least_s + self.freeze_s + self.margin_s) / (1 - self.drift)
            raise Unsafe(
                f"a session of {self.session_s:g} s leaves a lease of only {max(self.lease_s, 0):.2f} s, too short "
                f"for a renewal to be lost with ticks of {self.tick_s:g} s",
                hint=f"raise session to at least {math.ceil(10 * least) / 10:.1f} s, or renewals",
            )
        if (promised_s := self.promised_s(self.promise_s)) < 3 * self.ask_s:
            raise Unsafe(
                f"promises of {self.promise_s:.2f} s leave a right of only {max(promised_s, 0):.2f} s",
                hint="raise the session or the renewals, or lower freeze and margin",
            )
        if self.granted_s(self.grant_s) < 3 * self.ask_grant_s:
            raise Unsafe(
                f"a grant of {self.grant_s:g} s leaves a right of only {max(self.granted_s(self.grant_s), 0):.2f} s",
                hint=f"raise grant to at least {math.ceil(1000 * self._least_grant_s()) / 1000:.3f} s",
            )
        if (leads_s := self.leads_s(self.leader_session_s)) < (
            needed_s := self.grant_s + self.told_s(self.prove_s) + self.prove_s / 2
        ):
            least = (needed_s + self.margin_s) / (1 - self.drift)
            raise Unsafe(
                f"a leader's session of {self.leader_session_s:g} s leaves it a lease of only {max(leads_s, 0):.2f} s, "
                f"and whole grants of {self.grant_s:g} s are beyond that while a proof is on its way",
                hint=f"raise leader_session to at least {math.ceil(10 * least) / 10:.1f} s",
            )
        if self.leader_session_s > self.session_s:
            raise Unsafe(
                f"a leader's session of {self.leader_session_s:g} s is longer than a host's",
                hint=f"lower leader_session to {self.session_s:g} s, or raise session",
            )
        return self

    @property
    def sane(self) -> bool:
        """Whether one can reckon with them at all."""
        lengths = (self.session_s, self.tick_s, self.grant_s, self.leader_session_s)
        shares = (self.freeze_s, self.margin_s, self.grant_freeze_s, self.grant_margin_s, self.drift)
        counts = (self.renewals, self.grant_asks, self.grant_proofs)
        return (
            all(map(math.isfinite, (*lengths, *shares)))
            and min(*lengths, self.lease_s) > 0
            and min(counts) >= 1
            and self.drift < 1
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
                self.tick_s >= LEAST_TICK_S,
                f"a tick of {self.tick_s:g} s is shorter than that of zoo.cfg",
                "write its tickTime; failover init makes it 200ms",
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
                self.renewals >= LEAST_RENEWALS and self.grant_asks >= LEAST_ASKS,
                "one renewal or question that is lost would end a right",
                f"renew at least {LEAST_RENEWALS} times per lease, ask at least {LEAST_ASKS} times per grant",
            ),
            (
                self.renewals <= MOST_RENEWALS,
                f"{self.renewals} renewals of a lease are work for ZooKeeper, and prove no more",
                f"write {MOST_RENEWALS} at the most",
            ),
            (
                self.grant_proofs >= LEAST_PROOFS,
                "one late proof that it leads would cut what a leader grants",
                f"prove it at least {LEAST_PROOFS} times per grant",
            ),
            (
                max(self.session_s, self.leader_session_s) <= LONGEST_S,
                f"a session of {max(self.session_s, self.leader_session_s):g} s is longer than ZooKeeper and the guard "
                "allow",
                f"at most {LONGEST_S:g} s; a host that is lost would be waited for so long",
            ),
        )
        for holds, message, hint in demands:
            if not holds:
                raise Unsafe(message, hint=hint)

    @property
    def lease_s(self) -> float:
        """From the sending of a renewal that counts (failover/touches.py) until everything must be frozen."""
        return self.session_s * (1 - self.drift) - self.freeze_s - self.margin_s

    @property
    def renew_s(self) -> float:
        return self.lease_s / self.renewals

    @property
    def kept_s(self) -> float:
        """For so long a server of ZooKeeper may keep to itself what it has heard of a session: it is asked for it every
        half tick, and this allows the question to be three times as late as that."""
        return 2 * self.tick_s / (1 - self.drift)

    def told_s(self, pause_s: float) -> float:
        """How old the newest request that counts is before the next one is answered, when they come in such pauses."""
        return (math.floor(self.kept_s / pause_s) + 2) * pause_s

    @property
    def promise_s(self) -> float:
        """For so long a host promises not to start what another one owns: as long as a lease is."""
        return self.lease_s

    @property
    def ask_s(self) -> float:
        """The pause between two questions. Datagrams get lost: several in a row may be."""
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

    def leads_s(self, session_s: float) -> float:
        """From the sending of a proof that counts until the leader grants nothing, in a session of this length. 0 or
        less: it never grants."""
        return min(session_s, self.leader_session_s) * (1 - self.drift) - self.margin_s

    @property
    def prove_s(self) -> float:
        """The pause between two proofs that a leader leads, while it is asked for grants."""
        return self.grant_s / self.grant_proofs

    def _least_grant_s(self) -> float:
        return (self.grant_freeze_s + self.grant_margin_s) / (1 - self.drift - 3 / self.grant_asks)

    def with_session(self, negotiated_s: float) -> Timing:
        """ZooKeeper decides how long a session is; a shorter one than asked for shortens the lease."""
        return replace(self, session_s=min(negotiated_s, self.session_s))

    def proof(self) -> str:
        return (
            f"a host renews every {self.renew_s:.2f} s, is frozen {self.lease_s:.2f} s after the last renewal "
            f"that counts, and can be taken over no earlier than {self.session_s:.2f} s after it; "
            f"without ZooKeeper it asks the others every {self.ask_s:.2f} s, is frozen "
            f"{self.promised_s(self.promise_s):.2f} s after the last question that all of them answered, "
            f"and none of them starts it earlier than {self.promise_s:.2f} s after it"
        )


PROFILES = {
    "fast": Timing(session_s=2.0, grant_s=0.2, leader_session_s=1.2).checked(),
    "normal": Timing(session_s=4.0, grant_s=0.6, leader_session_s=1.4).checked(),
    "patient": Timing(session_s=10.0, grant_s=2.0, leader_session_s=4.0).checked(),
}
