"""The lease arithmetic: how long a host may run what it owns after it last proved that its session lives.

    host     send renewal ──────────────────────────▶ lease over: frozen          (counted from SENDING)
    ZooKeeper        └─ hears of it ─────────────────────────────▶ session expires (counted from HEARING, later)

A follower may tell ZooKeeper's leader of a session's activity one tick late, and the expiry is found at ticks, so
two ticks are given away; the two clocks may drift apart by `drift` of the session; freezing takes `freeze_s`.

Rule: a host's lease is over, and all it ran is frozen, before ZooKeeper can end its session. `Timing` cannot be built
otherwise. Source of the figures: measurements with ZooKeeper 3.8 (tick 200 ms), docs/safety.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover.errors import Unsafe


@dataclass(frozen=True)
class Timing:
    """All in seconds, but `drift`, which is a share: 0.01 is one second in a hundred."""

    session_s: float
    tick_s: float = 0.2
    drift: float = 0.01
    freeze_s: float = 0.05
    margin_s: float = 0.05
    renewals: int = 4  # renewals per lease: three may be lost

    def __post_init__(self) -> None:
        if self.lease_s < 4 * self.tick_s:
            least = (4 * self.tick_s + 2 * self.tick_s + self.freeze_s + self.margin_s) / (1 - self.drift)
            raise Unsafe(
                f"a session of {self.session_s:g} s leaves a lease of only {max(self.lease_s, 0):.2f} s",
                hint=f"raise the session to at least {least:.1f} s",
            )

    @property
    def lease_s(self) -> float:
        """From the sending of an acknowledged renewal until everything must be frozen."""
        return self.session_s * (1 - self.drift) - 2 * self.tick_s - self.freeze_s - self.margin_s

    @property
    def renew_s(self) -> float:
        return self.lease_s / self.renewals

    def with_session(self, negotiated_s: float) -> Timing:
        """ZooKeeper decides how long a session is; a shorter one than asked for shortens the lease."""
        return Timing(
            min(negotiated_s, self.session_s), self.tick_s, self.drift, self.freeze_s, self.margin_s, self.renewals
        )

    def proof(self) -> str:
        return (
            f"a host renews every {self.renew_s:.2f} s, is frozen {self.lease_s:.2f} s after its last renewal, "
            f"and can be taken over no earlier than {self.session_s:.2f} s after it"
        )


PROFILES = {"fast": Timing(session_s=2.0), "normal": Timing(session_s=4.0), "patient": Timing(session_s=10.0)}
