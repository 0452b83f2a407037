"""`World` stands for ZooKeeper: all znodes below /failover/NAME, and the sessions.

Rule 1: no threads and no clock of its own. Whoever moves the clock calls `expire` after it.
Rule 2: it makes the same writes with the same checks as the real one (failover/writes.py).
Rule 3: it is as unkind as the real one may be: a session that is cut off ends one session length after the last that
        the ensemble's leader must have heard of it, not after the cut: the server that it was connected to is lost with
        it, and all that it may not have told, of the last two ticks.
Rule 4: while the ensemble is down no session ends; when it is back each has its whole length again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from failover import wire
from failover.model import Report
from failover.records import LAYOUT, Node
from failover.timing import PROFILES, Timing
from failover.writes import Check, Create, Delete, Set, Write

_PAST = "history/"
_PINGS = 3  # such a part of a session is between two pings of a process that writes nothing


@dataclass
class _Session:
    length_s: float
    kept_s: float  # for so long its server may keep to itself what it has heard (Timing.kept_s)
    heard_at: float  # by the leader, surely
    touched: tuple[float, ...] = ()  # what only the server of its connection may know, in order
    cut: bool = False

    def touch(self, now: float) -> None:
        self.tell(now)
        self.touched = (*self.touched, now)

    def tell(self, now: float) -> None:
        told = [at for at in self.touched if at <= now - self.kept_s]
        self.heard_at = max([self.heard_at, *told])
        self.touched = self.touched[len(told) :]

    def begin(self, now: float) -> None:
        """It is begun or taken up: the leader hears of it."""
        self.heard_at, self.touched, self.cut = now, (), False


class _Conflict(Exception):
    """Something is not as a write expects it."""


class Follower(Protocol):
    """A process's connection, as the world sees it."""

    session: int | None

    def happened(self, paths: Sequence[str]) -> None:
        """Znodes were written; in the midst of somebody's write, so it may only take a note."""
        ...

    def ended(self) -> None:
        """Its session is over."""
        ...


