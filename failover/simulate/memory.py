"""The store in memory: a `World` stands for ZooKeeper, a `MemoryStore` for one process's connection to it.

    directly          every word is done and answered at once                     (the contract suite)
    over a Wire       each takes its time, and may be on its way when a link fails (the simulator)

Rule 1: no threads and no clock of its own.
Rule 2: after every connection the lease is written first and the mirror read after it.
Rule 3: the mirror is what was read last: a watch says only that something is different, and then it is read again.
Rule 4: a connection whose answers stay away is given up after two thirds of the session; nobody notices it earlier.
Rule 5: a call that waits for its answer is done at once; without an answer it raises, and may be done all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

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
from failover.records import DIRECTORIES, FILES, HISTORY_MAX, Node, Role
from failover.simulate.line import Direct, Line
from failover.simulate.znodes import World, aged
from failover.store import Change, Rest, Store
from failover.timing import PROFILES, Timing
from failover.writes import Check, Create, Delete, Set, Write

_R = TypeVar("_R")


class _Read(NamedTuple):
    """All znodes after this transaction."""

    zxid: int
    nodes: Mapping[str, Node]


_AGAIN_S = 0.3  # after a conflict


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
        line: Line | None = None,
    ) -> None:
        self._world, self._role, self._host, self._timing, self._changed = world, role, host, timing, changed
        self._clock, self._line = clock or world.clock, line or Direct()
        self._followed = (*FILES[role], *(f"{directory}/" for directory in DIRECTORIES[role] if directory != "leases"))
        self.session: int | None = session
        self._open = self._connected = self._fresh = self._closed = False
        self._link = 0  # counts the connections: what was begun under another one is void
        self._silence = 0  # counts the times that the answers stayed away or came back
        self._silent = self._notified = self._paused = False
        self._mirror: Mapping[str, Node] = {}
        self._read_at = 0.0  # since when it has been fresh without a break, on the store's clock
        self._known = 0  # the transaction after which something in the mirror was read
        self._told: tuple[Mapping[str, Node], Told] | None = None
        self._lease_version: int | None = None  # what the next renewal will find; None: not known
        self._renewed_at: float | None = None
        self._rest, self._claim_number = Rest(), 0
        self._report: Report | None = None  # the newest, while it is not acknowledged
        self._reporting = False
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
        """The connection is lost, and this process knows it."""
        if not self._open:
            return
        self._open = self._connected = self._fresh = self._silent = self._notified = self._reporting = False
        self._link += 1
        self._lease_version = None
        self._line.drop()
        if self.session is not None:
            self._world.cut(self.session, wrote=self._role == "agent")
        self._changed()
        if self._whole():
            self._line.retry(self.mend)

    def mend(self) -> None:
        """Connect again: in the same session if it is still there."""
        if self._open or self._closed or self._paused or not self._whole():
            return
        self._open = True
        self._link += 1
        self._ask(partial(self._world.open, self._timing.session_s, self.session), self._opened)

    def close(self) -> None:
        """Let go in order: only an agent leaves its session alone."""
        if self.die() and self._role != "agent" and self.session is not None:
            self._world.end(self.session)

    def die(self) -> bool:
        """The process is gone without a word; whether it was connected."""
        self._world.leave(self)
        self._closed, was = True, self._connected
        self.cut()
        return was

    def ended(self) -> None:
        """Called by the world: this session is over. Who cannot be told will notice it."""
        if self._open and self._whole():
            self._line.answer(partial(self._unless_void, self._link, self.cut))

    def line_changed(self) -> None:
        """A direction of the line is up or down now, or the process stands still or goes on."""
        if not self._open:
            if self._whole() and not self._closed:
                self._line.retry(self.mend)
            return
        if not self._line.there() and self.session is not None:
            self._world.cut(self.session, wrote=self._role == "agent")
        self._line.flush()
        if not self._whole():
            if not self._silent:
                self._silent = True
                self._silence += 1
                self._line.after(self._timing.session_s * 2 / 3, partial(self._notice, self._silence))
            return
        self._silent = False
        if self.session is not None and not self._world.hear(self.session):
            self._line.answer(partial(self._unless_void, self._link, self.cut))

    def _notice(self, silence: int) -> None:
        if self._silent and silence == self._silence:
            self.cut()

    def _whole(self) -> bool:
        return self._line.there() and self._line.back()

    def _ask(self, do: Callable[[], _R], then: Callable[[_R], None]) -> None:
        """Have it done at the store, and go on with what came of it, if the connection is still the same."""
        link = self._link

        def perform() -> None:
            found = do()
            self._line.answer(lambda: self._unless_void(link, partial(then, found)))

        self._line.send(perform)

    def _unless_void(self, link: int, action: Callable[[], None]) -> None:
        if link == self._link and self._open:
            action()

    def _opened(self, session: int) -> None:
        before, self.session = self.session, session
        self._connected = True
        if before != session:
            self._renewed_at = self._epoch = None
        self._begin()
        self._changed()

    def _begin(self) -> None:
        """The lease, then the mirror (rule 2)."""
        if self._role == "agent":
            self._ask(self._claimed_by, self._claim)
        else:
            self._ask(self._all, self._read)

    def _all(self) -> _Read:
        return _Read(self._world.zxid, self._world.nodes)

    def _read(self, read: _Read) -> None:
        if read.zxid < self._known:
            self._ask(self._all, self._read)
            return
        self._read_at = self._read_at if self._fresh else self._world.clock()
        self._mirror, self._fresh, self._notified = read.nodes, True, False
        self._send_report()
        self._changed()

    def happened(self, paths: Sequence[str]) -> None:
        """Called by the world: what watches have to say."""
        if self._connected and self._role != "operator" and not self._notified:
            if not any(path.startswith(self._followed) for path in paths):
                return
            self._notified = True
            self._line.answer(partial(self._unless_void, self._link, partial(self._ask, self._look, self._saw)))

    def _look(self) -> _Read:
        self._notified = False
        return self._all()

    def _saw(self, read: _Read) -> None:
        if read.zxid < self._known:  # the mirror never goes back in time
            self._ask(self._look, self._saw)
            return
        self._mirror = read.nodes
        self._changed()

    def _read_again(self, *paths: str) -> None:
        """Of what this process has written itself it knows at once."""
        found = {path: node for path in paths if (node := self._world.nodes.get(path))}
        self._mirror, self._known = {**self._mirror, **found}, self._world.zxid

    def skip(self, length_s: float, clock_s: float, paths: Collection[str]) -> None:
        """As if the renewals and reports of the idle time that is left out had been made; `clock_s`: on our clock."""
        self._mirror = aged(self._mirror, length_s, paths)
        if self._fresh and self._renewed_at is not None:
            self._renewed_at += clock_s

    # --- the lease ----------------------------------------------------------------------------------------------------

    def _claimed_by(self) -> tuple[Node | None, Node | None]:
        return self._world.nodes.get(f"leases/{self._host}"), self._world.nodes.get(f"alive/{self._host}")

    def _claim(self, found: tuple[Node | None, Node | None], *, waited: bool = False) -> None:
        lease, alive = found
        if alive is not None and alive.session != self.session and not waited:  # an older session of this host
            then = partial(self._ask, self._claimed_by, partial(self._claim, waited=True))
            self._line.after(1.5 * self._timing.renew_s, partial(self._unless_void, self._link, then))
            return
        sent_at, session = self._clock(), self.session or 0
        claim = writes.claim(
            self._host or "", session, lease.version if lease else None, alive.session if alive else None
        )
        version = lease.version + 1 if lease else 0
        self._ask(partial(self._write_claim, session, claim), partial(self._claimed, sent_at, version))

    def _write_claim(self, session: int, claim: tuple[Write, ...]) -> bool | None:
        if f"reports/{self._host}" not in self._world.nodes:
            self._world.write(session, Create(f"reports/{self._host}"))
        return self._world.write(session, *claim)

    def _claimed(self, sent_at: float, version: int, done: bool | None) -> None:
        if done is None:
            self.cut()
        elif not done:
            self._line.after(_AGAIN_S, partial(self._unless_void, self._link, self._begin))
        else:
            self._lease_version = self._claim_number = version
            self._renewed_at, self._rest = max(sent_at, self._renewed_at or sent_at), Rest()
            self._ask(self._all, self._read)

    def renew(self, now: float) -> None:
        if not self._rest.epoch:
            self._write_lease(0, partial(self._renewed, now))

    def rest_on(self, epoch: int) -> None:
        before, self._rest = self._rest, Rest(epoch, settled=False)
        if before.epoch or not self._write_lease(epoch, partial(self._rests, epoch)):
            self._rest = before

    def _write_lease(self, granted: int, then: Callable[[bool | None], None]) -> bool:
        """Whether it was begun: the lease is claimed as soon as there is a connection, and not written before."""
        if not self._connected or self.session is None or self._lease_version is None:
            return False
        version, self._lease_version = self._lease_version, self._lease_version + 1
        record = wire.encode(wire.LeaseRecord(self.session, granted, self._claim_number))
        self._ask(partial(self._world.write, self.session, Set(f"leases/{self._host}", record, version)), then)
        return True

    def _renewed(self, sent_at: float, done: bool | None) -> None:
        if done:
            self._renewed_at = max(sent_at, self._renewed_at or sent_at)
        self._settle(done)

    def _rests(self, epoch: int, done: bool | None) -> None:
        if done:
            self._renewed_at, self._rest = None, Rest(epoch)
        self._settle(done)

    def _settle(self, done: bool | None) -> None:
        if done is None:
            self.cut()
        elif not done:
            self.claim_anew()

    def claim_anew(self) -> None:
        self._lease_version, self._fresh = None, False
        if self._connected:
            self._begin()

    @property
    def rest(self) -> Rest:
        return self._rest

    @property
    def claim(self) -> int:
        return self._claim_number

    def pause(self) -> None:
        self._paused = True
        self.cut()

    def resume(self) -> None:
        self._paused = False
        self.mend()

    @property
    def renewed_at(self) -> float | None:
        """A session that has ended meanwhile is not known to have ended before there is a connection."""
        return self._renewed_at

    # --- calls that wait for their answer (rule 5) --------------------------------------------------------------------

    def _write(self, *transaction: Write) -> bool:
        self._need_session()
        session = self.session or 0
        if not self._line.there():
            self._line.send(lambda: _void(self._world.write(session, *transaction)))
            raise Unreachable("the store does not answer")
        done = self._world.write(session, *transaction)
        if done is None:
            self._line.answer(partial(self._unless_void, self._link, self.cut))
            raise Unreachable("the session is over")
        if not self._line.back():
            raise Unreachable("the store does not answer")
        return done

    def _need_session(self) -> None:
        if not self._connected or self.session is None:
            raise Unreachable("no connection to the store")

    def _need(self) -> Mapping[str, Node]:
        self._need_session()
        if not self._whole():
            raise Unreachable("the store does not answer")
        return self._world.nodes

    # --- everyone, and the operator -----------------------------------------------------------------------------------

    def view(self) -> View:
        nodes = self._need() if self._role == "operator" else self._mirror
        return replace(records.view(nodes, self._world.clock()), watched_at=self._read_at)

    def history(self, limit: int = HISTORY_MAX) -> tuple[Event, ...]:
        self._need()
        past = self._world.past
        return tuple(wire.decode(Event, past[path].data, where=path) for path in sorted(past)[-limit:])

    def apply(self, cluster: Cluster, text: str, version: int | None = None) -> None:
        if not self._write(writes.apply(cluster, text, version)):
            raise writes.overtaken()

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
        if self._told is None or self._told[0] is not self._mirror:
            self._told = self._mirror, records.told(self._mirror, self._host or "")
        return self._told[1]

    def report(self, report: Report) -> None:
        self._report = report
        self._send_report()

    def _send_report(self) -> None:
        if self._report is None or self._reporting or not self._fresh or self.session is None:
            return
        self._reporting, sent = True, self._report
        record = Set(f"reports/{self._host}", wire.encode(sent))
        self._ask(partial(self._world.write, self.session, record), partial(self._reported, sent))

    def _reported(self, sent: Report, done: bool | None) -> None:
        self._reporting = False
        if done is None:
            self.cut()
        if done and self._report is sent:
            self._report = None
        if done:
            self._send_report()

    # --- the leader ---------------------------------------------------------------------------------------------------

    def lead(self) -> int | None:
        if not self._fresh:
            return None
        holder = self._mirror.get("leader/holder")
        if holder is None or holder.session != self.session:
            self._epoch = None
        if self._epoch is not None or (holder is not None and holder.session != self.session):
            return self._epoch
        try:
            self._epoch = self._stand()
        except Unreachable:
            return None
        return self._epoch

    def _stand(self) -> int | None:
        nodes = self._need()
        holder, epoch = nodes.get("leader/holder"), nodes["leader/epoch"].version
        if holder is not None:
            return epoch if holder.session == self.session else None
        if not self._write(*writes.stand(self._host or "memory", epoch)):
            return None
        self._read_again("leader/holder", "leader/epoch")
        return epoch + 1

    def hear(self) -> None:
        self._read_again(*(path for path in self._need() if path.startswith("leases/")))

    def commit(self, change: Change) -> bool:
        self._need_session()
        if self._epoch is None:
            return False
        if not self._write(*writes.commit(change, self._epoch)):
            self._fresh = False  # something is not as our mirror has it
            self._ask(self._all, self._read)
            return False
        self._read_again(*(f"assignments/{word.vserver}" for word in change.assignments))
        if len(self._world.past) > HISTORY_MAX:
            self._write(*map(Delete, sorted(self._world.past)[:-HISTORY_MAX]))
        return True

    def hold(self, holds: Sequence[Hold]) -> None:
        self._keep("holds", wire.Holds(tuple(holds)))

    def remember(self, memory: Memory) -> bool:
        return self._keep("memory", memory)

    def _keep(self, path: str, record: object) -> bool:
        self._need_session()
        data, known = wire.encode(record), self._mirror[path].data
        if self._epoch is None:
            return False
        if known == data:
            return True
        done = self._write(Check("leader/epoch", self._epoch), Set(path, data))
        if done:
            self._read_again(path)
        return done


def _void(_: object) -> None:
    """What came of it nobody will know."""
