"""The guard of a simulated host, and the kernel's fence: what may run ends when its lease ends.

Rule 1: a vserver that was ever named is frozen at the end that the last word naming it gave; nothing else moves an end.
Rule 2: the fence closes by itself at the same end: it needs neither guard nor agent.
Rule 3: the ends outlive the guard's process, not the host's power.
Rule 4: it thaws at a word that comes after the end.
Rule 5: what has had no word for `kill_after_s` since its end is killed; the time counts anew when the guard is another
        one, or did not look.
Rule 6: what the leader grants is a word for what the newest word names. It asks as agents/asking.py has it.
These are the promises of agents/guard.py and overdue.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from agents.asking import Asking
from agents.lease import Asks, Granted
from failover.grants.protocol import Letter
from failover.simulate.clock import Clock, Entry, Scheduler

LEAD_S = 0.02  # freezing begins so long before the end
LATE_S = 0.05  # so long after the end all must be frozen
LONGEST_S = 60.0  # a word for longer is an error
LAPSED_S = 0.001  # the fence is looked at just after it has closed
KILL_AFTER_S = 600.0  # without a word since the end


class Guard:
    """`freeze`: freeze these, as far as they can be frozen, and say which are there. `thaw`: let these go on. `kill`:
    end these, as far as they can be. `lapsed`: the fence of something has closed. `late`: what still runs here after
    its end, although this guard was at work."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        freeze: Callable[[Collection[str]], Collection[str]],
        thaw: Callable[[Collection[str]], None],
        kill: Callable[[Collection[str]], None],
        lapsed: Callable[[], None],
        late: Callable[[Collection[str]], None],
        send: Callable[[Asks, Letter], None],
        news: Callable[[], None],
    ) -> None:
        self._scheduler, self._clock = scheduler, clock
        self._freeze, self._thaw, self._kill, self._lapsed, self._late = freeze, thaw, kill, lapsed, late
        self.ends: dict[str, float] = {}  # vserver -> boot time
        self.kill_after_s = KILL_AFTER_S
        self._overdue: dict[str, float] = {}  # past its end, but there: since when this guard has looked on, boot time
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
        before, self.asking = self.asking, Asking(self._send, first=self.asking.number)
        if before.asks is not None:
            now = self._clock.now()
            self.asking.resume(before.asks, before.granted(now).until, now)
        self.running, self.hung, self.hung_until = True, False, 0.0
        self.go_on()

    def stop(self) -> None:
        self.running = False

    def power_off(self) -> None:
        self.running, self.hung, self.stalled, self.ends, self._overdue = False, False, False, {}, {}
        self.asking.obey(None, self._clock.now())
        self.leased = ()
        self._scheduler.cancel(self._alarm)
        self._alarm = None

    def go_on(self) -> None:
        """First of all what is overdue."""
        self._works_since, self._overdue = self._scheduler.now, {}
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
            for name in names:
                self._overdue.pop(name, None)
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
        news = self.asking.news(self._clock.now())
        if news is not None and news[1]:
            self._news()

    def hang(self) -> None:
        """Its silence is news: after half of what is left of its grants, as agents/lease.py has it."""
        self.hung = True
        left_s = self.granted().until - self._clock.now()
        if left_s > 0:
            self._scheduler.at(self._clock.when(self._clock.now() + left_s / 2), self._silent)

    def _silent(self) -> None:
        if self.running and self.hung and not self.stalled:
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

    def kills_at(self) -> float | None:
        """When it will kill something, virtual time, if no word comes."""
        if not self.works or not self.kill_after_s or not self._overdue:
            return None
        return self._clock.when(min(self._overdue.values()) + self.kill_after_s)

    def _enforce(self) -> None:
        if not self.works:
            return
        now, before = self._clock.now(), self._overdue
        there = self._freeze([name for name in sorted(self.ends) if self.due(name)])
        self._overdue = {name: before.get(name, now) for name in there}
        if self._overdue.keys() - before.keys():
            self._set_alarm()
        lapsed = [name for name, since in self._overdue.items() if 0 < self.kill_after_s <= now - since + 1e-6]
        if lapsed:
            self._overdue |= dict.fromkeys(lapsed, now)
            self._kill(lapsed)

    def rearm(self) -> None:
        """Its clock runs at another rate."""
        self._set_alarm()

    def _set_alarm(self) -> None:
        """At the next of: freezing begins, the fence has closed, all must be frozen, something is killed."""
        now, times = self._clock.now(), []
        for end in self.ends.values():
            times += [at for at in (end - LEAD_S, end + LAPSED_S, end + LATE_S) if at > now + 1e-9]
        if self.kill_after_s:
            times += [at for since in self._overdue.values() if (at := since + self.kill_after_s) > now + 1e-9]
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
        if self._overdue:
            self._set_alarm()