class World:
    """`clock` is the store's own. `wrote` is called with every transaction that was made, before anybody is told: which
    paths, what was there before, and in which session."""

    def __init__(self, clock: Callable[[], float], timing: Timing = PROFILES["normal"]) -> None:
        self.clock, self.kept_s = clock, timing.kept_s
        self.nodes: Mapping[str, Node] = {path: Node(b"", 0, clock()) for path in LAYOUT}  # never changed in place
        self.past: dict[str, Node] = {}  # history/…: nobody watches it
        self.wrote: Callable[[Sequence[str], Mapping[str, Node], int], None] = lambda paths, before, session: None
        self.silent: Callable[[], None] = lambda: None  # called when a session was cut off: `next_expiry` is new
        self.down = False
        self._stores: list[Follower] = []
        self._sessions: dict[int, _Session] = {}
        self.zxid = self._last_session = self._sequence = 0

    # --- sessions -----------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """End the sessions that nobody has been heard of for too long."""
        if self.down:
            return
        for number, session in tuple(self._sessions.items()):
            if session.cut and self.clock() >= session.heard_at + session.length_s:
                self.end(number)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do next, on the store's clock."""
        if self.down:
            return None
        return min((s.heard_at + s.length_s for s in self._sessions.values() if s.cut), default=None)

    def open(self, length_s: float, resume: int | None = None) -> int:
        """The number of a session: the one to be resumed if it is still there."""
        self.expire()
        if resume not in self._sessions or resume is None:
            self._last_session += 1
            resume = self._last_session
            self._sessions[resume] = _Session(length_s, self.kept_s, self.clock())
        self._sessions[resume].begin(self.clock())
        return resume

    def cut(self, number: int, *, wrote: bool) -> None:
        """No more is heard of it. `wrote`: it is a session that lives by its writes, else pings were heard as well."""
        session, now = self._sessions.get(number), self.clock()
        if session and not session.cut:
            session.tell(now)
            pinged_at = float("-inf") if wrote else now - session.length_s / _PINGS
            session.cut, session.heard_at, session.touched = True, max(session.heard_at, pinged_at), ()
            self.silent()

    def hear(self, number: int) -> bool:
        """Its connection works again; False when the session is over."""
        self.expire()
        session = self._sessions.get(number)
        if session is not None and session.cut:
            session.cut = False
            session.touch(self.clock())
        return session is not None

    def touch(self, number: int) -> None:
        """A request that writes nothing."""
        if number in self._sessions:
            self._sessions[number].touch(self.clock())

    def fall(self) -> None:
        self.down = True

    def rise(self) -> None:
        """A new leader of the ensemble gives every session its whole length, but nobody is connected yet."""
        self.down = False
        for session in self._sessions.values():
            session.begin(self.clock())
            session.cut = True
        self.silent()

    def end(self, number: int) -> None:
        """The session is over, whatever its process thinks."""
        self._sessions.pop(number, None)
        for store in tuple(self._stores):
            if store.session == number:
                store.ended()
        gone = [path for path, node in self.nodes.items() if node.session == number]
        before = self.nodes
        self.zxid += 1
        self.nodes = {path: node for path, node in before.items() if path not in gone}
        self._tell(gone, before, number)

    # --- writes -------------------------------------------------------------------------------------------------------

    def write(self, number: int, *transaction: Write) -> bool | None:
        """All of it or nothing; None when the session is over."""
        self.expire()
        if number not in self._sessions:
            return None
        self._sessions[number].touch(self.clock())
        nodes, past = dict(self.nodes), dict(self.past) if _of_the_past(transaction) else self.past
        try:
            touched = [self._perform(past if one.path.startswith(_PAST) else nodes, one, number) for one in transaction]
        except _Conflict:
            return False
        self.zxid += 1
        before, self.nodes, self.past = self.nodes, nodes, past
        read = {one.path for one in transaction if isinstance(one, Check)}  # nobody hears of what was only looked at
        self._tell([path for path in touched if path not in read], before, number)
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
                nodes[path] = Node(data, 0, self.clock(), self.zxid + 1, session if ephemeral else 0)
            case Set(_, data, version):
                if known is None or version not in (-1, known.version):
                    raise _Conflict
                nodes[path] = Node(data, known.version + 1, self.clock(), self.zxid + 1, known.session)
            case Delete(_, version):
                if known is None or version not in (-1, known.version):
                    raise _Conflict
                del nodes[path]
            case Check(_, version):
                if known is None or known.version != version:
                    raise _Conflict
        return path

    def join(self, store: Follower) -> None:
        self._stores.append(store)

    def leave(self, store: Follower) -> None:
        self._stores = [other for other in self._stores if other is not store]

    def _tell(self, paths: Sequence[str], before: Mapping[str, Node], session: int) -> None:
        self.wrote(paths, before, session)
        for store in tuple(self._stores):
            store.happened(paths)

    # --- idle time that is left out -----------------------------------------------------------------------------------

    def skip(self, length_s: float, paths: Collection[str]) -> None:
        """As if these records had been written again in the time that is left out."""
        self.nodes = aged(self.nodes, length_s, paths)
        for session in self._sessions.values():
            if not session.cut:
                session.heard_at += length_s
                session.touched = tuple(at + length_s for at in session.touched)


def aged(nodes: Mapping[str, Node], length_s: float, paths: Collection[str]) -> Mapping[str, Node]:
    written = {path: _again(path, node, length_s) for path in paths if (node := nodes.get(path))}
    return {**nodes, **written}


def _again(path: str, node: Node, length_s: float) -> Node:
    """The same record, written later. What is over is over for longer; a backup's own word of its replica is as old as
    if no round had come (that rounds went on is in the owner's word)."""
    later = node._replace(at=node.at + length_s)
    if not path.startswith("reports/") or not node.data:  # some mirrors know only that it is there
        return later
    report = wire.decode(Report, node.data)
    promised = report.promised or {}
    over = {name: bond for name, bond in promised.items() if bond.ended_s >= 0.0}
    copies = {name: copy for name, copy in report.replicas.items() if copy.age_s is not None}
    if not over and not copies:
        return later
    ended = {name: replace(bond, ended_s=bond.ended_s + length_s) for name, bond in over.items()}
    older = {name: replace(copy, age_s=(copy.age_s or 0.0) + length_s) for name, copy in copies.items()}
    kept = None if report.promised is None else {**promised, **ended}
    grown = replace(report, promised=kept, replicas={**report.replicas, **older})
    return later._replace(data=wire.encode(grown))


def _of_the_past(transaction: Sequence[Write]) -> bool:
    return any(write.path.startswith(_PAST) for write in transaction)
