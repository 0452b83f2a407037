"""The watchdog of a simulated host, where the story gives it one: it resets the host when the guard does not feed it.

Rule 1: it is fed while the guard works and all whose end is past stands still or is gone (agents/watchdog.py).
Rule 2: it stands still with a host that stalls: what is paused as a whole is paused with its watchdog.
"""

from __future__ import annotations

from collections.abc import Callable

from failover.simulate.clock import Entry, Scheduler

LOOK_S = 1.0
TIMEOUT_S = 14.0  # after the look that finds it not fed: 15 s at the most, 12 s at the least


class Watchdog:
    """`fed`: whether it is now. `reset` is called once, and ends it."""

    def __init__(self, scheduler: Scheduler, fed: Callable[[], bool], reset: Callable[[], None]) -> None:
        self._scheduler, self._fed, self._reset = scheduler, fed, reset
        self._look: Entry | None = None
        self._bites: Entry | None = None

    def begin(self) -> None:
        self.end()
        self._look_on()

    def end(self) -> None:
        """The host has no power."""
        for entry in (self._look, self._bites):
            self._scheduler.cancel(entry)
        self._look = self._bites = None

    def _look_on(self) -> None:
        if self._fed():
            self._scheduler.cancel(self._bites)
            self._bites = None
        elif self._bites is None:
            self._bites = self._scheduler.after(TIMEOUT_S, self._bite)
        self._look = self._scheduler.after(LOOK_S, self._look_on, soft=True)

    def _bite(self) -> None:
        if self._fed():
            self._bites = None
            return
        self.end()
        self._reset()
