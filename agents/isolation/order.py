"""What is said to the spawner and by it: one JSON document and descriptors per message, on local sockets.

       client                     spawner                        child
         StartOrder, netns fd ──────▶ clone into its cgroup ──────▶ waits
                                      state.json, "go" ───────────▶ mounts, pivot_root, walls
                                      ◀──────────── step by step; the console's terminal
         pid + pidfd ◀─────────────── end of file: exec has happened
         "it ended" (execute only) ◀─ reaped

Rule 1: root only, on both ends (SO_PEERCRED), in a directory of mode 0700.
Rule 2: an order waits in the socket when nobody takes it up, also after its client has gone: so a start says until when
        it may be done, and it is looked at twice: when it is taken up, and by the child right before exec.
Rule 3: the child's end closes on exec, so end of file after the step "exec" is success, and before it is death.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.isolation.record import SOCKET
from failover.boot import boot_time
from failover.errors import Denied, FailoverError, Refused, Unreachable

MESSAGE_BYTES = 128 * 1024
DESCRIPTORS = 4
BIRTH_S = 10.0  # a start may take that long until exec; then its cgroup is killed
ASK_S = BIRTH_S + 5  # an order that has not been done by then is not done any more
_ANSWER_S = 1.0  # a client waits that much longer, to hear why

Message = dict[str, Any]


@dataclass(frozen=True)
class StartOrder:
    """`network`: given (a descriptor comes along) | fresh. `until`: boot time after which it must not be started.
    `epoch`: of the leader's word that it obeys; 0: a human's."""

    name: str
    tree: str
    hostname: str
    init: tuple[str, ...]
    kind: str
    network: str
    until: float
    environment: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0

    def check_in_time(self) -> None:
        late_s = boot_time() - self.until
        if late_s >= 0:
            raise Refused(
                f"it was to be started {late_s:.1f} s earlier or not at all",
                hint="this host is slow, or its right to run it has ended; nothing was started",
            )


@dataclass(frozen=True)
class ExecuteOrder:
    """`terminal`: on a new terminal of the vserver; else three descriptors come along: stdin, stdout, stderr."""

    name: str
    argv: tuple[str, ...]
    user: str = "root"
    terminal: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PingOrder:
    name: str = ""


Order = StartOrder | ExecuteOrder | PingOrder
_KINDS: dict[str, type[StartOrder] | type[ExecuteOrder] | type[PingOrder]] = {
    "start": StartOrder,
    "execute": ExecuteOrder,
    "ping": PingOrder,
}


def to_message(order: Order) -> Message:
    kind = next(kind for kind, of in _KINDS.items() if isinstance(order, of))
    return {"order": kind} | asdict(order)


def from_message(message: Message) -> Order:
    fields = dict(message)
    kind = _KINDS[fields.pop("order")]
    for key in ("init", "argv"):
        if key in fields:
            fields[key] = tuple(fields[key])
    return kind(**fields)


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([json.dumps(message).encode()], rights)


def receive(connection: socket.socket) -> tuple[Message | None, list[int]]:
    """One message and its descriptors (close-on-exec); None: the other end has closed."""
    try:
        data, descriptors, flags, _ = socket.recv_fds(connection, MESSAGE_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None, []
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("too long")
        return (json.loads(data) if data else None), descriptors
    except ValueError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def peer_is_root(connection: socket.socket) -> bool:
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == 0)


def failure(error: BaseException, step: str = "") -> Message:
    """An error as a message: what `raise_failure` raises again on the other side."""
    if isinstance(error, FailoverError):
        return {"failed": error.message, "hint": error.hint, "step": step, "errno": 0}
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return {"failed": f"{error.strerror}{where}", "hint": "", "step": step, "errno": error.errno or 0}
    return {"failed": f"{type(error).__name__}: {error}", "hint": "", "step": step, "errno": 0}


def connect(run: Path, timeout_s: float) -> socket.socket:
    path = run / SOCKET
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
    except PermissionError as error:
        connection.close()
        raise Denied(f"only root may talk to the spawner on {path}") from error
    except OSError as error:
        connection.close()
        raise Unreachable(
            f"the spawner does not answer on {path}", hint="start it: python -I -m agents.isolation.spawner"
        ) from error
    return connection


def ask(run: Path, order: Order, descriptors: Sequence[int] = ()) -> tuple[Message, list[int], socket.socket]:
    """Send an order and wait for the first answer. The connection stays open: more may follow on it."""
    connection = connect(run, ASK_S + _ANSWER_S)
    try:
        send(connection, to_message(order), descriptors)
        answer, received = receive(connection)
    except (TimeoutError, BrokenPipeError) as error:
        connection.close()
        raise Unreachable(f"the spawner on {run / SOCKET} did not answer in time", hint="is it frozen?") from error
    if answer is None:
        connection.close()
        raise Unreachable(f"the spawner on {run / SOCKET} went away without an answer", hint="see its log")
    return answer, received, connection


def raise_failure(name: str, answer: Message) -> None:
    if "failed" in answer:
        step = f" ({answer['step']})" if answer["step"] and not answer["hint"] else ""
        raise Refused(f"{name}{step}: {answer['failed']}", hint=answer["hint"])


class Report:
    """The child's mouth. It never takes the child down: who listens may have died."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._step = ""

    def step(self, step: str) -> None:
        self._step = step
        self._say({"step": step})

    def hand(self, what: str, *descriptors: int) -> None:
        self._say({"handed": what}, descriptors)

    def failed(self, error: BaseException) -> None:
        self._say(failure(error, self._step))

    def await_go(self) -> bool:
        message, _ = receive(self._connection)
        return message == {"go": True}

    def _say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        try:
            send(self._connection, message, descriptors)
        except OSError:
            return
