"""A whole story on real processes, judged like the simulator's: same words, same outcome.

    read ─▶ refuse what no lab can do ─▶ a lab of its own ─▶ 0 s ─▶ events, in time ─▶ the expected end ─▶ outcome
                                                              └── watched from outside, every 10 ms ──┘

Rule 1: a command is given as an operator gives it, without waiting for what becomes of it; its exit code says whether
        it was refused.
Rule 2: what is expected is waited for, but no longer than the story would, and GRACE_S.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from agents.command import CommandFailed
from failover.errors import FailoverError
from failover.lab import cgroups, faults, judge, logs
from failover.lab.ability import refuse
from failover.lab.caller import Caller
from failover.lab.lab import Lab
from failover.lab.later import Later
from failover.lab.outlets import Outlets
from failover.lab.pace import LONGEST_S, Pace, lasts, paced, timing
from failover.lab.play import in_time
from failover.lab.stage import Stage
from failover.lab.watch import WatchAll
from failover.model import Vserver
from failover.stories.events import COMMANDS, Event
from failover.stories.outcome import Outcome, differences
from failover.stories.reading import Opened

GRACE_S = 90.0
LOOK_S = 1.0
DEPARTING_S = 1.0  # before a power-on is tried again while the host is still being shut down

Say = Callable[[str], None]


def perform(
    opened: Opened, lab: Lab, cluster: str, say: Say, *, speed: float = 1.0, longest_s: float = LONGEST_S
) -> tuple[Outcome, tuple[str, ...]]:
    """The outcome, and its differences from what is expected. `speed`: divides the waits between events.

    `lab`: down, or up from the story before; the caller takes it away. `cluster`: a name of its own for this story.
    """
    refuse(opened)
    stage = Stage(opened, lab, cluster, timing(opened.story))
    stage.set_up(say)
    return Performance(opened, stage, paced(opened.story, longest_s), say, speed).play()


class Performance:
    """`stage`: set up. Another one than a story's may have other company, and may expect more (chaos_run.py)."""

    def __init__(self, opened: Opened, stage: Stage, pace: Pace, say: Say, speed: float) -> None:
        self._story, self._stage, self._pace, self._say, self._speed = opened.story, stage, pace, say, speed
        self._lab = stage.lab
        self._status, self._history, self._store_down = stage.status(), stage.history(), False
        self._lines: list[tuple[float, str]] = []  # seconds since 0 s
        self._rejected = 0
        self._went_on: list[float] = []
        self._by_hand: dict[str, list[float]] = {}
        self._departing: set[str] = set()
        self._old = len(self._history)
        self._logs = logs.Logs(self._lab)
        self._watch = WatchAll(self._lab, stage.addresses)
        self._began, self._began_at = time.monotonic(), time.time()

    def play(self) -> tuple[Outcome, tuple[str, ...]]:
        self._tell_pace()
        with self._watch, self._company(), Outlets(self._lab):
            self._began, self._began_at = time.monotonic(), time.time()
            events = enumerate(self._story.events or ())
            times = [at / self._speed for at in self._pace.times]
            in_time(((times[n], event.text, partial(self._happen, n, event)) for n, event in events), self._tell)
            end = self._pace.end_s / self._speed
            time.sleep(max(0.0, self._began + end - time.monotonic()))
            return self._end()

    def _company(self) -> AbstractContextManager[object]:
        """Whoever is there beside the watch: somebody must call the vservers."""
        return Caller(self._lab, [address for addresses in self._stage.addresses.values() for address in addresses])

    def _lacks(self) -> tuple[str, ...]:
        """What else is not yet as it must be at the end, as far as the last status says."""
        return ()

    def _tell_pace(self) -> None:
        took, told = self._pace.duration_s / self._speed, self._story.until_s
        if took < told - 1.0:
            self._say(f"the story's {told:g} s are shortened to about {took:.0f} s")

    def _tell(self, at_s: float, text: str, refused: FailoverError | None) -> None:
        why = (getattr(refused, "stderr", "") or str(refused)).removeprefix("failover: ") if refused else ""
        self._say(f"{at_s:8.3f} s  {text}" + (f"  refused: {why}" if refused else ""))
        self._lines.append((at_s, f"event: {text}"))
        if refused:
            self._lines.append((at_s, f"refused: {why}"))

    # --- events -------------------------------------------------------------------------------------------------------

    def _happen(self, number: int, event: Event) -> Later | None:
        if event.word in COMMANDS:
            self._obey(number, event)
            return None
        if event.word == "power-on" and event.host in self._departing:
            return Later(DEPARTING_S, "", partial(self._happen, number, event))
        if event.word in ("store-down", "store-restart"):
            self._look_before_it_goes()
        self._store_down = (self._store_down or event.word == "store-down") and event.word != "store-up"
        if event.word == "by-hand":
            self._by_hand.setdefault(event.vserver, []).append(time.monotonic())
        if event.word in ("shutdown", "reboot"):
            self._departing.add(event.host)
        text = event.text
        if lasts(event):
            text = shlex.join([event.word, *([event.host] if event.host else []), f"{self._pace.lengths[number]:.3f}s"])
        return self._noting(event, faults.begin(self._lab, text))

    def _noting(self, event: Event, later: Later | None) -> Later | None:
        """`later`, with a note when a host goes on, or has gone."""
        if later is None:
            self._departing.discard(event.host)
            return None

        def do() -> Later | None:
            if event.word == "stall":
                self._went_on.append(time.monotonic())
            return self._noting(event, later.do())

        return Later(later.after_s, later.text, do, later.undo)

    def _obey(self, number: int, event: Event) -> None:
        try:
            if event.cluster is not None:
                self._stage.change(number, event.cluster)
            else:
                self._stage.failover(*shlex.split(event.text), "--no-wait")
        except CommandFailed:
            self._rejected += 1
            raise

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> tuple[Outcome, tuple[str, ...]]:
        last = max((event.at_s for event in self._story.events or ()), default=0.0)
        rest = self._story.until_s - last - (self._pace.end_s - max(self._pace.times, default=0.0))
        deadline = time.monotonic() + max(0.0, min(GRACE_S, rest))
        while True:
            unknown = self._cannot_look()
            outcome = self._outcome()
            differing = (*unknown, *differences(self._story, outcome), *self._lacks())
            if not differing or time.monotonic() > deadline:
                return outcome, differing
            time.sleep(LOOK_S)

    def _cannot_look(self) -> tuple[str, ...]:
        try:
            self._look()
        except FailoverError as error:
            return (f"the cluster does not say how it is: {error}",)
        return ()

    def _look(self) -> None:
        """Ask for status and history; while the store is down there is nothing newer than what is known."""
        if not self._store_down:
            self._status, self._history = self._stage.status(), self._stage.history()

    def _look_before_it_goes(self) -> None:
        """For a story that ends without its store."""
        self._look()

    def _outcome(self) -> Outcome:
        began, now = self._began, time.monotonic()
        seen = self._watch.all_seen()
        runs = {name: sights[-1].runs if sights else () for name, sights in seen.items()}
        frozen = {name: self._frozen(name) for name in seen}
        found = judge.Seen(self._status, self._store_down, runs, frozen)
        later_s = began - self._began_at  # of CLOCK_MONOTONIC than of the wall clock
        unmanaged = {name: judge.unmanaged(self._history, name, later_s) for name in seen}
        excuses = judge.Excuses(self._went_on, self._by_hand, unmanaged)
        broken = sorted(
            breach for name, sights in seen.items() for breach in judge.violations(name, sights, now, excuses)
        )
        history = self._history[self._old :]
        heard = self._logs.since_began()
        said = [(at - self._began_at, text) for at, text in (*judge.lines(history), *heard.lines)]
        breaches = tuple(f"{at - began:9.3f} s  {text}" for at, text in broken)
        return Outcome(
            final={v.name: judge.final(found, v.name, v.primary) for v in self._known()},
            fenced=judge.fenced(self._history),
            moves=judge.moves(history),
            rejected=self._rejected,
            violations=breaches,
            story=tuple(f"{at:9.3f} s  {text}" for at, text in sorted([*self._lines, *said])),
            started=heard.started,
            stopped=heard.stopped,
        )

    def _known(self) -> list[Vserver]:
        """Those of the present cluster, and those that were removed from it."""
        there = self._status["vservers"]
        first = self._story.cluster.vservers
        return [v for name, v in self._stage.vservers.items() if name in there or name in first]

    def _frozen(self, name: str) -> list[str]:
        groups = {host: self._lab.host(host).group.unified / "vserver" / name for host in self._stage.hosts}
        return [host for host, group in groups.items() if cgroups.events(group).get("frozen") == 1]
