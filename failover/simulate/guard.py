"""The guard of a simulated host, and the kernel's fence: what may run ends when its lease ends.

Rule 1: a vserver that was ever named is frozen at the end that the last word naming it gave; nothing else moves an end.
Rule 2: the fence closes by itself at the same end: it needs neither guard nor agent.
Rule 3: the ends outlive the guard's process, not the host's power.
Rule 4: it thaws at a word that comes after the end, and kills nothing.
Rule 5: what the leader grants is a word for what the newest word names. It asks as agents/asking.py has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from agents.asking import Asking
from agents.lease import Asks, Granted
from failover.grants import Letter
from failover.simulate.clock import Clock, Entry, Scheduler

LEAD_S = 0.02  # freezing begins so long before the end
LATE_S = 0.05  # so long after the end all must be frozen
LONGEST_S = 60.0  # a word for longer is an error
LAPSED_S = 0.001  # the fence is looked at just after it has closed


class Guard:
    """`freeze`: freeze these, as far as they can be frozen. `thaw`: let these go on. `lapsed`: the fence of something
    has closed. `late`: what still runs here after its end, although this guard was at work."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        freeze: Callable[[Collection[str]], None],
        thaw: Callable[[Collection[str]], None],
        lapsed: Callable[[], None],
        late: Callable[[Collection[str]], None],
        send: Callable[[Asks, Letter], None],
        news: Callable[[], None],
    ) -> None:
        self._scheduler, self._clock = scheduler, clock
        self._freeze, self._thaw, self._lapsed, self._late = freeze, thaw, lapsed, late
        self.ends: dict[str, float] = {}  # vserver -> boot time
        self.running = False
        self.hung = self.stalled = False  # it hangs; its host is stalled
        self.hung_until = 0.0  # virtual time
        self._alarm: Entry | None = None
        self._works_since = 0.0
        self._send, self._news = send, news
        self.asking = Asking(send, first=0)
        self.leased: tuple[str, ...] = ()  # what the newest word names, so what a grant is for
        self._asks_at: Entry | None = None

    @property
    def works(self) -> bool:
        return self.running and not self.hung and not self.stalled

    def boot(self) -> None:
        self.ends, self.leased = {}, ()
        self.asking = Asking(self._send, first=self.asking.number)
        self.begin()

    def begin(self) -> None:
        """Also after another one: it knows what that has written down."""
        asks, self.asking = self.asking.asks, Asking(self._send, first=self.asking.number)
        self.asking.obey(asks, self._clock.now())
        self.running, self.hung, self.hung_until = True, False, 0.0
        self.go_on()

    def stop(self) -> None:
        self.running = False

    def power_off(self) -> None:
        self.running, self.hung, self.stalled, self.ends = False, False, False, {}
        self.asking.obey(None, self._clock.now())
        self.leased = ()
        self._scheduler.cancel(self._alarm)
        self._alarm = None

    def go_on(self) -> None:
        """First of all what is overdue."""
        self._works_since = self._scheduler.now
        self._enforce()
        self._ask()

    def extend(self, until: float, names: Collection[str]) -> bool:
        """The same for those that have not come to their end."""
        now = self._clock.now()
        if not self.works or until - LEAD_S <= now or until > now + LONGEST_S:
            return False
        self._put(until, [name for name in names if name in self.ends and not self.due(name)])
        return True

    def obey(self, until: float, names: Collection[str], released: Collection[str], asks: Asks | None = None) -> bool:
        now = self._clock.now()
        if asks is not None and asks == self.asking.asks:
            until = max(until, self.asking.granted(now).until)
        if not self.works or (until - LEAD_S <= now and asks is None) or until > now + LONGEST_S:
            return False
        for name in released:
            self.ends.pop(name, None)
        self.leased = tuple(names)
        self.asking.obey(asks, now)
        self._put(until, names)
        self._ask()
        return True

    def granted(self) -> Granted:
        return self.asking.granted(self._clock.now())

    def hear(self, letter: Letter) -> None:
        """From the leader; one that hangs is taken to hear nothing."""
        if not self.works:
            return
        self._enforce()
        self.asking.hear(letter)
        until = self.granted().until
        later = [name for name in self.leased if self.ends.get(name, until) < until]
        if later and until - LEAD_S > self._clock.now():
            self._put(until, later)
        self._tell()

    def _put(self, until: float, names: Collection[str]) -> None:
        overdue = [name for name in names if self.due(name)]
        for name in names:
            self.ends[name] = until
        if until - LEAD_S > self._clock.now():
            self._thaw(overdue)
        if self._alarm is None or self._alarm.action is None or self._alarm.time > self._clock.when(until - LEAD_S):
            self._set_alarm()

    def _ask(self) -> None:
        """A question, when it is time to, and the next ones."""
        self._scheduler.cancel(self._asks_at)
        if not self.works or self.asking.asks is None:
            return
        self.asking.turn(self._clock.now())
        self._tell()
        at = self._clock.when(self._clock.now() + max(self.asking.wait_s(self._clock.now()), 0.0))
        self._asks_at = self._scheduler.at(at, self._ask, soft=True, regular=True)

    def _tell(self) -> None:
        if self.asking.news(self._clock.now()) is not None:
            self._news()

    def open(self, name: str) -> bool:
        """Whether the fence lets its traffic pass."""
        end = self.ends.get(name)
        return end is None or self._clock.now() < end

    def due(self, name: str) -> bool:
        end = self.ends.get(name)
        return end is not None and self._clock.now() >= end - LEAD_S

    def look(self) -> None:
        """Something was started: when its end is past it is frozen all the same."""
        self._scheduler.after(LATE_S, self._enforce, soft=True)

    def _enforce(self) -> None:
        if self.works:
            self._freeze([name for name in sorted(self.ends) if self.due(name)])

    def rearm(self) -> None:
        """Its clock runs at another rate."""
        self._set_alarm()

    def _set_alarm(self) -> None:
        """At the next of: freezing begins, the fence has closed, all must be frozen."""
        now, times = self._clock.now(), []
        for end in self.ends.values():
            times += [at for at in (end - LEAD_S, end + LAPSED_S, end + LATE_S) if at > now + 1e-9]
        self._scheduler.cancel(self._alarm)
        self._alarm = None
        if times:
            self._alarm = self._scheduler.at(self._clock.when(min(times)), self._ring, soft=True)

    def _ring(self) -> None:
        now = self._clock.now()
        self._enforce()
        if any(end <= now < end + LATE_S for end in self.ends.values()):
            self._lapsed()
        past = [name for name, end in self.ends.items() if end + LATE_S <= now + 1e-6]
        if past and self.works and self._works_since + LATE_S <= self._scheduler.now:
            self._late(sorted(past))
        self._set_alarm()

    def skip(self, length_s: float) -> None:
        """The ends that were moved on all the time; those that are past stay."""
        now = self._clock.now()
        self.ends = {name: end if end <= now - length_s else end + length_s for name, end in self.ends.items()}
        self.asking.skip(length_s)
