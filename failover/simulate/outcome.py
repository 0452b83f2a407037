"""What became of a story, compared with what it expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from failover.model import frozen_map
from failover.simulate.story import Move


@dataclass(frozen=True)
class Outcome:
    """What the simulator hands back."""

    final: Mapping[str, str]  # vserver -> "started@h1", "stopped@h1", "error@h1", "frozen@h1", "waiting", "removed", …
    fenced: frozenset[str] = frozenset()  # hosts that were declared dead
    moves: tuple[Move, ...] = ()  # in the order of time
    rejected: int = 0  # commands that were refused
    violations: tuple[str, ...] = ()  # invariants that broke, each as a line with its time
    story: tuple[str, ...] = ()  # one line per thing that happened, each beginning with its time: "  12.300 s  …"
    outages: Mapping[str, tuple[float, ...]] = field(default_factory=frozen_map)  # vserver -> seconds each
    lost: Mapping[str, tuple[float, ...]] = field(
        default_factory=frozen_map
    )  # vserver -> seconds of data, per takeover
    started: frozenset[tuple[str, str]] = frozenset()  # (vserver, host): the agent there began to start it
    stopped: frozenset[tuple[str, str]] = frozenset()  # (vserver, host): the agent there began to stop it
