"""What a leader's process does and learns while another one leads: upon its election it waits no longer than it must.

the store is away ──▶ away_s          longer away, longer is the time that hosts need to find it again
nobody leads      ──▶ yields_s        at first to those on whose hosts less is owned (failover/plan/standing.py)
another leads     ──▶ look            now and then at all leases: what rests on grants (failover/grants/granting.py)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from failover.errors import FailoverError
from failover.grants.granting import Granting
from failover.plan import stands_after_s
from failover.plan.standing import LONGEST_S
from failover.store import Store

LOOK_S = 10.0  # nothing is decided by a look, so it may be as old as that
SHORTEST_S = 0.001  # a pause: less could be lost in the rounding of a clock


class Standby:
    """`clock`: monotonic. No call waits for long; the store's errors are its own, unless it says so."""

    def __init__(self, store: Store, host: str, granting: Granting, clock: Callable[[], float]) -> None:
        self._store, self._host, self._granting, self._clock = store, host, granting, clock
        self._led_by: str | None = None  # at last, as far as it has seen
        self._vacant_at: float | None = None  # since when it has seen that nobody leads
        self._looked_at = float("-inf")
        self._steps_back = False  # until somebody leads
        self._away_at: float | None = float("-inf")  # since when the store is away: it is not known for how long it was
        self._away_s = 0.0  # how long it was away the last time, as long as that matters

    def lost(self) -> None:
        """The store is away."""
        self._looked_at = float("-inf")
        self._away_at = self._clock() if self._away_at is None else self._away_at

    def found(self) -> None:
        """The store is there."""
        if self._away_at is not None:
            self._away_s = self._clock() - self._away_at
            self._away_at = None

    def left(self) -> None:
        """This process has stepped down, so that another one may lead: it stands last."""
        self._led_by, self._vacant_at, self._steps_back = self._host, None, True

    def yields_s(self) -> float:
        """For how long it leaves the leadership to hosts that own less."""
        leader = self._store.leader
        if leader is not None or not self._store.fresh:
            self._led_by, self._vacant_at = leader or self._led_by, None
            self._steps_back = self._steps_back and leader is None
            return 0.0
        if self._vacant_at is None:
            self._vacant_at = self._clock()
        try:
            after_s = LONGEST_S if self._steps_back else stands_after_s(self._store.view(), self._host, self._led_by)
        except FailoverError:
            return 0.0  # there is no cluster.yaml yet, or it cannot be understood
        left_s = self._vacant_at + after_s - self._clock()
        return max(left_s, SHORTEST_S) if left_s > 0 else 0.0

    def elected(self) -> tuple[float, float]:
        """For how long it has followed the store without a break; how long that was away before. Raises FailoverError:
        all leases could not be read."""
        self._store.hear()  # leases are not watched: who rests on grants by now is not known yet
        found = self._followed_s(), self._away_s
        self._away_s, self._steps_back = 0.0, False
        return found

    def look(self) -> float:
        """What rested on grants is waited for no more when this process is elected. Returns the seconds until it should
        look again."""
        now = self._clock()
        if now >= self._looked_at + LOOK_S:
            self._looked_at = now
            with contextlib.suppress(FailoverError):
                self._store.hear()
                self._granting.stand_by(self._store.view())
        return min(LOOK_S, self._settles_s())

    def _settles_s(self) -> float:
        """Seconds until it matters no more for how long the store had been away before this process followed it."""
        try:
            left_s = self._granting.timing.session_s - self._followed_s()
        except FailoverError:
            return LOOK_S
        if left_s > 0:
            return left_s
        self._away_s = 0.0
        return LOOK_S

    def _followed_s(self) -> float:
        view = self._store.view()
        return view.now - view.watched_at
