"""When a story's events happen in a lab: long waits are shortened, as far as nothing that takes time is left out.

    story     0 s ─────────── 100 s power-off h1 ─────────── 400 s power-on h1 ─────────── 1200 s the end
    lab       0 s ─ 3 s power-off h1 ─ 28 s power-on h1 ─ (failback auto 5m, and a little more) ─ the end

Rule 1: no wait is longer than the story's, so what is not over there is not over here.
Rule 2: what is over in the story between two events (a failback, max_data_loss, …) is over here too: the wait between
        them is at least as long as that takes, and SLACK_S.
Rule 3: of all times that obey these two the earliest are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from failover.model import Vserver
from failover.plan.board import BOOT_S, FLAPS, FLAPS_WITHIN_S, RUNS_WELL_S
from failover.plan.starts import LONGEST_S as START_AFTER_S
from failover.stories.events import COMMANDS, STORE, Event
from failover.stories.story import Story

LONGEST_S = 25.0  # more than any takeover, move or restart takes
FIRST_S = 3.0  # before the first event: all runs and is complete
LAST_S = 10.0  # after the last one, to see that nothing more happens
SLACK_S = 15.0
SHORT_S = 6.0  # what lasts no longer could be decided otherwise by a shorter lease than the simulator's

_LEAVES = ("power-off", "isolate", "shutdown")
_RETURNS = ("power-on", "join")
_HEALS = {"cut": "mend", "disk-full": "disk-free", "agent-stop": "agent-start", "store-down": "store-up"}
_LOSES = (*_LEAVES, "cut", "stall", "guard-stop", "guard-hang", "agent-stop", "agent-hang", "takeover", "fence")
_FAILS = ("crash", "stop-by-hand")
_RESTARTS = ("agent-restart", "guard-stop", "store-restart")  # away for as long as a process takes to start
_SHUTS = ("shutdown", "reboot")


@dataclass(frozen=True)
class Pace:
    """`times`: of each event. `lengths`: how long it lasts; 0 if it does not end by itself. `end_s`: of the story."""

    times: tuple[float, ...]
    lengths: tuple[float, ...]
    end_s: float

    @property
    def duration_s(self) -> float:
        return max((self.end_s, *(at + length for at, length in zip(self.times, self.lengths, strict=True))))


def paced(story: Story, longest_s: float = LONGEST_S) -> Pace:
    events = story.events or ()
    points = _points(story)
    at = _earliest(points, _Timers(story), longest_s)
    ends = {point.number: new for point, new in zip(points, at, strict=True) if point.word == "ends"}
    times = tuple(next(n for p, n in zip(points, at, strict=True) if p.event is event) for event in events)
    lengths = tuple(ends.get(number, times[number]) - times[number] for number in range(len(events)))
    return Pace(times, lengths, at[[point.word for point in points].index("end")])


def timing(story: Story) -> str:
    """What a lab writes where the story names no timing: fast, unless something in it is as short as a lease may be."""
    points = _points(story)
    at = sorted({point.at_s for point in points})
    short = any(0 < later - earlier <= SHORT_S for earlier, later in pairwise(at))
    return "normal" if short or any(point.word in _RESTARTS for point in points) else "fast"


@dataclass(frozen=True)
class _Point:
    """A moment of the story: its beginning, an event, what ends an event, the end."""

    at_s: float
    word: str
    number: int = -1
    event: Event | None = None

    @property
    def host(self) -> str:
        return self.event.host if self.event else ""


def _points(story: Story) -> list[_Point]:
    found = [_Point(0.0, "begin"), _Point(story.until_s, "end")]
    for number, event in enumerate(story.events or ()):
        found.append(_Point(event.at_s, event.word, number, event))
        if lasts(event):
            found.append(_Point(event.at_s + event.length_s, "ends", number))
    return sorted(found, key=lambda point: (point.at_s, point.word == "end"))


def lasts(event: Event) -> bool:
    """Whether it ends by itself after a time that the story names."""
    return event.word in ("stall", "agent-hang", "guard-hang", "leader-hang")


def _earliest(points: Sequence[_Point], timers: _Timers, longest_s: float) -> list[float]:
    """The least times that keep every pair of points as far apart as it must be, and no farther than in the story."""
    most = {(a, b): points[b].at_s - points[a].at_s for b in range(len(points)) for a in range(b)}
    least = {pair: _least(points, pair, wait_s, timers, longest_s) for pair, wait_s in most.items()}
    at = [0.0] * len(points)
    changed = True
    while changed:
        changed = False
        for (a, b), wait_s in most.items():
            earlier, later = max(at[a], at[b] - wait_s), max(at[b], at[a] + least[a, b])
            if earlier > at[a] + 1e-6 or later > at[b] + 1e-6:
                at[a], at[b], changed = earlier, later, True
    return at


def _least(points: Sequence[_Point], pair: tuple[int, int], wait_s: float, timers: _Timers, longest_s: float) -> float:
    a, b = points[pair[0]], points[pair[1]]
    usual_s = 0.0
    if pair[1] == pair[0] + 1 or (b.word == "ends" and b.number == a.number):
        usual_s = FIRST_S if a.word == "begin" else LAST_S if b.word == "end" else longest_s
    over = [time_s for time_s in timers.between(a, b) if time_s <= wait_s]
    return min(wait_s, max([usual_s, *(time_s + SLACK_S for time_s in over)]))


class _Timers:
    """What may be over, or may happen, once two points are so many seconds apart."""

    def __init__(self, story: Story) -> None:
        self._story, self._events = story, story.events or ()
        clusters = (story.cluster, *(event.cluster for event in self._events if event.cluster is not None))
        self._vservers: list[Vserver] = [v for cluster in clusters for v in cluster.vservers.values()]
        self._alone = list(_without_leader(story))
        lost = [event.host for event in self._events if event.word in _LOSES]
        self._flapping = {host for host in lost if host and lost.count(host) >= FLAPS}

    def between(self, a: _Point, b: _Point) -> Iterator[float]:
        for vserver in self._vservers:
            if vserver.failback_s is not None and a.word != "begin":
                yield vserver.failback_s
            if vserver.keep_s and a.word in _SHUTS:
                yield vserver.keep_s
            if vserver.stale_wait_s and a.word in _LOSES:
                yield vserver.stale_wait_s
            if a.word in _FAILS and b.word in _FAILS:
                yield vserver.restart.within_s
            if b.word in _LOSES and self._falls_behind(a, b):
                yield vserver.max_data_loss_s
            if vserver.start_after:
                yield START_AFTER_S
        if a.word in _FAILS and (b.word in _LOSES or b.word in COMMANDS):
            yield RUNS_WELL_S
        if self._flapping and (a.host in self._flapping or a.word == "begin"):
            yield FLAPS_WITHIN_S
        yield from (BOOT_S for began, ended in self._alone if a.at_s in (began, ended))

    def _falls_behind(self, a: _Point, b: _Point) -> bool:
        """Whether a replica that `a` lets fall behind could be wanted after `b`."""
        if a.word in _LEAVES and a.host != b.host:
            returns = [event.at_s for event in self._events if event.word in _RETURNS and event.host == a.host]
            later = [at_s for at_s in returns if at_s > a.at_s]
            return bool(later) and later[0] > b.at_s
        if a.word in _HEALS:
            healed = [event for event in self._events if event.word == _HEALS[a.word] and event.at_s > a.at_s]
            return not any(event.at_s <= b.at_s and _same(event, a.event) for event in healed)
        return False


def _same(one: Event, other: Event | None) -> bool:
    return other is not None and (one.host, set(one.links)) == (other.host, set(other.links))


def _without_leader(story: Story) -> Iterator[tuple[float, float]]:
    """From when until when no host could lead, for so long that each host may then be slow to boot; the beginning too,
    where a host is off from the start."""
    off = {host for host in story.cluster.hosts if not story.initial.power.get(host, True)}
    if off:
        yield 0.0, 0.0
    off_line, cut, store_down = set[str](), set[tuple[str, str]](), False
    since: float | None = None
    for event in story.events or ():
        off = _with(off, event.host, event.word in ("power-off", "shutdown"), event.word == "power-on")
        off_line = _with(off_line, event.host, event.word == "isolate", event.word == "join")
        cut = cut | set(event.links) if event.word == "cut" else cut - set(event.links)
        cut = {link for link in cut if not (event.word == "join" and event.host in link)}
        store_down = (store_down or event.word == "store-down") and event.word != "store-up"
        deaf = {host for link in cut if STORE in link for host in link}
        able = set(story.cluster.hosts) - off - off_line - deaf
        if since is None and (store_down or not able):
            since = event.at_s
        elif since is not None and not store_down and able:
            if event.at_s - since >= BOOT_S:
                yield since, event.at_s
            since = None
    if since is not None:
        yield since, since


def _with(hosts: set[str], host: str, comes: bool, goes: bool) -> set[str]:
    return hosts | {host} if comes else hosts - {host} if goes else hosts
