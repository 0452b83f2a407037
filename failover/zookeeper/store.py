"""One process's store in ZooKeeper: its mirror, its lease, its leadership.

    kazoo's threads      what has changed is noted for the worker; answers to renewals and reports are noted
    our worker thread    after every connection: lease, then mirror; after a watch: what it named is read again
    the caller's thread  commands, leadership and commits, each with a deadline

Rule 1: only an acknowledged write proves that the session lives; kazoo's pings do not, for a follower that has lost its
        leader goes on answering them.
Rule 2: after every connection the lease is written first and the mirror read after it, on the same connection, so the
        mirror is no older than the lease. That holds for a new session, a reconnection and a restarted process alike.
What is written, and what each transaction checks, stands in failover/writes.py.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from failover import records, wire, writes
from failover.boot import boot_time
from failover.errors import FailoverError, Refused, Unreachable
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
)  # fmt: skip
from failover.records import HISTORY_MAX, Node, Role
from failover.store import Change, Rest, Store
from failover.timing import PROFILES, Timing
from failover.writes import Check, Create, Delete, Set
from failover.zookeeper import home
from failover.zookeeper import session as saved
from failover.zookeeper.client import Client, Link, Session
from failover.zookeeper.leadership import Leadership
from failover.zookeeper.lease import HostLease
from failover.zookeeper.mirror import Mirror
from failover.zookeeper.protect import protect

ROOT = "/failover"
COMMAND_S = 5.0  # what a command waits for ZooKeeper
WISH_TRIES = 50

_log = logging.getLogger("failover.zookeeper")
_READ_ALL, _STOP = "read all", "stop"  # for the worker, among the paths that it is to read again
_R = TypeVar("_R")


class ZooKeeperStore(Store):
    """See failover/store.py. Built without waiting; it connects by itself and lives through anything."""

    def __init__(
        self,
        cluster_name: str,
        servers: Sequence[str],
        credentials: str,
        *,
        role: Role,
        timing: Timing = PROFILES["normal"],
        host: str | None = None,
        changed: Callable[[], None] = lambda: None,
        session_file: Path | None = None,
        near: str | None = None,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """`near`: the address of this host, which may carry one of the servers: that is preferred."""
        self._cluster_name, self._servers, self._role, self._host = cluster_name, tuple(servers), role, host
        self._timing, self._tell_caller, self._clock = timing, changed, clock
        self._asked_s = timing.leader_session_s if role == "leader" else timing.session_s  # for a session of so long
        self._session_file = session_file if role == "agent" else None
        if self._session_file is not None:
            self._asked_s = max(self._asked_s, saved.length_s(self._session_file))
        self._root = f"{ROOT}/{cluster_name}"
        self._lock = threading.RLock()
        self._todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over = threading.Event()
        self._connected = self._read = self._closed = False
        self._link = 0  # counts the changes of the link: what was begun under another one is void
        self._read_at = 0.0  # when the mirror was read whole, by our monotonic clock
        self._ahead_s: float | None = None  # the store's clock, less our monotonic one
        self._taken = 0  # how often this host was taken over from, as read after its lease was claimed
        self._report: bytes | None = None  # the newest, while it is not acknowledged
        self._reporting = False
        self._trouble: FailoverError | None = None
        self._client = Client(
            servers,
            credentials,
            session_s=self._asked_s,
            deadline_s=COMMAND_S if role == "operator" else self._asked_s / 2,
            listen=self._link_changed,
            happened=self._todo.put,
            near=home.near(servers, near),
            clock=clock,
            resume=saved.load(self._session_file, self._asked_s, cluster_name, servers) if self._session_file else None,
        )
        self._mirror = Mirror(self._client, self._root, role)
        self._leadership = Leadership(
            self._client, self._root, host or socket.gethostname(), timing, clock=clock, saw=self._saw
        )
        self._lease = self._host_lease(host or "") if role == "agent" else None
        self._worker = threading.Thread(target=self._work, name="store", daemon=True)
        self._worker.start()
        self._client.start()

    def _host_lease(self, host: str) -> HostLease:
        return HostLease(
            self._client,
            self._root,
            host,
            self._timing,
            clock=self._clock,
            claimed=self._session_claimed,
            saw=self._saw,
            doubt=self._doubt,
            rests=self._tell,
        )

    # --- the connection ----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def fresh(self) -> bool:
        return self._connected and (self._read or self._role == "operator")

    @property
    def session_s(self) -> float | None:
        """How long a session ZooKeeper has granted; None before the first connection."""
        return self._client.session_s

    @property
    def trouble(self) -> FailoverError | None:
        """Why the store is connected and yet not fresh."""
        return self._trouble

    def close(self) -> None:
        """An agent's session is left alone. A leader's and an operator's end, so the next leader need not wait."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._connected = self._read = False
        self._over.set()
        self._todo.put(_STOP)
        self._client.close(keep_session=self._role == "agent")
        self._worker.join(timeout=COMMAND_S)

    def _link_changed(self, link: Link) -> None:
        with self._lock:
            if self._closed:
                return
            self._link += 1
            self._connected, self._read = link is Link.CONNECTED, False
            self._reporting = False
            if link is Link.EXPIRED:
                self._leadership.expired()
        if self._lease is not None:
            self._lease.link_changed(expired=link is Link.EXPIRED)
        _log.log(logging.INFO if link is Link.CONNECTED else logging.WARNING, "ZooKeeper: %s", link.value)
        if link is Link.CONNECTED:
            self._todo.put(_READ_ALL)
        self._tell()

    def _tell(self) -> None:
        try:
            self._tell_caller()
        except Exception:
            _log.exception("the store's listener failed")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _need(self) -> None:
        if not self._connected:
            raise Unreachable(
                f"no connection to ZooKeeper ({', '.join(self._servers)})",
                hint="is it running, and does a firewall let us through?",
            )

    # --- the worker: lease, then mirror -------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            try:
                todo = {self._todo.get(timeout=max(self._asked_s / 4, 0.2))}
                while not self._todo.empty():
                    todo.add(self._todo.get())
            except queue.Empty:
                todo = set()
            if _STOP in todo:
                return
            try:
                self._catch_up(todo)
            except FailoverError as error:
                self._be_troubled(error)
            except Exception:
                _log.exception("the mirror of ZooKeeper failed; it is read anew")
                self._read = False

    def _catch_up(self, todo: set[str]) -> None:
        if not self._connected or self._role == "operator":
            return
        if _READ_ALL in todo or not self._read:
            self._begin()
            self._tell()
        elif todo:
            self._mirror.read_again(todo)
            self._tell()
        elif self._role == "leader":
            self._client.await_answer(self._asked_s / 4)  # an agent notices by its renewals that a server is silent

    def _begin(self) -> None:
        """After every connection, and after every doubt (rule 2)."""
        link = self._link
        if self._role == "agent":  # one that rested on grants may not have noticed that its server is silent
            self._client.await_answer(self._asked_s / 8)
        protect(self._client, ROOT, self._root)
        if self._role == "agent":
            self._client.make(self._path(f"reports/{self._host}"), self._path(f"taken/{self._host}"))
        if self._lease is not None:
            self._lease.claim(self._over)
        nodes = self._mirror.read_all()
        taken = self._client.facts((self._path(f"taken/{self._host}"),)) if self._role == "agent" else {}
        with self._lock:
            if link != self._link:
                return
            self._mirror.replace(nodes)
            self._read, self._trouble, self._read_at = True, None, time.monotonic()
            self._taken = sum(node.version for node in taken.values() if node is not None)
        self._send_report()

    def _session_claimed(self, session: Session) -> None:
        if self._session_file:
            saved.save(self._session_file, session, self._asked_s, self._cluster_name, self._servers)

    def _be_troubled(self, error: FailoverError) -> None:
        with self._lock:
            news = str(error) != str(self._trouble)
            self._trouble, self._read = error, False
        if news and self._connected:
            _log.error("%s", error)
            self._tell()

    # --- everyone -----------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """Raises Unreachable, or Refused while no cluster.yaml has been applied."""
        if self._role == "operator":
            self._need()
            read = self._mirror.read_all(watch=False)
            return records.view(read, records.clock(read, time.time(), self._timing.session_s))
        nodes = self._read_nodes()
        now = self._now(nodes)
        return replace(records.view(nodes, now), watched_at=now - (time.monotonic() - self._read_at))

    def _read_nodes(self) -> Mapping[str, Node]:
        nodes = self._mirror.nodes
        if not nodes:
            self._need()
            raise self._trouble or Unreachable("ZooKeeper has not been read yet")
        return nodes

    def history(self, limit: int = HISTORY_MAX) -> tuple[Event, ...]:
        self._need()
        directory = self._path("history")
        names = sorted(self._client.names((directory,))[directory])[-limit:]
        read = self._client.read(f"{directory}/{name}" for name in names)
        return tuple(wire.decode(Event, node.data, where=path) for path, node in read.items() if node is not None)

    def _saw(self, at: float) -> None:
        """A write of ours was given this time a moment ago."""
        self._ahead_s = at - time.monotonic()

    def _now(self, nodes: Mapping[str, Node]) -> float:
        """The clock of ZooKeeper's leader, by our own writes and by all that we read."""
        ahead = self._ahead_s if self._ahead_s is not None else time.time() - time.monotonic()
        return max(time.monotonic() + ahead, records.newest(nodes))

    # --- the operator -------------------------------------------------------------------------------------------------

    def apply(self, cluster: Cluster, text: str, version: int | None = None) -> None:
        self._need()
        write = writes.apply(cluster, text, version)
        protect(self._client, ROOT, self._root)
        if self._client.write(self._root, write) is None:
            raise writes.overtaken()

    def cluster_text(self) -> str:
        self._need()
        found = self._client.read((self._path("cluster"),))[self._path("cluster")]
        return records.applied({"cluster": found} if found else {}).text

    def wish(self, vserver: str, change: Callable[[VserverIntent], VserverIntent]) -> VserverIntent:
        return self._change(f"intent/vservers/{vserver}", VserverIntent, change)

    def wish_host(self, host: str, change: Callable[[HostIntent], HostIntent]) -> HostIntent:
        return self._change(f"intent/hosts/{host}", HostIntent, change)

    def wish_cluster(self, change: Callable[[ClusterIntent], ClusterIntent]) -> ClusterIntent:
        return self._change("intent/cluster", ClusterIntent, change)

    def _change(self, relative: str, kind: type[_R], change: Callable[[_R], _R]) -> _R:
        self._need()
        protect(self._client, ROOT, self._root)
        path = self._path(relative)
        for _ in range(WISH_TRIES):
            found = self._client.read((path,))[path]
            wish = change(wire.decode(kind, found.data, where=relative) if found and found.data else kind())
            data = wire.encode(wish)
            write = Set(relative, data, found.version) if found else Create(relative, data)
            if self._client.write(self._root, write) is not None:
                return wish
        raise Refused(f"{relative} is being changed by others all the time", hint="try again")

    # --- the agent ----------------------------------------------------------------------------------------------------

    def told(self) -> Told:
        """Raises Unreachable, or Refused while no cluster.yaml has been applied."""
        return records.told(self._read_nodes(), self._host or "")

    def renew(self, now: float) -> None:
        if self._connected and self._lease is not None:
            self._lease.renew(now)

    def rest_on_grants(self) -> None:
        if self.fresh and self._lease is not None:
            self._lease.rest_on_grants()

    @property
    def rest(self) -> Rest:
        return self._lease.rest if self._lease else Rest()

    @property
    def footing(self) -> Footing | None:
        with self._lock:
            version = self._lease.version if self._lease is not None and self.fresh else None
            return None if version is None else Footing(version, self._taken)

    def claim_anew(self) -> None:
        self._doubt()

    def _doubt(self) -> None:
        with self._lock:
            self._read = False
        self._todo.put(_READ_ALL)
        self._tell()

    def pause(self) -> None:
        self._client.pause()

    def resume(self) -> None:
        self._client.resume()

    @property
    def renewed_at(self) -> float | None:
        return self._lease.renewed_at if self._lease else None

    def report(self, report: Report) -> None:
        with self._lock:
            self._report = wire.encode(report)
        self._send_report()

    def _send_report(self) -> None:
        with self._lock:
            if self._report is None or self._reporting or not self._read:
                return
            self._reporting, sent = True, self._report
            path = self._path(f"reports/{self._host}")
            self._client.begin(path, sent, -1, partial(self._reported, sent, self._link))

    def _reported(self, sent: bytes, link: int, at: float | None, conflict: bool) -> None:
        with self._lock:
            if link != self._link:
                return
            self._reporting = False
            if at is not None and self._report is sent:
                self._report = None
            if conflict:
                self._read = False
                self._todo.put(_READ_ALL)
        if at is not None:
            self._send_report()

    # --- the leader ---------------------------------------------------------------------------------------------------

    def lead(self) -> int | None:
        session, known = self._client.session, self._leadership.epoch
        if session is None or not self._read:
            return None
        epoch = self._leadership.lead(session, self._mirror.get("leader/holder"))
        if epoch is not None and epoch != known:
            self._mirror.read_again(("leader",))
        return epoch

    @property
    def leader(self) -> str | None:
        return records.leader(self._mirror.nodes)

    @property
    def epoch(self) -> int | None:
        return self._leadership.epoch

    @property
    def leads_until(self) -> float | None:
        return self._leadership.until

    @property
    def proved_at(self) -> float | None:
        return self._leadership.proved_at

    def pulse(self, now: float) -> None:
        if self._connected:
            self._leadership.pulse(now)

    def step_down(self) -> None:
        self._leadership.step_down()
        self._mirror.read_again(("leader",))

    def look_at_lease(self, host: str) -> Lease | None:
        self._need()
        self._mirror.look_at(host)
        nodes = self._mirror.nodes
        node = nodes.get(f"leases/{host}")
        if node is None:
            return None
        return records.lease(host, node, nodes.get(f"alive/{host}"), nodes.get(f"taken/{host}"))

    def hear(self) -> None:
        self._need()
        self._mirror.read_leases()

    def commit(self, change: Change) -> bool:
        """Raises Unreachable when there is no answer: whether it was done is then seen in the next view."""
        self._need()
        epoch = self._leadership.epoch
        if epoch is None:
            return False
        written = self._client.write(self._root, *writes.commit(change, epoch))
        if written is None:
            self._read = False  # something was not as our mirror has it
            self._todo.put(_READ_ALL)
            return False
        for at in written:
            self._saw(at)
        self._mirror.read_again({"assignments", *(f"assignments/{word.vserver}" for word in change.assignments)})
        if change.leases or change.vouched:
            self._mirror.look_at(*dict([*change.leases, *change.vouched]))
        if change.events:
            self._prune()
        return True

    def hold(self, holds: Sequence[Hold]) -> None:
        self._keep("holds", wire.Holds(tuple(holds)))

    def remember(self, memory: Memory) -> bool:
        return self._keep("memory", memory)

    def _keep(self, path: str, record: object) -> bool:
        """Replace one of the leader's own records, if it is different; False when the leadership is lost."""
        self._need()
        data = wire.encode(record)
        known, epoch = self._mirror.get(path), self._leadership.epoch
        if epoch is None:
            return False
        if known is not None and known.data == data:
            return True
        write = Create(path, data) if known is None else Set(path, data)
        done = self._client.write(self._root, Check("leader/epoch", epoch), write) is not None
        if done:
            self._mirror.read_again((path,))
        return done

    def _prune(self) -> None:
        """Outside the transaction: a history that is a little too long for a moment harms nobody."""
        directory = self._path("history")
        for name in sorted(self._client.names((directory,))[directory])[:-HISTORY_MAX]:
            self._client.write(self._root, Delete(f"history/{name}"))

    def probe(self) -> None:
        """Raises Denied when our credentials are not those of the cluster."""
        self._client.names((self._root,))
