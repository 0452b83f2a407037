"""The nouns of the cluster, as frozen data.

    cluster.yaml ──▶ Cluster      what the operator declares
    commands     ──▶ Intents      what the operator wishes meanwhile
    the leader   ──▶ Assignment   who owns a vserver, under which epoch
    the agents   ──▶ Report       what a host has seen of itself
    ZooKeeper    ──▶ Lease        whether a host's session lives

Rule 1: no record has two authors.
Rule 2: every word of the leader about a vserver bears the next epoch; whoever obeys it says which epoch it obeyed.
Rule 3: a clock is named where it is stored: `_at` is wall-clock time for people only (seconds since 1970), `store_at`
        is ZooKeeper's clock, and everything else that decides is an age or a length in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from failover.timing import PROFILES, Timing

_K = TypeVar("_K")
_V = TypeVar("_V")

# What a vserver may be called. The name is also that of directories; in one of them lies spawner.sock.
NAME = re.compile(r"(?!spawner\.sock\Z)[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_-])){0,62}")


def frozen_map(mapping: Mapping[_K, _V] | None = None) -> Mapping[_K, _V]:
    """A read-only copy, for the fields of frozen records."""
    return MappingProxyType(dict(mapping or {}))


# --- what the operator declares: cluster.yaml -------------------------------------------------------------------------


class Want(StrEnum):
    STARTED = "started"
    STOPPED = "stopped"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Network:
    """Where the vservers' addresses live on a host: a device that carries macvlans, or a bridge that takes veths."""

    device: str | None = None
    bridge: str | None = None


@dataclass(frozen=True)
class Capacity:
    """What a host has for vservers. None: not declared, so what its agent measured counts."""

    memory_bytes: int | None = None
    cpus: float | None = None


SECRET = "_file"  # the option NAME_file of a fence agent stands for NAME, read from that file when it is needed
_THEIR_OWN = ("identity_file", "debug_file", "cookie_file", "token_file", "status_file")  # the path is what they want


def is_secret(option: str) -> bool:
    return option.endswith(SECRET) and option not in (SECRET, *_THEIR_OWN)


@dataclass(frozen=True)
class Fence:
    """How a host's power is cut from outside: a program of Debian's fence-agents and its options (failover/fencing)."""

    agent: str
    options: Mapping[str, str] = field(default_factory=frozen_map)


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    network: Network = Network(device="eth0")
    tags: tuple[str, ...] = ()
    capacity: Capacity = Capacity()
    fence: Fence | None = None


@dataclass(frozen=True)
class Sync:
    """How a vserver's tree gets to its backups. `every_s`: the pause between two rounds."""

    mode: str = "rsync"
    every_s: float = 5.0
    bandwidth_bytes_s: int | None = None
    exclude: tuple[str, ...] = ()
    snapshot: str = "auto"


class Placement(StrEnum):
    """Which of the hosts that may run a vserver is tried first."""

    ORDERED = "ordered"  # the first as written
    ROOMIEST = "roomiest"  # the one with most free memory
    FRESHEST = "freshest"  # the one with the newest replica


class Stale(StrEnum):
    """What becomes of a vserver whose replicas are all older than its max_data_loss."""

    ASK = "ask"
    TAKE = "take"  # the newest is started


class Shutdown(StrEnum):
    """What becomes of a vserver when its host is shut down in order."""

    MOVE = "move"
    KEEP = "keep"  # it is stopped, waits for its host, and is taken over after `keep_s`
    STOP = "stop"  # it is stopped, and waits for its host


@dataclass(frozen=True)
class Restart:
    """A vserver that fails is started again here `local` times, then moved `moves` times, then it is in error; what
    happened longer than `within_s` ago does not count."""

    local: int = 2
    moves: int = 1
    within_s: float = 600.0


@dataclass(frozen=True)
class Needs:
    memory_bytes: int = 0
    cpus: float = 0.0


