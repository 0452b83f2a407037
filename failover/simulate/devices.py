"""The simulated devices that cut the hosts' power, as the leader of one host reaches them: they depend on no link and
not on the host's own power.

    works    some seconds, then the host has no power, and a moment later the leader is told
    fails    the same time, then the leader is told so
    hangs    nothing happens until the attempt is given up

Rule: what was begun goes on without its leader, as a process would; but not without its leader's host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum, auto
from random import Random
from typing import Protocol

from failover.fencing import DEADLINE_S, Ended
from failover.model import Fence
from failover.plan.fencing import CAME_BACK
from failover.simulate.body import Body
from failover.simulate.process import Process
from failover.simulate.scene import Scene

TAKES_S = (2.0, 4.0)
TOLD_S = 0.2  # the status is asked for


class Mood(StrEnum):
    WORKS = auto()
    FAILS = auto()
    HANGS = auto()


class Switched(Protocol):
    """A host, as far as its outlet goes."""

    body: Body

    def power_off(self) -> None: ...


class Outlets:
    """The devices themselves; `of`: what hangs on each."""

    def __init__(self, scene: Scene, of: Callable[[str], Switched]) -> None:
        self.scene, self.of = scene, of
        self.moods: dict[str, Mood] = {}
        self.takes_s: dict[str, float] = {}


class SimulatedDevices:
    """`process`: the leader's; `powered`: whether its host is."""

    def __init__(self, outlets: Outlets, process: Process, powered: Callable[[], bool], random: Random) -> None:
        self._outlets, self._process, self._powered, self._random = outlets, process, powered, random
        self._under_way: dict[str, float] = {}
        self._ended: list[Ended] = []

    def cut(self, host: str, fence: Fence, began_at: float) -> None:
        scene, mood = self._outlets.scene, self._outlets.moods.get(host, Mood.WORKS)
        scene.say(f"{fence.agent} begins to cut the power of {host}")
        self._under_way[host] = began_at
        takes_s = self._outlets.takes_s.get(host, self._random.uniform(*TAKES_S))
        if mood is Mood.HANGS:
            self._later(DEADLINE_S, host, began_at, f"it did not end within {DEADLINE_S:g} s")
        elif mood is Mood.FAILS:
            self._later(takes_s, host, began_at, "action=off ended with 1")
        else:
            scene.scheduler.after(takes_s, lambda: self._off(host, began_at))

    def _off(self, host: str, began_at: float) -> None:
        if self._powered() and self._under_way.get(host) == began_at:
            self._outlets.of(host).power_off()
            self._later(TOLD_S, host, began_at, "")

    def _later(self, delay_s: float, host: str, began_at: float, because: str) -> None:
        def over() -> None:
            if self._under_way.get(host) == began_at:
                body = self._outlets.of(host).body
                body.known_off = body.known_off or (not because and not body.powered)
                self._end(host, because or ("it says that the host is on" if body.powered else ""))

        self._process.after(delay_s, over)

    def _end(self, host: str, because: str) -> None:
        began_at = self._under_way.pop(host)
        self._ended.append(Ended(host, began_at, not because, because))
        self._process.wake()

    def give_up(self, host: str = "") -> None:
        for name in [name for name in self._under_way if host in ("", name)]:
            self._outlets.scene.say(f"the power of {name} is not cut any more")
            self._end(name, CAME_BACK)

    def ended(self) -> Sequence[Ended]:
        ended, self._ended = self._ended, []
        return ended


MOODS: Mapping[str, Mood] = {"fence-works": Mood.WORKS, "fence-fails": Mood.FAILS, "fence-hangs": Mood.HANGS}
