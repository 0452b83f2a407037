"""The store in memory: a `World` stands for ZooKeeper, a `MemoryStore` for one process's connection to it.

    directly          every word is done and answered at once                     (the contract suite)
    over a Wire       each takes its time, and may be on its way when a link fails (the simulator)

Rule 1: no threads and no clock of its own.
Rule 2: after every connection the lease is written first and the mirror read after it.
Rule 3: a call that waits for its answer is done at once; without an answer it raises, and may be done all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from failover import records, wire, writes
from failover.errors import Refused, Unreachable
from failover.grants.protocol import Footing
from failover.model import (
    Cluster,
    ClusterIntent,
    Event,
    Hold,
    HostIntent,
    Lease,
    Memory,
    Report,
    Told,
    View,
    VserverIntent,
)
from failover.records import HISTORY_MAX, Node, Role
from failover.simulate.connection import Connection, Read
from failover.simulate.line import Direct, Line
from failover.simulate.znodes import World, aged
from failover.store import Change, Rest, Store
from failover.timing import PROFILES, Timing
from failover.touches import Touches
from failover.writes import Check, Create, Delete, Set, Write

_R = TypeVar("_R")


_AGAIN_S = 0.3  # after a conflict


class MemoryStore(Connection, Store):
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
        super().__init__(world, role, timing, changed, session, line or Direct(), clock or world.clock)
        self._host = host
        self._told: tuple[Mapping[str, Node], Told] | None = None
        self._lease_version: int | None = None  # what the next renewal will find; None: not known
        self._touches = Touches(timing.kept_s)
        self._rest, self._footing = Rest(), Footing(-1, -1)
        self._proofs = Touches(timing.kept_s)  # since it leads
        self._report: Report | None = None  # the newest, while it is not acknowledged
        self._reporting = False
        self._epoch: int | None = None
        self._left: int | None = None  # the epoch under which it has stepped down, or tried to
        world.join(self)
        self.mend()

    def _lost(self) -> None:
        self._lease_version, self._reporting = None, False

    def _begin_session(self) -> None:
        self._epoch, self._touches, self._proofs = None, Touches(self._timing.kept_s), Touches(self._timing.kept_s)

    def _begin(self) -> None:
        """An agent's lease, then the mirror."""
        if self._role == "agent":
            self._ask(self._claimed_by, self._claim)
        else:
            super()._begin()

    def _has_read(self) -> None:
        self._send_report()

    def skip(self, length_s: float, clock_s: float, paths: Collection[str]) -> None:
        """As if the renewals and reports of the idle time that is left out had been made; `clock_s`: on our clock."""
        self._mirror = aged(self._mirror, length_s, paths)
        if self._fresh:
            self._touches.skip(clock_s)
        self._proofs.skip(clock_s)

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
        for path in (f"reports/{self._host}", f"taken/{self._host}"):
            if path not in self._world.nodes:
                self._world.write(session, Create(path))
        return self._world.write(session, *claim)

    def _claimed(self, sent_at: float, version: int, done: bool | None) -> None:
        if done is None:
            self.cut()
        elif not done:
            self._line.after(_AGAIN_S, partial(self._unless_void, self._link, self._begin))
        else:
            self._lease_version = version
            self._touches.begun(self._joined_at)
            self._touches.acknowledged(sent_at, self._clock())
            self._rest = Rest()
            self._ask(self._all, partial(self._read_after_claim, version))

    def _read_after_claim(self, version: int, read: Read) -> None:
        self._footing = Footing(version, read.nodes[f"taken/{self._host}"].version)
        self._read(read)

    def renew(self, now: float) -> None:
        if not self._rest.granted:
            self._write_lease(partial(self._renewed, now), granted=False)
        elif self._connected and self.session is not None:
            self._ask(partial(self._world.touch, self.session), lambda _: self._touches.answered(now, self._clock()))

    def rest_on_grants(self) -> None:
        if self._fresh and not self._rest.granted and self._lease_version is not None:
            self._rest = Rest(granted=True, settled=False)
            self._write_lease(self._rests, granted=True)

    def _write_lease(self, then: Callable[[], None], *, granted: bool) -> None:
        """Nothing before it is claimed, which is done as soon as there is a connection."""
        if not self._connected or self.session is None or self._lease_version is None:
            return
        version, self._lease_version = self._lease_version, self._lease_version + 1
        record = Set(f"leases/{self._host}", wire.encode(wire.LeaseRecord(self.session, granted)), version)
        self._ask(partial(self._world.write, self.session, record), partial(self._written, version + 1, then))

    def _written(self, version: int, then: Callable[[], None], done: bool | None) -> None:
        if done is None:
            self.cut()
        elif not done:
            self.claim_anew()
        else:
            if self._lease_version is not None:
                self._footing = replace(self._footing, lease=version)
            then()

    def _renewed(self, sent_at: float) -> None:
        self._touches.acknowledged(sent_at, self._clock())

    def _rests(self) -> None:
        self._rest = Rest(granted=True)
        self._changed()

    def claim_anew(self) -> None:
        self._lease_version, self._fresh = None, False
        if self._connected:
            self._begin()

    @property
    def rest(self) -> Rest:
        return self._rest

    @property
    def footing(self) -> Footing | None:
        return self._footing if self._fresh and self._lease_version is not None else None

    def pause(self) -> None:
        self._paused = True
        self.cut()

    def resume(self) -> None:
        self._paused = False
        self.mend()

    @property
    def renewed_at(self) -> float | None:
        """A session that has ended meanwhile is not known to have ended before there is a connection."""
        return None if self._rest.granted and self._rest.settled else self._touches.told_at

    # --- calls that wait for their answer (rule 3) --------------------------------------------------------------------

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
            self._epoch, self._proofs = None, Touches(self._timing.kept_s)
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
        if holder is not None and holder.session == self.session and epoch == self._left:
            self._write(*writes.step_down(epoch))
            return None
        if holder is not None:
            return epoch if holder.session == self.session else None
        sent_at = self._clock()
        if not self._write(*writes.stand(self._host or "memory", epoch)):
            return None
        self._read_again("leader/holder", "leader/epoch")
        self._proofs = Touches(self._timing.kept_s)
        self._proofs.acknowledged(sent_at, self._clock())
        return epoch + 1

    @property
    def leader(self) -> str | None:
        return records.leader(self._mirror)

    @property
    def epoch(self) -> int | None:
        return self._epoch

    @property
    def leads_until(self) -> float | None:
        told_at = self._proofs.told_at
        return None if self._epoch is None or told_at is None else told_at + self._timing.leads_s(self._asked_s)

    @property
    def proved_at(self) -> float | None:
        return None if self._epoch is None else self._proofs.written_at

    def pulse(self, now: float) -> None:
        if self._epoch is not None and self._connected and self.session is not None:
            proof = partial(self._world.write, self.session, *writes.proof(self._epoch))
            self._ask(proof, partial(self._proved, self._epoch, now))

    def _proved(self, epoch: int, sent_at: float, done: bool | None) -> None:
        if done and epoch == self._epoch:
            self._proofs.acknowledged(sent_at, self._clock())

    def step_down(self) -> None:
        epoch, self._epoch, self._proofs = self._epoch, None, Touches(self._timing.kept_s)
        self._left = epoch if epoch is not None else self._left
        if epoch is not None:
            self._write(*writes.step_down(epoch))
            self._forget("leader/holder")

    def look_at_lease(self, host: str) -> Lease | None:
        nodes = self._need()
        self._read_again(*(f"{kind}/{host}" for kind in ("leases", "alive", "taken")))
        if f"alive/{host}" not in nodes:
            self._forget(f"alive/{host}")
        if (node := nodes.get(f"leases/{host}")) is None:
            return None
        return records.lease(host, node, nodes.get(f"alive/{host}"), nodes.get(f"taken/{host}"))

    def _forget(self, gone: str) -> None:
        self._mirror = {path: node for path, node in self._mirror.items() if path != gone}

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
        taken = (f"taken/{host}" for host, _ in (*change.leases, *change.vouched))
        self._read_again(*(f"assignments/{word.vserver}" for word in change.assignments), *taken)
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
