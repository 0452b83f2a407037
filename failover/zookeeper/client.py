"""kazoo, tamed. The only file that imports it; what comes out are our own records and errors.

Rule 1: every znode that is made here, /failover included, is for the holders of the credentials and nobody else: in an
        open parent a stranger may delete what he cannot read.
Rule 2: a silent server must not eat the session. Connect attempts are short (kazoo's own take up to the whole session),
        and whoever misses an answer calls `drop`: while requests are sent kazoo sends no ping and notices nothing.
Rule 3: kazoo's threads never wait: what is called from them (`listen`, watches, `done`) only takes notes.
Rule 4: a session can be left without being ended, and be taken up by the next process.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.states import EventType, KazooState, WatchedEvent, ZnodeStat
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

from failover.boot import boot_time
from failover.errors import BadInput, Denied, FailoverError, Unreachable
from failover.records import Node
from failover.writes import Check, Create, Delete, Set, Write
from failover.zookeeper.home import Home, Server

_kazoo_log = logging.getLogger("failover.zookeeper.kazoo")
_kazoo_log.setLevel(logging.ERROR)  # it repeats itself at every attempt; the store says each change once

_CLOSE_S = 2.0
_CONFLICTS = (BadVersionError, NodeExistsError, NoNodeError, NotEmptyError)


class Link(Enum):
    CONNECTED = "connected"
    LOST = "connection lost"
    EXPIRED = "session over"


@dataclass(frozen=True)
class Session:
    number: int
    password: bytes = field(repr=False)


class Client:
    """One connection that goes on for ever. `listen` is told of every change of the link, and `happened` the path of
    what has changed since it was read with a watch; both from kazoo's threads."""

    def __init__(
        self,
        servers: Sequence[str],
        credentials: str,
        *,
        session_s: float,
        deadline_s: float,
        listen: Callable[[Link], None],
        happened: Callable[[str], None],
        resume: Session | None = None,
        near: Server | None = None,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """`near`: the server on this host, if there is one (home.py)."""
        user, separator, password = credentials.strip().partition(":")
        if not (user and separator and password) or not servers:
            raise BadInput("the credentials for ZooKeeper must be one line user:password" if servers else
                           "no ZooKeeper server is named", hint="see `zookeeper:` in cluster.yaml")  # fmt: skip
        self.servers = tuple(servers)
        self.deadline_s = deadline_s
        self._heard_at = float("-inf")  # the newest answer to a call that waited
        self._acl = [make_digest_acl(user, password, all=True)]
        self._network = _Network(connect_s=min(max(session_s / 8, 0.1), 1.0))
        self._listen, self._happened = listen, happened
        self._kazoo = _Kazoo(
            hosts=",".join(servers),
            timeout=session_s,
            client_id=(resume.number, resume.password) if resume else None,
            handler=self._network,
            default_acl=self._acl,
            auth_data=[("digest", f"{user}:{password}")],
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, backoff=1.5, max_delay=min(1.0, session_s / 8)),
            logger=_kazoo_log,
            near=near,
            clock=clock,
        )
        self._near = near
        self._home: Home | None = None

    def start(self) -> None:
        self._kazoo.add_listener(self._state_changed)
        self._kazoo.start_async()
        if self._near is not None:
            self._home = Home(self._near, lambda: self.at_home if self._kazoo.connected else None, self._go_home)

    @property
    def at_home(self) -> bool:
        """Whether the server of the present connection, or of the newest attempt, is the one on this host."""
        return self._kazoo.at_home

    def _go_home(self) -> None:
        self._kazoo.go_home()
        self.drop()

    @property
    def session(self) -> Session | None:
        """None while there is no connection."""
        identity = self._kazoo.client_id
        return Session(*identity) if identity and identity[0] else None

    @property
    def session_s(self) -> float | None:
        """What the server has granted; None before the first connection."""
        return self._kazoo.granted_s

    @property
    def joined_at(self) -> float:
        """When the newest attempt to begin the session, or to take it up, was made, on `clock`."""
        return self._kazoo.joined_at

    def _state_changed(self, state: str) -> None:
        links = {KazooState.CONNECTED: Link.CONNECTED, KazooState.SUSPENDED: Link.LOST, KazooState.LOST: Link.EXPIRED}
        self._listen(links[state])

    def _watched(self, event: WatchedEvent) -> None:
        if event.type != EventType.NONE:  # that is the connection, upon which everything is read anew anyway
            self._happened(event.path)

    # reading: all that is asked for in one call is on its way at once

    def read(self, paths: Iterable[str], *, watch: bool = False) -> dict[str, Node | None]:
        """Content and facts of each path; None when it does not exist."""
        asked = {path: self._kazoo.get_async(path, watch=self._watched if watch else None) for path in paths}
        found = {path: self._answer(result, f"reading {path}") for path, result in asked.items()}
        return {path: _node(*entry) if entry else None for path, entry in found.items()}

    def facts(self, paths: Iterable[str]) -> dict[str, Node | None]:
        """The same without the content."""
        asked = {path: self._kazoo.exists_async(path) for path in paths}
        found = {path: self._answer(result, f"reading {path}") for path, result in asked.items()}
        return {path: _node(b"", stat) if stat else None for path, stat in found.items()}

    def await_answer(self, deadline_s: float) -> None:
        """See whether the server still answers, and go to another if it does not. Answers to others count: a long
        reading may be ahead of ours."""
        result, since = self._kazoo.exists_async("/"), time.monotonic()
        while not result.wait(timeout=deadline_s):
            if self._heard_at <= since:
                self.drop()
                return
            since = time.monotonic()

    def names(self, paths: Iterable[str], *, watch: bool = False) -> dict[str, tuple[str, ...]]:
        """The names below each path."""
        asked = {path: self._kazoo.get_children_async(path, watch=self._watched if watch else None) for path in paths}
        return {path: tuple(self._answer(result, f"reading {path}") or ()) for path, result in asked.items()}

    def is_open(self, path: str) -> bool | None:
        """Whether others than we may do something with it; None when it does not exist."""
        found = self._answer(self._kazoo.get_acls_async(path), f"reading who may use {path}")
        return None if found is None else list(found[0]) != self._acl

    # writing

    def write(self, root: str, *writes: Write) -> tuple[float, ...] | None:
        """All of it or nothing, below `root`. The times of the sets on the store's clock; None when something was not
        as the writes expected it. Raises Unreachable when there is no answer: nobody knows yet whether it was done."""
        transaction = self._prepared(root, writes)
        results = self._answer(transaction.commit_async(), f"writing {root}/{writes[0].path}") or []
        failures = [result for result in results if isinstance(result, Exception)]
        for failure in failures:
            if not isinstance(failure, (*_CONFLICTS, RolledBackError, RuntimeInconsistency)):
                raise self._error(failure, f"writing {root}/{writes[0].path}")
        if failures or not results:
            return None
        return tuple(result.mtime / 1000 for result in results if isinstance(result, ZnodeStat))

    def _prepared(self, root: str, writes: Sequence[Write]) -> Any:
        transaction = self._kazoo.transaction()
        for one in writes:
            match one:
                case Create(path, data, ephemeral, sequence):
                    transaction.create(f"{root}/{path}", data, ephemeral=ephemeral, sequence=sequence)
                case Set(path, data, version):
                    transaction.set_data(f"{root}/{path}", data, version)
                case Delete(path, version):
                    transaction.delete(f"{root}/{path}", version)
                case Check(path, version):
                    transaction.check(f"{root}/{path}", version)
        return transaction

    def make(self, *paths: str) -> None:
        """Create what does not exist yet."""
        for path, result in [(path, self._kazoo.create_async(path, b"")) for path in paths]:
            with contextlib.suppress(NodeExistsError):
                self._answer(result, f"making {path}", passing=(NodeExistsError,))

    def begin(self, path: str, data: bytes, version: int, done: Callable[[float | None, bool], None]) -> None:
        """Set without waiting. `done` is given the time of the write on the store's clock, or None when it failed, and
        then whether somebody else had written or removed it."""

        def answered(result: Any) -> None:
            if result.successful():
                done(result.value.mtime / 1000, False)
            else:
                done(None, isinstance(result.exception, (*_CONFLICTS, NoAuthError)))

        self._kazoo.set_async(path, data, version=version).rawlink(answered)

    def touch(self, done: Callable[[], None]) -> None:
        """Ask something, without waiting, and tell when it is answered."""

        def answered(result: Any) -> None:
            if result.successful():
                done()

        self._kazoo.exists_async("/").rawlink(answered)

    def begin_all(self, root: str, transaction: Sequence[Write], done: Callable[[bool], None]) -> None:
        """A transaction below `root`, without waiting. `done` is told whether it is known to have been done."""

        def answered(result: Any) -> None:
            done(result.successful() and not any(isinstance(one, Exception) for one in result.value))

        self._prepared(root, transaction).commit_async().rawlink(answered)

    # ending

    def drop(self) -> None:
        """End this connection, not the session; another server is tried at once."""
        self._network.drop()

    def pause(self) -> None:
        """End this connection, not the session, and make no other before `resume`."""
        self._network.paused = True
        self.drop()

    def resume(self) -> None:
        self._network.paused = False

    def close(self, *, keep_session: bool) -> None:
        if self._home is not None:
            self._home.close()
        if keep_session:
            self._network.end()
            deadline = time.monotonic() + _CLOSE_S
            while self._kazoo.connected and time.monotonic() < deadline:
                time.sleep(0.005)
        # A server that does not answer the good-bye is not waited for.
        impatient = threading.Timer(_CLOSE_S / 2, self._network.end)
        impatient.daemon = True
        impatient.start()
        with contextlib.suppress(KazooException, OSError):
            self._kazoo.stop()
            self._kazoo.close()
        impatient.cancel()

    # errors

    def _answer(self, result: Any, doing: str, passing: tuple[type[Exception], ...] = ()) -> Any:
        """The answer; None for a znode that does not exist."""
        try:
            found = result.get(timeout=self.deadline_s)
        except NoNodeError:
            found = None
        except passing:
            raise
        except KazooTimeoutError as late:
            self.drop()
            raise self._error(late, doing) from late
        except KazooException as error:
            raise self._error(error, doing) from error
        self._heard_at = time.monotonic()
        return found

    def _error(self, error: Exception, doing: str) -> FailoverError:
        if isinstance(error, (NoAuthError, AuthFailedError)):
            return Denied(
                f"ZooKeeper refuses {doing}", hint="are these the credentials that the cluster was made with?"
            )
        if isinstance(error, KazooTimeoutError):
            return Unreachable(f"ZooKeeper has not answered within {self.deadline_s:g} s ({doing})")
        return Unreachable(f"ZooKeeper cannot be used now ({doing}: {type(error).__name__})")


