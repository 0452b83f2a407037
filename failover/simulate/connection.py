"""One process's connection to the store in memory, with its faults, and the mirror that is kept up to date through it.

Rule 1: the mirror is what was read last: a watch says only that something is different, and then it is read again.
Rule 2: a connection whose answers stay away is given up after two thirds of the session; nobody notices it earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from failover.errors import FailoverError
from failover.records import DIRECTORIES, FILES, Node, Role
from failover.simulate.line import Line
from failover.simulate.znodes import World
from failover.timing import Timing

_R = TypeVar("_R")


class Read(NamedTuple):
    """All znodes after this transaction."""

    zxid: int
    nodes: Mapping[str, Node]


class Connection:
    """`changed` is called in the midst of somebody's write: it may only take a note."""

    def __init__(
        self,
        world: World,
        role: Role,
        timing: Timing,
        changed: Callable[[], None],
        session: int | None,
        line: Line,
        clock: Callable[[], float],
    ) -> None:
        """`clock`: boot time of its host."""
        self._world, self._role, self._timing, self._changed, self._line = world, role, timing, changed, line
        self._clock = clock
        unwatched = ("leases", "taken")
        watched = (directory for directory in DIRECTORIES[role] if directory not in unwatched)
        self._followed = (*FILES[role], *(f"{directory}/" for directory in watched))
        self.session: int | None = session
        self._asked_s = timing.leader_session_s if role == "leader" else timing.session_s
        self._open = self._connected = self._fresh = self._closed = False
        self._link = 0  # counts the connections: what was begun under another one is void
        self._silence = 0  # counts the times that the answers stayed away or came back
        self._silent = self._notified = self._paused = False
        self._joined_at = 0.0  # when the newest attempt to connect was made, by its host's clock
        self._mirror: Mapping[str, Node] = {}
        self._read_at = 0.0  # since when it has been fresh without a break, on the store's clock
        self._known = 0  # the transaction after which something in the mirror was read

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def fresh(self) -> bool:
        return self._fresh

    @property
    def session_s(self) -> float | None:
        return self._asked_s

    @property
    def trouble(self) -> FailoverError | None:
        return None

    def cut(self) -> None:
        """The connection is lost, and this process knows it."""
        if not self._open:
            return
        self._open = self._connected = self._fresh = self._silent = self._notified = False
        self._link += 1
        self._lost()
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
        self._joined_at = self._clock()
        self._ask(partial(self._world.open, self._asked_s, self.session), self._opened)

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
                self._line.after(self._asked_s * 2 / 3, partial(self._notice, self._silence))
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
            self._begin_session()
        self._begin()
        self._changed()

    def _begin(self) -> None:
        """The lease, then the mirror (rule 2)."""
        self._ask(self._all, self._read)

    def _all(self) -> Read:
        return Read(self._world.zxid, self._world.nodes)

    def _read(self, read: Read) -> None:
        if read.zxid < self._known:
            self._ask(self._all, self._read)
            return
        self._read_at = self._read_at if self._fresh else self._world.clock()
        self._mirror, self._fresh, self._notified = read.nodes, True, False
        self._has_read()
        self._changed()

    def happened(self, paths: Sequence[str]) -> None:
        """Called by the world: what watches have to say."""
        if self._connected and self._role != "operator" and not self._notified:
            if not any(path.startswith(self._followed) for path in paths):
                return
            self._notified = True
            self._line.answer(partial(self._unless_void, self._link, partial(self._ask, self._look, self._saw)))

    def _look(self) -> Read:
        self._notified = False
        return self._all()

    def _saw(self, read: Read) -> None:
        if read.zxid < self._known:  # the mirror never goes back in time
            self._ask(self._look, self._saw)
            return
        self._mirror = {**read.nodes, **self._unread(read.nodes)}
        self._changed()

    def _unread(self, nodes: Mapping[str, Node]) -> Mapping[str, Node]:
        """Leases as they were read last (failover/zookeeper/mirror.py, rule 3)."""
        before = self._mirror
        alive = {path for path in nodes if path.startswith("alive/")}
        leases = [path.removeprefix("leases/") for path in nodes if path.startswith("leases/")]
        if alive != {path for path in before if path.startswith("alive/")} and len(alive) < len(leases):
            return {}  # somebody is gone
        same = [
            host
            for host in leases
            if all(_same(before.get(path), nodes.get(path)) for path in (f"alive/{host}", f"intent/hosts/{host}"))
        ]
        return {path: before[path] for host in same for path in (f"leases/{host}", f"taken/{host}") if path in before}

    def _lost(self) -> None:
        """What was begun in the connection is void."""

    def _begin_session(self) -> None:
        """It is another one than before."""

    def _has_read(self) -> None:
        """The mirror is fresh."""

    def _read_again(self, *paths: str) -> None:
        """Of what this process has written itself it knows at once."""
        found = {path: node for path in paths if (node := self._world.nodes.get(path))}
        self._mirror, self._known = {**self._mirror, **found}, self._world.zxid


def _same(before: Node | None, now: Node | None) -> bool:
    """Nothing was written."""
    return before == now if before is None or now is None else before.zxid == now.zxid
