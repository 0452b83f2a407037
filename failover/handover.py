"""When the leader hands over to another host, and how.

    another host owns less, has done so for long, and all is quiet ──▶ grant nothing more
    all that was granted is over, and hosts are back on their sessions ──▶ step down; they stand in the order of harm

Rule 1: this is a wish: nothing rests on it, and what is to be done comes first.
Rule 2: nobody knows whether a process stands by on the better host. So each time is twice as long in coming.
"""

from __future__ import annotations

from collections.abc import Callable

PATIENCE_S, LONGEST_S = 600.0, 86_400.0
SHORTEST_S = 0.001  # a pause: less could be lost in the rounding of a clock


class Handover:
    """`clock`: monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._patience_s = clock, PATIENCE_S
        self._better_since: float | None = None
        self._leaves_at: float | None = None

    def elected(self) -> None:
        """A leadership begins, or is over."""
        self._better_since = self._leaves_at = None

    def due(self, *, better: bool) -> bool:
        """`better`: whether another host would be the better one for the leader to run on."""
        if not better:
            self._better_since = None
            return False
        if self._better_since is None:
            self._better_since = self._clock()
        return self._clock() >= self._better_since + self._patience_s

    def begin(self, after_s: float) -> None:
        """Step down after so long."""
        self._leaves_at = self._clock() + after_s
        self._patience_s = min(2 * self._patience_s, LONGEST_S)

    @property
    def left_s(self) -> float | None:
        """Seconds until it steps down; None: it does not."""
        if self._leaves_at is None:
            return None
        left_s = self._leaves_at - self._clock()
        return max(left_s, SHORTEST_S) if left_s > 0 else left_s
