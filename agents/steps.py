"""What a host sees of itself, and the steps that change it. Pure data: reconcile decides, machine performs.

A step is idempotent: performed twice it does what it does once, and after a crash it is simply decided again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from failover.model import Capacity, Replica, State, Vserver, frozen_map

FAILURES = 100  # remembered per vserver; whoever allows more restarts than that within one `within` is never in error


class Tree(StrEnum):
    """What lies on this host's disk of one vserver."""

    NONE = "none"
    LIVE = "live"  # /vservers/NAME: this host runs it, or was the last to own it
    REPLICA = "replica"  # kept aside, following an owner


@dataclass(frozen=True)
class Shipped:
    """The newest generation that one backup has acknowledged. `at`: when the sync that made it began (boot time)."""

    generation: int
    epoch: int
    at: float
    final: bool = False  # nothing was written after it: the vserver was stopped before
    took_s: float = 0.0
    rounds: int = 1  # completed under this epoch
    because: str = ""  # why the last attempt after it failed
    tried_at: float = 0.0


@dataclass(frozen=True)
class Failure:
    """One time that it failed: a start that came to nothing, an end that nobody asked for, a failing health check."""

    epoch: int  # the word that it ran or was to run under
    at: float  # boot time
    because: str = ""


@dataclass(frozen=True)
class Bond:
    """This host has promised `holder`, its owner under `epoch`, neither to start nor to thaw it before `until` (boot
    time). Without a holder: it does not know what it has promised, for it was only just booted."""

    holder: str
    epoch: int
    until: float


@dataclass(frozen=True)
class SeenVserver:
    state: State = State.STOPPED
    tree: Tree = Tree.NONE
    since_at: float = 0.0
    because: str = ""  # how it ended, when it ended by itself; or why nothing can be seen of it (state error)
    networked: bool = False  # its network is prepared: its addresses may answer, whatever its processes do
    busy: tuple[str, ...] = ()  # names of the steps under way: "start", "stop", "ship hostB"
    replica: Replica | None = None
    shipped: Mapping[str, Shipped] = field(default_factory=frozen_map)
    failed: Mapping[str, tuple[int, str]] = field(default_factory=frozen_map)  # step name -> (epoch, why)
    marks: Mapping[str, float] = field(default_factory=frozen_map)  # wall clock: begun, promoted, address, started
    failures: tuple[Failure, ...] = ()  # the newest last; bounded
    failing: str = ""  # why its health checks fail now
    by_hand: bool = False  # it runs, and not because this agent started it
    by_hand_epoch: int = 0  # the word's epoch when this agent first saw it so; 0: there was no word
    bond: Bond | None = None  # the newest promise, whether it is over or not
    received_at: float | None = None  # boot time: when the newest round began that the replica here has whole


@dataclass(frozen=True)
class Seen:
    vservers: Mapping[str, SeenVserver] = field(default_factory=frozen_map)
    leaving: bool = False  # this host is being shut down in order
    capacity: Capacity = field(default_factory=Capacity)


@dataclass(frozen=True)
class Start:
    """Promote the replica if the live tree is not there yet, prepare the network, start, announce the addresses.

    `anyway`: also a replica that has diverged; an operator accepts the loss.
    """

    vserver: Vserver
    epoch: int
    host: str
    anyway: bool = False
    name: str = "start"


@dataclass(frozen=True)
class Stop:
    """Stop in order, by the init's own signal; kill what is left after the timeout; take the addresses down.

    `because`: the failure that it is stopped for, to be started again; whoever begins the step remembers it as a
    Failure. Empty: it is wanted stopped.
    """

    vserver: Vserver
    epoch: int
    timeout_s: float = 30.0
    because: str = ""
    name: str = "stop"


@dataclass(frozen=True)
class Kill:
    """Kill without a word: it is frozen, or belongs to another host now."""

    vserver: str
    epoch: int
    name: str = "kill"


@dataclass(frozen=True)
class Freeze:
    vserver: str
    name: str = "freeze"


@dataclass(frozen=True)
class Thaw:
    vserver: str
    name: str = "thaw"


@dataclass(frozen=True)
class Ship:
    """Make the next generation of the live tree complete on one backup."""

    vserver: Vserver
    target: str
    epoch: int
    final: bool = False

    @property
    def name(self) -> str:
        return f"ship {self.target}"


@dataclass(frozen=True)
class Demote:
    """Set the live tree of a former owner aside as a replica, to follow the new owner.

    `generation`: the last one, if the new owner has it whole; else the tree has diverged, and what only it has will be
    salvaged.
    """

    vserver: str
    epoch: int
    generation: int | None = None
    name: str = "demote"


Step = Start | Stop | Kill | Freeze | Thaw | Ship | Demote


def is_tried_again(step: Step) -> bool:
    """Whether whoever performs it remembers as a Failure that it failed: the pause before the next time is counted from
    there. A stop for a failure is one already."""
    return isinstance(step, Start | Kill | Demote) or (isinstance(step, Stop) and not step.because)
