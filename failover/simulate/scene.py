"""What all that is simulated shares: the clock, the links, the store, the traits, and what is written down.

Rule: whoever changes something that an invariant speaks of calls `touch`; whoever does more than the regular rounds of
an idle cluster calls `stir`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from failover.model import Cluster
from failover.simulate.clock import EPOCH, Scheduler
from failover.simulate.links import Links
from failover.simulate.znodes import World
from failover.stories.outcome import Outcome
from failover.stories.story import Traits
from failover.timing import Timing

__all__ = ["Loss", "Outcome", "Scene", "Written"]


class Written(NamedTuple):
    """One change that a vserver made in its tree."""

    vserver: str
    size_bytes: int
    at: float  # virtual time


@dataclass(frozen=True)
class Loss:
    """What a takeover did not find in the replica that it started."""

    vserver: str
    at: float
    size_bytes: int
    age_s: float  # of the oldest change that is missing


class Scene:
    def __init__(self, cluster: Cluster, traits: Mapping[str, Traits], seed: int) -> None:
        self.scheduler = Scheduler()
        self.cluster, self.traits, self.seed = cluster, traits, seed
        self.links = Links(cluster.hosts, self._line_changed)
        self.world = World(lambda: EPOCH + self.scheduler.now, cluster.timing)
        self.line_changed: Callable[[], None] = lambda: None
        self.story: list[tuple[float, str]] = []
        self.violations: list[str] = []
        self.written: list[Written] = []  # a tree's content is a set of indices into it
        self.started: dict[tuple[str, str], None] = {}
        self.stopped: dict[tuple[str, str], None] = {}
        self.check_fails: dict[str, tuple[float, float]] = {}  # vserver -> from when until when, virtual time
        self.ailing: dict[str, str] = {}  # vserver -> what has really failed about it
        self.dirty = False
        self.stirred_at = 0.0
        self._failed: dict[tuple[str, str], int] = {}

    @property
    def now(self) -> float:
        return self.scheduler.now

    @property
    def timing(self) -> Timing:
        return self.cluster.timing

    def random(self, purpose: str) -> Random:
        return Random(f"{self.seed}/{purpose}")

    def say(self, text: str) -> None:
        self.story.append((self.scheduler.now, text))
        self.stir()

    def breach(self, number: int, text: str) -> None:
        line = f"{self.scheduler.now:9.3f} s  invariant {number}: {text}"
        if not any(known.partition("  ")[2] == line.partition("  ")[2] for known in self.violations[-20:]):
            self.violations.append(line)
            self.say(f"INVARIANT {number} BROKEN: {text}")

    def touch(self) -> None:
        self.dirty = True

    def stir(self) -> None:
        self.stirred_at = self.scheduler.now

    def traits_of(self, vserver: str) -> Traits:
        return self.traits.get(vserver, Traits())

    def fails(self, vserver: str, trait: str, times: int) -> bool:
        """Whether it fails once more, of so many times."""
        so_far = self._failed.get((vserver, trait), 0)
        if so_far >= times:
            return False
        self._failed[vserver, trait] = so_far + 1
        self.ailing[vserver] = f"its {trait} fails"
        return True

    def _line_changed(self) -> None:
        self.stir()
        self.touch()
        self.line_changed()
