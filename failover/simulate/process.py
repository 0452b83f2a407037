"""One process of a simulated host: turn after turn as failover/daemon.py has it, dead or alive, hanging or not.

Rule 1: what was begun in a process does not happen any more when that process has died.
Rule 2: while it hangs or its host is stalled nothing happens in it; then all does, in order.
Rule 3: a turn that fails is followed by the next, as with a real daemon; but it is a breach: no such error is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from failover.daemon import AGAIN_S, Turner
from failover.simulate.clock import Action, Clock, Entry, Scheduler

WOKEN_S = 0.003  # at most, from being woken to the turn


class Process:
    """`make` builds what turns, when the process is started. `troubled` hears of an error."""

    def __init__(
        self,
        name: str,
        scheduler: Scheduler,
        clock: Clock,
        random: Random,
        make: Callable[[], Turner],
        troubled: Callable[[str], None],
    ) -> None:
        self.name = name
        self._scheduler, self._clock, self._random = scheduler, clock, random
        self._make, self._troubled = make, troubled
        self.alive = self.hung = self.stalled = False
        self.hung_until = 0.0  # virtual time
        self._turner: Turner | None = None
        self._life = 0  # counts the lives
        self._backlog: list[Action] = []
        self._turn_at: Entry | None = None

    @property
    def works(self) -> bool:
        return self.alive and not self.hung and not self.stalled

    @property
    def turner(self) -> Turner | None:
        """The production code, while it lives."""
        return self._turner

    @property
    def life(self) -> int:
        return self._life

    def start(self) -> None:
        if not self.alive:
            self.alive, self.hung, self.hung_until = True, False, 0.0
            self._turner = self._make()
            self.wake()

    def die(self) -> None:
        self._life += 1
        self.alive = self.hung = False
        self._turner, self._backlog = None, []
        self._scheduler.cancel(self._turn_at)
        self._turn_at = None

    def go_on(self) -> None:
        """It hangs no more, or its host does not."""
        if self.works:
            backlog, self._backlog = self._backlog, []
            for due in backlog:
                self._scheduler.after(0.0, due, soft=True)

    def after(self, delay_s: float, action: Action, *, soft: bool = False, regular: bool = False) -> Entry:
        life = self._life

        def due() -> None:
            if life != self._life:
                return
            if self.works:
                action()
            else:
                self._backlog.append(due)

        return self._scheduler.after(delay_s, due, soft=soft, regular=regular)

    def wake(self) -> None:
        """Its next turn follows at once."""
        self._turn_in(self._random.uniform(0.0, WOKEN_S))

    def _turn_in(self, delay_s: float) -> None:
        if not self.alive:
            return
        pending = self._turn_at
        if pending is not None and pending.action is not None:
            if pending.time <= self._scheduler.now + delay_s:
                return
            self._scheduler.cancel(pending)
        self._turn_at = self.after(delay_s, self._turn, soft=True)

    def _turn(self) -> None:
        self._turn_at = None
        if self._turner is None:
            return
        try:
            pause_s = self._turner.turn()
        except Exception as error:
            self._troubled(f"the {self.name} fails: {type(error).__name__}: {error}")
            pause_s = AGAIN_S
        self._turn_in(pause_s / self._clock.rate)
