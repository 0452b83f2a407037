"""What the lease rests on: the session, which is slow, or the grants of the leader, which are quick; when to change.

    session ── calm ──▶ trying: no renewals; the guard asks ── granted ──▶ right cut ──▶ "rests on grants" is sent
       ▲                  └── nothing is granted ──▶ later again                                   │
       └───── the lease is claimed anew ◀── answers stay away, or are refusals ◀─────── grants ◀───┘

Rule 1: it goes over only when the guard has a grant in hand, upon the very footing that is written upon.
Rule 2: the guard has the cut right before the writing is sent (failover/grants/protocol.py, rule 4).
Rule 3: it goes back at the first trouble, while the rest of the grant is left. One that goes back and forth stays
        longer on its session each time.
Pure: it is handed the store and the time.
"""

from __future__ import annotations

from agents.lease import Granted
from failover.grants.protocol import Footing
from failover.store import Store
from failover.timing import Timing

CALM_S = 2.0  # on the session, at least, before it goes over
CALMEST_S = 60.0  # at most, after many changes
STEADY_S = 60.0  # on grants: what was before is forgotten
NO_GRANT = "nothing was granted in time"


class Resting:
    def __init__(self, store: Store, timing: Timing) -> None:
        self._store, self._timing = store, timing
        self._calm_s = CALM_S
        self._calm_at: float | None = None  # from when it may try again
        self._tried_at: float | None = None  # since when it tries
        self._cut: float | None = None  # the end of the right by all but grants, once it goes over
        self._over_at = self._granted_until = float("-inf")
        self._footing: Footing | None = None
        self.because = ""  # why it is back on its session, or still; empty when nothing has kept it from grants

    @property
    def tries(self) -> bool:
        """Whether renewals are left out, so that the leader may read the record and grant upon it."""
        return self._tried_at is not None

    @property
    def granted(self) -> bool:
        """Whether the lease may rest on grants."""
        return self._store.rest.granted or self._cut is not None

    def footing(self) -> Footing | None:
        """What the guard is to ask upon; None: it is not to ask."""
        if not self.tries and not self.granted:
            self._footing = None
        else:
            self._footing = (
                self._store.footing or self._footing
            )  # while it is claimed anew: that before, as long as it counts
        return self._footing

    def until(self, session: float, granted: Granted) -> float:
        """The end of the right; `session`: of that by the session."""
        if self._cut is None:
            self._granted_until = float("-inf")
            return session
        self._granted_until = max(self._granted_until, granted.until)
        return max(min(session, self._cut) if session > float("-inf") else self._cut, self._granted_until)

    def turn(self, granted: Granted, *, wanted: bool, calm: bool, now: float) -> bool:
        """Decide; whether to go over now: cut the right, have the guard take it, and then `go_over`. `wanted`: as
        cluster.yaml has it, but not by an agent that is about to end; `calm`: the guard takes words, the store is
        fresh, there is a leader."""
        if self.granted:
            self._go_back_in_trouble(granted, now, wanted=wanted)
            return False
        if not wanted or not calm:
            self.because = self.because if wanted else ""
            self._rest_a_while(now)
            return False
        if self._calm_at is None:
            self._calm_at = now + self._calm_s
        if now < self._calm_at:
            return False
        if self._tried_at is None:
            self._tried_at = now
        footing, right_s = self._store.footing, self._timing.granted_s(self._timing.grant_s)
        granted_s = granted.until - now if granted.footing == footing and not granted.troubled else 0.0
        if footing is not None and granted_s > right_s / 2:
            # never longer than the leader knows of, whose terms may be others
            self._cut = min(now + right_s, granted.until)
            return True
        if now >= self._tried_at + self._patience_s:
            self._calm_s = min(2 * self._calm_s, CALMEST_S)
            self.because = granted.because or NO_GRANT
            self._rest_a_while(now)
        return False

    def go_over(self, now: float, *, held: bool) -> None:
        """`held`: the guard has taken the cut right."""
        self._tried_at = None
        if held:
            self._over_at, self.because = now, ""
            self._store.rest_on_grants()
        else:
            self._cut = None

    def look_at(self) -> float:
        """When to decide again at the latest."""
        if self._tried_at is not None:
            return self._tried_at + self._patience_s
        if self._cut is not None:
            return float("inf")  # the guard says so when answers stay away
        return float("inf") if self._calm_at is None else self._calm_at

    @property
    def _patience_s(self) -> float:
        return min(3 * self._timing.grant_s, self._timing.lease_s / 5)

    def _go_back_in_trouble(self, granted: Granted, now: float, *, wanted: bool) -> None:
        rest, footing = self._store.rest, self._store.footing
        if not rest.granted and footing is not None:  # it has been claimed anew
            self._cut = None
            self._rest_a_while(now)
            return
        answered = granted.footing == footing
        over = now > self.until(float("-inf"), granted)
        if rest.settled and footing is not None and (over or not wanted or (answered and granted.troubled)):
            if now < self._over_at + STEADY_S:
                self._calm_s = min(2 * self._calm_s, CALMEST_S)
            else:
                self._calm_s = CALM_S
            self.because = (granted.because or NO_GRANT) if wanted else ""
            self._store.claim_anew()

    def _rest_a_while(self, now: float) -> None:
        self._tried_at, self._calm_at = None, now + self._calm_s
