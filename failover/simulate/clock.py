"""Virtual time: a queue of actions, and the clocks of the hosts as functions of it.

Rule 1: nothing happens but in an action of the queue; equal times are served in the order in which they were asked for.
Rule 2: a soft entry belongs to the regular rounds of an idle cluster. When idle time is left out, all soft entries move
        along (`skip`); the others stay where they are, and no time is left out across one of them. A regular entry is
        a soft one that keeps no idle time from being left out, for there is always another one.
Rule 3: a host's boot time goes on while the host is stalled, and begins anew when it is switched on.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]

EPOCH = 1_800_000_000.0  # the store's clock and the hosts' wall clocks when a story begins


class Entry:
    """Something that is to happen. `action` is None when it is cancelled or has happened."""

    __slots__ = ("action", "order", "regular", "soft", "time")

    def __init__(self, time: float, order: int, action: Action, soft: bool, regular: bool) -> None:
        self.time, self.order, self.soft, self.regular = time, order, soft, regular
        self.action: Action | None = action

    def __lt__(self, other: Entry) -> bool:
        return (self.time, self.order) < (other.time, other.order)


class Scheduler:
    """`after_each` is called after every action."""

    def __init__(self, after_each: Action = lambda: None) -> None:
        self.now = 0.0
        self.after_each = after_each
        self.done = 0  # actions performed
        self._queue: list[Entry] = []
        self._order = 0

    def at(self, time: float, action: Action, *, soft: bool = False, regular: bool = False) -> Entry:
        self._order += 1
        entry = Entry(max(time, self.now), self._order, action, soft, regular)
        heapq.heappush(self._queue, entry)
        return entry

    def after(self, delay_s: float, action: Action, *, soft: bool = False, regular: bool = False) -> Entry:
        return self.at(self.now + delay_s, action, soft=soft, regular=regular)

    @staticmethod
    def cancel(entry: Entry | None) -> None:
        if entry is not None:
            entry.action = None

    def step(self, until: float) -> bool:
        """The next action, if it is due before or at `until`; else the time is `until`."""
        while self._queue and self._queue[0].time <= until:
            entry = heapq.heappop(self._queue)
            action = entry.action
            if action is None:
                continue
            self.now, entry.action = entry.time, None
            self.done += 1
            action()
            self.after_each()
            return True
        self.now = max(self.now, until)
        return False

    def busy_until(self, length_s: float) -> bool:
        """Whether anything is due so soon, beside what always is."""
        due = (entry for entry in self._queue if entry.action is not None and entry.time < self.now + length_s)
        return any(not entry.regular for entry in due)

    def next_hard(self) -> float | None:
        """When the next entry is due that no idle time may be left out across."""
        return min((entry.time for entry in self._queue if entry.action is not None and not entry.soft), default=None)

    def skip(self, length_s: float) -> None:
        """Leave out so much idle time."""
        self.now += length_s
        self._queue = [entry for entry in self._queue if entry.action is not None]
        for entry in self._queue:
            if entry.soft:
                entry.time += length_s
        heapq.heapify(self._queue)


class Clock:
    """One host's clocks: boot time, which may run fast or slow, and the wall clock, which may jump."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._since, self._shown = scheduler.now, 0.0  # boot time was `_shown` at `_since`
        self._ahead_s = 0.0
        self.rate = 1.0

    def boot(self, uptime_s: float = 0.0) -> None:
        self._since, self._shown = self._scheduler.now, uptime_s

    def drift(self, share: float) -> None:
        """0.01: it gains one second in a hundred."""
        self._since, self._shown, self.rate = self._scheduler.now, self.now(), 1.0 + share

    def jump(self, length_s: float) -> None:
        self._ahead_s += length_s

    def now(self) -> float:
        """Boot time in seconds."""
        return self._shown + (self._scheduler.now - self._since) * self.rate

    def wall(self) -> float:
        return EPOCH + self._scheduler.now + self._ahead_s

    def when(self, boot_time: float) -> float:
        """The virtual time at which the boot time will be this."""
        return self._since + (boot_time - self._shown) / self.rate
