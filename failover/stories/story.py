"""A story file -> Story: a cluster, what happens to it, and how it must end. Every problem at once, with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from failover.model import Cluster, frozen_map
from failover.stories.events import Event


@dataclass(frozen=True)
class Traits:
    """How one vserver misbehaves."""

    fails_start: int = 0  # so many of its starts fail
    fails_start_on: tuple[str, ...] = ()  # on these hosts only; empty: on all
    fails_stop: bool = False  # neither the orderly stop nor the kill works
    fails_freeze: bool = False  # nor does freezing
    fails_move: int = 0  # so many of its handovers fail
    hangs: bool = False


@dataclass(frozen=True)
class Initial:
    """The state at 0 s; without more words all hosts are on, and nothing runs or is owned yet."""

    power: Mapping[str, bool] = field(default_factory=frozen_map)  # a host that is not here is on
    owners: Mapping[str, str] = field(default_factory=frozen_map)
    running: Mapping[str, tuple[str, ...]] = field(default_factory=frozen_map)
    replica_age_s: Mapping[str, Mapping[str, float | None]] = field(default_factory=frozen_map)  # None: no replica
    down_cleanly: tuple[str, ...] = ()  # these are off, too
    recovering: tuple[str, ...] = ()
    watchdog: tuple[str, ...] = ()  # hosts that have one


@dataclass(frozen=True)
class Move:
    vserver: str
    source: str
    target: str
    kind: str  # takeover | planned


@dataclass(frozen=True)
class Expect:
    """None: not checked. What is here is complete."""

    final: Mapping[str, tuple[str, ...]] | None = None  # vserver -> any of these: "started@h1", "waiting"
    fenced: frozenset[str] | None = None
    moves: tuple[Move, ...] | None = None  # in order per vserver
    rejected: int | None = None
    says: tuple[str, ...] = ()  # regular expressions; each must match some line of the story


@dataclass(frozen=True)
class Story:
    id: str
    cluster: Cluster
    until_s: float
    title: str = ""
    traits: Mapping[str, Traits] = field(default_factory=frozen_map)
    initial: Initial = Initial()
    events: tuple[Event, ...] | None = None  # in the order of time; None: the file names none, so they are drawn
    expect: Expect = Expect()
    forbid: tuple[tuple[str, ...], ...] = ()  # ("start", "vA", "h1"), ("any_move_of", "vA"), ("takeover_of", "h1")
