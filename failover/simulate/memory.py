"""The store in memory: a `World` stands for ZooKeeper, a `MemoryStore` for one process's connection to it.

Rule 1: no threads and no clock of its own. Whoever moves the clock calls `World.expire` after it.
Rule 2: it makes the same writes with the same checks as the real one (failover/writes.py).
Rule 3: it is as unkind as the real one may be: a session that is cut off ends one session length after its last
        acknowledged write, not after the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from failover import records, wire, writes
from failover.errors import FailoverError, Refused, Unreachable
from failover.model import (
    Cluster,
    ClusterIntent,
    Event,
    Hold,
    HostIntent,
    Memory,
    Report,
    Told,
    View,
    VserverIntent,
)
from failover.records import DIRECTORIES, FILES, HISTORY_MAX, LAYOUT, Node, Role
from failover.store import Change, Store
from failover.timing import PROFILES, Timing
from failover.writes import Check, Create, Delete, Set, Write

_R = TypeVar("_R")


@dataclass
class _Session:
    length_s: float
    heard_at: float
    cut: bool = False


class _Conflict(Exception):
    """Something is not as a write expects it."""


class World:
    """All znodes below /failover/NAME, and the sessions. `clock` is the store's own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.nodes: dict[str, Node] = {path: Node(b"", 0, clock()) for path in LAYOUT}
        self._stores: list[MemoryStore] = []
        self._sessions: dict[int, _Session] = {}
        self._zxid = self._last_session = self._sequence = 0

    def expire(self) -> None:
        """End the sessions that nobody has been heard of for too long."""
        for number, session in tuple(self._sessions.items()):
            if session.cut and self.clock() >= session.heard_at + session.length_s:
                self.end(number)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do next, on the store's clock."""
        return min((s.heard_at + s.length_s for s in self._sessions.values() if s.cut), default=None)

    def open(self, length_s: float, resume: int | None = None) -> int:
        """The number of a session: the one to be resumed if it is still there."""
        self.expire()
        if resume not in self._sessions or resume is None:
            self._last_session += 1
            resume = self._last_session
            self._sessions[resume] = _Session(length_s, self.clock())
        self._sessions[resume].cut = False
        return resume

    def cut(self, number: int, *, wrote: bool) -> None:
        """No more is heard of it. `wrote`: it is a session that lives by its writes, else pings were heard till now."""
        if session := self._sessions.get(number):
            session.cut = True
            session.heard_at = session.heard_at if wrote else self.clock()

    def end(self, number: int) -> None:
        """The session is over, whatever its process thinks."""
        self._sessions.pop(number, None)
        for store in self._stores:
            if store.session == number:
                store.cut()
        gone = [path for path, node in self.nodes.items() if node.session == number]
        self.nodes = {path: node for path, node in self.nodes.items() if path not in gone}
        self._tell(gone)

    def write(self, number: int, *transaction: Write) -> bool:
        """All of it or nothing."""
        self.expire()
        self._sessions[number].heard_at = self.clock()
        nodes = dict(self.nodes)
        try:
            touched = [self._perform(nodes, one, number) for one in transaction]
        except _Conflict:
            return False
        self._zxid += 1
        self.nodes = nodes
        self._tell(touched)
        return True

    def _perform(self, nodes: dict[str, Node], write: Write, session: int) -> str:
        path, known = write.path, nodes.get(write.path)
        match write:
            case Create(_, data, ephemeral, sequence):
                if sequence:
                    self._sequence += 1
                    path = f"{path}{self._sequence:010}"
                elif known is not None:
                    raise _Conflict
                nodes[path] = Node(data, 0, self.clock(), self._zxid + 1, session if ephemeral else 0)
            case Set(_, data, version):
                if known is None or version not in (-1, known.version):
                    raise _Conflict
                nodes[path] = Node(data, known.version + 1, self.clock(), self._zxid + 1, known.session)
            case Delete(_, version):
                if known is None or version not in (-1, known.version):
                    raise _Conflict
                del nodes[path]
            case Check(_, version):
                if known is None or known.version != version:
                    raise _Conflict
        return path

    def join(self, store: MemoryStore) -> None:
        self._stores.append(store)

    def leave(self, store: MemoryStore) -> None:
        self._stores = [other for other in self._stores if other is not store]

    def _tell(self, paths: Sequence[str]) -> None:
        for store in tuple(self._stores):
            store.happened(paths)