@dataclass(frozen=True)
class Check:
    """A health check: exactly one of `tcp` (a port), `http` (a web address), `command`."""

    tcp: int | None = None
    http: str | None = None
    command: tuple[str, ...] = ()
    inside: bool = False  # the command runs in the vserver
    expect: int = 200  # the HTTP status
    every_s: float = 5.0
    timeout_s: float = 1.0
    fails: int = 3  # so many failures in a row make it failing


@dataclass(frozen=True)
class Vserver:
    name: str
    primary: str
    backups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()  # CIDR, IPv4 or IPv6: "10.0.0.101/24"
    gateway: str | None = None
    want: Want = Want.STARTED
    sync: Sync = Sync()
    max_data_loss_s: float = 60.0
    when_stale: Stale = Stale.ASK
    stale_wait_s: float = 0.0  # so long the owner is waited for before anybody is asked
    placement: Placement = Placement.ORDERED
    failback_s: float | None = None  # back to the primary once that has been healthy so long; None: never by itself
    on_host_shutdown: Shutdown = Shutdown.MOVE
    keep_s: float = 0.0
    restart: Restart = Restart()
    priority: int = 100
    together_with: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()
    prefer_together_with: tuple[str, ...] = ()
    prefer_apart_from: tuple[str, ...] = ()
    start_after: tuple[str, ...] = ()
    needs: Needs = Needs()
    checks: tuple[Check, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that may ever run it, in the order of preference."""
        return (self.primary, *self.backups)


@dataclass(frozen=True)
class ZooKeeper:
    servers: tuple[str, ...] = ()  # "10.0.0.1:2181"
    credentials: str = "/etc/failover/zookeeper.secret"


@dataclass(frozen=True)
class Cluster:
    name: str
    hosts: Mapping[str, Host]
    vservers: Mapping[str, Vserver]
    zookeeper: ZooKeeper = ZooKeeper()
    timing: Timing = PROFILES["normal"]
    grants: bool = True  # in quiet times leases rest on the grants of the leader (failover/grants)


# --- what the operator wishes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MoveWish:
    """Obeyed only while the assignment still has this epoch: so it is carried out once, and never lingers."""

    target: str | None  # None: wherever it may run, but not where it is
    epoch: int
    accept_loss: bool = False  # start the target's replica as it is, however old
    stay: bool = True  # it holds until the next failure; False: its way home may follow, as with a failback by hand


@dataclass(frozen=True)
class VserverIntent:
    want: Want | None = None  # None: as cluster.yaml says
    move: MoveWish | None = None
    restart_epoch: int = 0  # stop it and start it again, if the assignment still has this epoch
    removed: bool = False  # the manager has forgotten it; its processes and tree are left alone
    cleared_epoch: int = 0  # errors under this epoch and older are forgiven
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class CutWish:
    """A host's power shall be cut, once. `at`: when that was said, on the store's clock; it tells wishes apart."""

    at: float
    anyway: bool = False  # also if it renews its lease


@dataclass(frozen=True)
class HostIntent:
    drained: bool = False
    until_at: float | None = None  # the drain ends by itself then
    vouched: int | None = None  # an operator vouches that the host is off, while its lease record has this version
    reason: str = ""
    by: str = ""
    at: float = 0.0
    store_at: float = 0.0  # filled in by the store when read: when this was said
    cut: CutWish | None = None


@dataclass(frozen=True)
class ClusterIntent:
    disarmed: bool = False  # the manager starts, stops and moves nothing
    reason: str = ""
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Intents:
    vservers: Mapping[str, VserverIntent] = field(default_factory=frozen_map)
    hosts: Mapping[str, HostIntent] = field(default_factory=frozen_map)
    cluster: ClusterIntent = ClusterIntent()


# --- what the leader says ---------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """Why a vserver has the owner it has."""

    FIRST = "first"  # the first start
    TAKEOVER = "takeover"  # the old owner took no part
    PLANNED = "planned"  # the old owner stopped it and shipped the last changes
    ADOPTED = "adopted"  # found running there


@dataclass(frozen=True)
class Assignment:
    """The leader's word about one vserver.

    While `target` is set, the owner hands it over: it syncs, stops it, ships the last changes and reports `handed`; or,
    when it is to go `unshipped`, it only stops it.
    """

    vserver: str
    owner: str
    epoch: int
    want: Want = Want.STARTED
    target: str | None = None
    unshipped: bool = False  # handed over as it is: stopped, but without a last sync
    kind: Kind = Kind.FIRST
    source: str | None = None  # the last owner that ran it; after a move, until it runs, where it goes back to
    owner_epoch: int = 0  # the epoch under which the present owner became it
    accept_loss: bool = False  # an operator accepted the age of the replica that is to be started
    failed_on: tuple[str, ...] = ()  # hosts on which it failed: no candidates until it has run elsewhere for a while
    unreached: tuple[str, ...] = ()  # hosts to which it could not be moved: no move goes there by itself so soon
    setbacks: tuple[float, ...] = ()  # when such moves failed, the newest last; bounded (failover/plan/patience.py)
    setback: str = ""  # why the last of them did
    mended: tuple[float, ...] = ()  # when it was moved because of a rule, the newest last; bounded
    failed_at: tuple[float, ...] = ()  # when it was moved because it failed, or that was a setback
    pinned: bool = False  # an operator put it there, or it was adopted: it stays until the next failure
    again: bool = False  # wanted stopped only to be started again
    unstarted: bool = False  # it has never run, and may not where its tree is: the target starts it first, or nobody
    unheld: bool = False  # it ran already when its owner got it: no lease ends it before the owner has obeyed
    hosts: tuple[str, ...] = ()  # that may run it as of this word, the owner among them; (): an older failover wrote it
    known_hosts: tuple[
        str, ...
    ] = ()  # until the owner has obeyed this epoch only these may follow it; (): any of hosts
    because: str = ""
    at: float = 0.0
    owned_at: float = 0.0  # since when the present owner has it


@dataclass(frozen=True)
class Hold:
    """A decision to wait. `subject` is a vserver or a host."""

    subject: str
    because: str
    hint: str = ""


class Cut(StrEnum):
    """How far an attempt to cut a host's power is."""

    UNDER_WAY = "under_way"
    OFF = "off"  # the device says that it is off: a proof
    FAILED = "failed"  # this proves nothing


@dataclass(frozen=True)
class Fencing:
    """The last attempt to cut a host's power. `version`: of the host's lease record, read before: while it is the same
    the host has not come back since."""

    version: int
    began_at: float
    state: Cut = Cut.UNDER_WAY
    ended_at: float = 0.0
    because: str = ""  # why it is tried, then why it failed
    failures: int = 0  # in a row, while the lease record stays what it is
    wish_at: float = 0.0  # the newest wish that it answers


@dataclass(frozen=True)
class Memory:
    """What the leader remembers between two looks at the cluster, and a new leader of the one before."""

    losses: Mapping[str, tuple[float, ...]] = field(default_factory=frozen_map)  # per host, the newest last; bounded
    disarmed: bool = False  # an operator's `disarm` has come into force
    fencings: Mapping[str, Fencing] = field(default_factory=frozen_map)  # per host


@dataclass(frozen=True)
class Verdict:
    """Whether a host may run a vserver now; `because` is one line and never empty."""

    host: str
    may: bool
    because: str


@dataclass(frozen=True)
class Event:
    """One line of history. `kind`: takeover | planned | first | adopted | running | failed | lost | returned | …"""

    kind: str
    at: float
    text: str
    vserver: str | None = None
    host: str | None = None
    epoch: int = 0
    facts: Mapping[str, str | float | int | bool | None] = field(default_factory=frozen_map)


# --- what the agents say ----------------------------------------------------------------------------------------------


class State(StrEnum):
    """What a host sees of one vserver on itself."""

    RUNNING = "running"
    FROZEN = "frozen"
    STOPPED = "stopped"
    ERROR = "error"


@dataclass(frozen=True)
class Shipment:
    """What the owner knows of one backup: its newest complete generation (0: none yet), and how old that was when the
    report was written (seconds since the tree was last known to be like it)."""

    generation: int
    age_s: float
    because: str = ""  # why it does not get younger; empty when all is well
    final: bool = False  # nothing was written after it: the vserver was stopped before, so it does not age


@dataclass(frozen=True)
class Replica:
    """A complete copy on a backup: nothing that was torn is ever reported."""

    generation: int
    epoch: int  # the epoch of the owner that shipped it
    diverged: bool = False  # the tree of a former owner, not yet following the new one
    salvaged: tuple[str, ...] = ()  # directories in which what only it had is kept aside
    age_s: float | None = (
        None  # when the report was written, since the last round that it has whole began; None: unknown
    )


@dataclass(frozen=True)
class Promised:
    """The newest promise of a host about one vserver: to `holder`, its owner under `epoch`. No holder: it does not know
    what it had promised before it was booted. `ended_s`: since its end, when it was reported; negative: it runs."""

    holder: str
    epoch: int
    ended_s: float


@dataclass(frozen=True)
class VserverReport:
    state: State
    epoch: int  # the epoch that the agent has obeyed
    since_at: float = 0.0
    because: str = ""  # why it is in error or what it waits for
    handed: int | None = None  # the generation of the final sync to the assignment's target, or 0 for none: all done
    handing_failed: str = ""  # why it could not be handed over; it runs on here
    shipments: Mapping[str, Shipment] = field(default_factory=frozen_map)
    marks: Mapping[str, float] = field(default_factory=frozen_map)  # wall clock: when the last start was how far
    failing: str = ""  # why its health checks fail; empty when they do not
    by_hand: bool = False  # it runs here, but this host's agent did not start it under any word


@dataclass(frozen=True)
class Report:
    host: str
    vservers: Mapping[str, VserverReport] = field(default_factory=frozen_map)
    replicas: Mapping[str, Replica] = field(default_factory=frozen_map)
    leaving: bool = False  # it is being shut down in order
    capacity: Capacity = Capacity()  # as measured
    promised: Mapping[str, Promised] | None = None  # per vserver; None: an older failover wrote it
    cluster_version: int | None = None  # of the `cluster` that it goes by; None: an older failover wrote it
    terms: Timing | None = None  # by which it goes, with the session that it has; None: an older failover wrote it
    on_session: str = ""  # why its lease rests on its session, where grants are wanted; empty when it does not
    at: float = 0.0
    version: str = ""
    store_at: float = 0.0  # filled in by the store when read


# --- what the store says ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """A host's lease record as the store has it.

    `version` changes with every renewal. `alive`: the host's ZooKeeper session exists. A host that is not alive has
    stopped or frozen all it ran before its session could end (failover/timing.py proves it), as long as `version`
    stays what it is.
    """

    host: str
    alive: bool
    version: int
    store_at: float  # the last renewal, on the store's clock
    since_at: float = 0.0  # while alive: when its session began, on the store's clock
    granted: bool = False  # it rests on the grants of the leader, and not on its session (failover/grants/protocol.py)
    taken: int = 0  # how often it was taken over from


@dataclass(frozen=True)
class View:
    """One snapshot of the whole cluster: all that a decision may rest on."""

    cluster: Cluster
    now: float  # the store's clock
    leases: Mapping[str, Lease] = field(default_factory=frozen_map)
    reports: Mapping[str, Report] = field(default_factory=frozen_map)
    assignments: Mapping[str, Assignment] = field(default_factory=frozen_map)
    intents: Intents = Intents()
    holds: tuple[Hold, ...] = ()  # as the leader last wrote them
    memory: Memory = Memory()
    leader: str | None = None
    led_at: float = 0.0  # when the present leader was elected, on the store's clock
    watched_at: float = 0.0  # since when who looks has followed the store without a break, on the store's clock
    unchanged_s: Mapping[str, float] = field(
        default_factory=frozen_map
    )  # per host: for how long the leader has seen its lease as it is, on its own clock
    cluster_version: int = 0  # of the record of `cluster`: each `failover apply` makes the next


@dataclass(frozen=True)
class Told:
    """All that one host's agent has to know."""

    host: str
    cluster: Cluster
    assignments: Mapping[str, Assignment]
    disarmed: bool = False  # nothing is started or stopped; what runs and the syncing go on
    cluster_version: int = 0
    leader: str | None = None  # whose leader's process leads
