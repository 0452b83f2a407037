"""One vserver's tree on a simulated host, and what has arrived there of the next generation.

    owner                    backup
    begin ─────────────────▶ an empty staging, if there is room
    bytes, at the line's rate ▶ the staging fills; the tree stays as it is
    commit ────────────────▶ is all there? then what only this tree has is kept aside, and the generation is committed
                             ... and a moment later moved into place: until then the tree is neither old nor new

Rule 1: what was committed is finished before anything else is done with the tree; what was not is dropped.
Rule 2: what is really in a tree (`whole`) is for the invariants alone: nothing that plays may ask it.
These are the promises of agents/replication/incoming.py, which makes generations on a real disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agents.steps import Tree
from failover.model import Replica


@dataclass
class Incoming:
    """What an owner sends: the generation with this content, of which so much is not here yet."""

    source: str
    epoch: int
    generation: int
    content: frozenset[int]
    need_bytes: int
    heard: float | None = None  # when the round began, by the clock of the host that receives it
    arrived_bytes: float = 0.0
    committed: bool = False


@dataclass
class Copy:
    """One vserver's tree. `content`: which of the scene's writes it has; `kept`: those in what was set aside."""

    kind: Tree = Tree.NONE
    generation: int = 0
    epoch: int = 0
    content: frozenset[int] = frozenset()
    diverged: bool = False
    salvaged: tuple[str, ...] = ()
    kept: frozenset[int] = frozenset()
    received_at: float | None = None  # when the newest round began that it has whole, by its host's clock
    incoming: Incoming | None = None
    lacks_bytes: float = 0.0  # of what its generation should have

    @property
    def complete(self) -> bool:
        """As its record has it."""
        return self.kind is Tree.LIVE or (self.kind is Tree.REPLICA and (self.generation > 0 or self.diverged))

    @property
    def whole(self) -> bool:
        """Whether it is one generation and all of it, whatever its record says."""
        moving = self.incoming is not None and self.incoming.committed
        return self.complete and not moving and self.lacks_bytes <= 0

    def replica(self) -> Replica | None:
        if self.kind is not Tree.REPLICA or not self.complete:
            return None
        return Replica(self.generation, self.epoch, self.diverged, self.salvaged)

    def has(self, epoch: int, content: frozenset[int]) -> bool:
        """Whether a round under this epoch has nothing to send."""
        known = self.kind is Tree.REPLICA and self.epoch == epoch and not self.diverged and self.generation > 0
        return known and self.content == content

    def settle(self) -> None:
        """Rule 1."""
        done, self.incoming = self.incoming, None
        if done is None or not done.committed:
            return
        self.kind, self.generation, self.epoch, self.diverged = Tree.REPLICA, done.generation, done.epoch, False
        self.content, self.lacks_bytes = done.content, done.need_bytes - done.arrived_bytes
        self.received_at = done.heard

    def set_aside(self, new: Incoming) -> bool:
        """Keep what only this tree has; whether there was anything."""
        only_here = self.content - new.content - self.kept
        if only_here:
            self.salvaged = (*self.salvaged, f"{new.epoch}-{new.generation}")
            self.kept |= only_here
        return bool(only_here)

    def used_bytes(self, size_bytes: Callable[[int], int]) -> float:
        """What it takes on the disk. `size_bytes`: that of one write."""
        arrived = self.incoming.arrived_bytes if self.incoming is not None else 0.0
        return arrived + sum(size_bytes(number) for number in self.content | self.kept)