class MemoryStore(Store):
    """See failover/store.py. `changed` is called in the midst of somebody's write: it may only take a note."""

    def __init__(
        self,
        world: World,
        *,
        role: Role,
        timing: Timing = PROFILES["normal"],
        host: str | None = None,
        changed: Callable[[], None] = lambda: None,
        session: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._world, self._role, self._host, self._timing, self._changed = world, role, host, timing, changed
        self._clock = clock or world.clock
        self.session: int | None = session
        self._connected = self._fresh = False
        self._mirror: Mapping[str, Node] = {}  # while the connection is lost
        self._lease_version: int | None = None
        self._renewed_at: float | None = None
        self._report: Report | None = None
        self._epoch: int | None = None
        world.join(self)
        self.mend()

    # --- the connection, and its faults -------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def fresh(self) -> bool:
        return self._fresh

    @property
    def session_s(self) -> float | None:
        return self._timing.session_s

    @property
    def trouble(self) -> FailoverError | None:
        return None

    def cut(self) -> None:
        """The cable is pulled, or the process is dead."""
        if self._connected and self.session is not None:
            self._mirror, self._connected, self._fresh = self._world.nodes, False, False
            self._world.cut(self.session, wrote=self._role == "agent")
            self._changed()

    def mend(self) -> None:
        """Connect again: in the same session if it is still there."""
        if self._connected:
            return
        before, self.session = self.session, self._world.open(self._timing.session_s, self.session)
        self._connected = True
        if before != self.session:
            self._renewed_at = self._epoch = None
        if self._role == "agent":
            self._claim(self.session)
            if self._report is not None:
                self.report(self._report)
        self._fresh = True
        self._changed()

    def close(self) -> None:
        self._world.leave(self)
        if self._connected and self.session is not None:
            self.cut()
            if self._role != "agent":
                self._world.end(self.session)

    def happened(self, paths: Sequence[str]) -> None:
        """Called by the world."""
        followed = (*FILES[self._role], *(directory + "/" for directory in set(DIRECTORIES[self._role]) - {"leases"}))
        if self._connected and self._role != "operator" and any(path.startswith(followed) for path in paths):
            self._changed()

    def _claim(self, session: int) -> None:
        lease, alive = self._world.nodes.get(f"leases/{self._host}"), self._world.nodes.get(f"alive/{self._host}")
        sent_at = self._clock()
        self._write(
            *writes.claim(self._host or "", session, lease.version if lease else None, alive.session if alive else None)
        )
        if f"reports/{self._host}" not in self._world.nodes:
            self._write(Create(f"reports/{self._host}"))
        self._lease_version = self._world.nodes[f"leases/{self._host}"].version
        self._renewed_at = sent_at

    def _write(self, *transaction: Write) -> bool:
        if not self._connected or self.session is None:
            raise Unreachable("no connection to the store")
        return self._world.write(self.session, *transaction)

    def _nodes(self) -> Mapping[str, Node]:
        return self._world.nodes if self._connected else self._mirror

    def _need(self) -> Mapping[str, Node]:
        if not self._connected:
            raise Unreachable("no connection to the store")
        return self._world.nodes

    # --- everyone, and the operator -----------------------------------------------------------------------------------

    def view(self) -> View:
        nodes = self._need() if self._role == "operator" else self._nodes()
        return records.view(nodes, self._world.clock())

    def history(self, limit: int = HISTORY_MAX) -> tuple[Event, ...]:
        nodes = self._need()
        names = sorted(path for path in nodes if path.startswith("history/"))[-limit:]
        return tuple(wire.decode(Event, nodes[path].data, where=path) for path in names)

    def apply(self, cluster: Cluster, text: str) -> None:
        self._write(Set("cluster", wire.encode(wire.Applied(cluster, text))))

    def cluster_text(self) -> str:
        return records.applied(self._need()).text

    def wish(self, vserver: str, change: Callable[[VserverIntent], VserverIntent]) -> VserverIntent:
        return self._wish(f"intent/vservers/{vserver}", VserverIntent, change)

    def wish_host(self, host: str, change: Callable[[HostIntent], HostIntent]) -> HostIntent:
        return self._wish(f"intent/hosts/{host}", HostIntent, change)

    def wish_cluster(self, change: Callable[[ClusterIntent], ClusterIntent]) -> ClusterIntent:
        return self._wish("intent/cluster", ClusterIntent, change)

    def _wish(self, path: str, kind: type[_R], change: Callable[[_R], _R]) -> _R:
        known = self._need().get(path)
        wish = change(wire.decode(kind, known.data, where=path) if known and known.data else kind())
        data = wire.encode(wish)
        if not self._write(Set(path, data, known.version) if known else Create(path, data)):
            raise Refused(f"{path} was changed meanwhile", hint="try again")
        return wish

    # --- the agent ----------------------------------------------------------------------------------------------------

    def told(self) -> Told:
        return records.told(self._nodes(), self._host or "")

    def renew(self, now: float) -> None:
        if not self._connected or self.session is None:
            return
        lease = wire.encode(wire.LeaseRecord(self.session))
        if self._write(Set(f"leases/{self._host}", lease, self._lease_version or 0)):
            self._lease_version = (self._lease_version or 0) + 1
            self._renewed_at = max(now, self._renewed_at or now)
        else:
            self._claim(self.session)

    @property
    def renewed_at(self) -> float | None:
        """A session that has ended meanwhile is not known to have ended before there is a connection."""
        return self._renewed_at

    def report(self, report: Report) -> None:
        self._report = report
        if self._connected:
            self._write(Set(f"reports/{self._host}", wire.encode(report)))

    # --- the leader ---------------------------------------------------------------------------------------------------

    def lead(self) -> int | None:
        if not self._connected:
            return None
        holder, epoch = self._world.nodes.get("leader/holder"), self._world.nodes["leader/epoch"].version
        if holder is None and self._write(*writes.stand(self._host or "memory", epoch)):
            self._epoch = epoch + 1
        elif holder is None or holder.session != self.session:
            self._epoch = None
        return self._epoch

    def commit(self, change: Change) -> bool:
        self._need()
        if self._epoch is None or not self._write(*writes.commit(change, self._epoch)):
            return False
        stale = sorted(path for path in self._world.nodes if path.startswith("history/"))[:-HISTORY_MAX]
        self._write(*map(Delete, stale))
        return True

    def hold(self, holds: Sequence[Hold]) -> None:
        self._keep("holds", wire.Holds(tuple(holds)))

    def remember(self, memory: Memory) -> bool:
        return self._keep("memory", memory)

    def _keep(self, path: str, record: object) -> bool:
        data, known = wire.encode(record), self._need()[path].data
        if self._epoch is None:
            return False
        return known == data or self._write(Check("leader/epoch", self._epoch), Set(path, data))