class _Network(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads and sockets: connect attempts end in time, connections can be ended from outside."""

    def __init__(self, connect_s: float) -> None:
        super().__init__()
        self._connect_s = connect_s
        self._socket: socket.socket | None = None
        self._over = False
        self.paused = False

    def create_connection(self, *args: Any, timeout: float | None = None, **rest: Any) -> socket.socket:
        if self._over:
            raise AuthFailedError("closed")  # the one error upon which kazoo ends its thread, and quietly
        if self.paused:
            raise ConnectionRefusedError("paused")
        limit_s = self._connect_s if timeout is None else min(timeout, self._connect_s)
        connection: socket.socket = super().create_connection(*args, timeout=limit_s, **rest)
        self._socket = connection
        if self.paused:  # meanwhile
            self.drop()
        return connection

    def drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._over = True
        self.drop()


class _Kazoo(KazooClient):  # type: ignore[misc]
    """Keeps what kazoo forgets: how long a session the server has granted, and since when. Prefers a server."""

    granted_s: float | None = None
    joined_at = float("-inf")

    def __init__(self, near: Server | None, clock: Callable[[], float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.clock = clock
        self._connection = _Connection(self, self._conn_retry.copy(), logger=self.logger)
        self._connection.near = near

    @property
    def at_home(self) -> bool:
        return bool(self._connection.at == self._connection.near)

    def go_home(self) -> None:
        self._connection.homeward = True


class _Connection(ConnectionHandler):  # type: ignore[misc]
    near: Server | None = None
    at: Server | None = None
    homeward = False  # no other is tried before the near one

    def _expand_client_hosts(self) -> list[tuple[str, str, int]]:
        found: list[tuple[str, str, int]] = super()._expand_client_hosts()
        return sorted(found, key=lambda server: (server[0].strip("[]"), server[2]) != self.near)

    def _connect_attempt(self, host: str, address: str, port: int, retry: Any) -> Any:
        self.at = (host.strip("[]"), port)
        if self.homeward and self.at != self.near:
            return None
        self.homeward = False
        return super()._connect_attempt(host, address, port, retry)

    def _connect(self, *address: Any) -> tuple[float, float]:
        self.client.joined_at = self.client.clock()  # before anybody is told that there is a connection
        read_timeout_ms, connect_timeout_ms = super()._connect(*address)
        self.client.granted_s = round(read_timeout_ms * 1.5) / 1000  # kazoo reads for two thirds of the session
        return read_timeout_ms, connect_timeout_ms


def _node(data: bytes, stat: ZnodeStat) -> Node:
    return Node(data, stat.version, stat.mtime / 1000, stat.mzxid, stat.ephemeralOwner)
