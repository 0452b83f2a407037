"""Running a program inside a vserver, and carrying its input and output.

Exit codes are a shell's: 127 not found, 126 not executable, 128+n died of signal n; 124 ran out of time (then killed).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.command import Done
from agents.isolation import record, syscalls, terminal
from agents.isolation.order import ExecuteOrder, Message, ask, raise_failure, receive
from failover.errors import BadInput

NOT_EXECUTABLE, NOT_FOUND, TIMED_OUT, SIGNALLED = 126, 127, 124, 128

_ENDED_S = 5.0  # the spawner tells the exit code as soon as it has reaped


def execute(
    name: str,
    argv: Sequence[str],
    *,
    user: str = "root",
    stdin: bytes | int = b"",
    stdout: int | None = None,
    stderr: int | None = None,
    tty: bool = False,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
    run: Path = record.RUN,
) -> Done:
    """Run a program in all of the vserver's namespaces, behind the same walls as its init.

    `stdin`: bytes, or a descriptor to read from; `stdout`, `stderr`: a descriptor to write to, or None to get it in the
    answer. With `tty` it runs on a new terminal of the vserver, and `stdin` (a descriptor) and `stdout` are its other
    end. An empty argv is the user's login shell. Refused: it does not run, or is frozen, or has no such user.
    """
    if tty and isinstance(stdin, bytes):
        raise BadInput("a terminal needs a descriptor to read from")
    order = ExecuteOrder(record.check_name(name), tuple(argv), user, tty, dict(environment or {}))
    until = None if timeout_s is None else time.monotonic() + timeout_s
    if tty:
        assert isinstance(stdin, int)
        return _on_terminal(order, stdin, stdout, until, run)
    return _on_pipes(order, stdin, (stdout, stderr), until, run)


def _on_pipes(
    order: ExecuteOrder, stdin: bytes | int, targets: tuple[int | None, int | None], until: float | None, run: Path
) -> Done:
    with contextlib.ExitStack() as theirs:
        outputs = []
        ends = []
        for target in targets:
            read_end, write_end = os.pipe()
            outputs.append(terminal.Output(read_end, target))
            ends.append(write_end)
            theirs.callback(os.close, write_end)
        streams: list[terminal.Output | terminal.Input] = list(outputs)
        if isinstance(stdin, bytes):
            input_end = _in_memory(stdin)
        else:
            input_end, write_end = os.pipe()
            streams.append(terminal.Input(stdin, write_end))
        theirs.callback(os.close, input_end)
        try:
            answer, received, connection = ask(run, order, (input_end, *ends))
        except BaseException:
            theirs.close()
            _finish(streams)
            raise
    with connection:
        if "failed" in answer:
            _finish(streams)
            return _not_begun(order, answer, targets[1])
        (pidfd,) = received
        returncode = _wait(connection, pidfd, streams, until)
    return Done(returncode, bytes(outputs[0].kept), bytes(outputs[1].kept))


def _on_terminal(order: ExecuteOrder, stdin: int, stdout: int | None, until: float | None, run: Path) -> Done:
    term = {"TERM": os.environ.get("TERM", "dumb")}
    order = ExecuteOrder(order.name, order.argv, order.user, True, term | dict(order.environment))
    answer, received, connection = ask(run, order)
    with connection:
        if "failed" in answer:
            return _not_begun(order, answer, stdout)
        pidfd, master = received
        output = terminal.Output(master, stdout)
        with terminal.raw(stdin), terminal.following_size(stdin, master):
            returncode = _wait(connection, pidfd, [output, terminal.Input(stdin, os.dup(master))], until)
    return Done(returncode, bytes(output.kept), b"")


def _in_memory(data: bytes) -> int:
    """An anonymous file: it is no file of the host, and takes any amount without anybody to pump it."""
    descriptor = os.memfd_create("stdin")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _finish(streams: Sequence[terminal.Output | terminal.Input]) -> None:
    for stream in streams:
        stream.finish(0)


def _not_begun(order: ExecuteOrder, answer: Message, stderr: int | None) -> Done:
    """The shell's answer when there is no such program; an error when it is the vserver that is at fault."""
    if answer["step"] != "exec":
        raise_failure(order.name, answer)
    missing = answer["errno"] in (errno.ENOENT, errno.ENOTDIR)
    said = f"{order.argv[0] if order.argv else 'login shell'}: {answer['failed']}\n".encode()
    if stderr is not None:
        os.write(stderr, said)
        said = b""
    return Done(NOT_FOUND if missing else NOT_EXECUTABLE, b"", said)


def _wait(
    connection: socket.socket, pidfd: int, streams: Sequence[terminal.Output | terminal.Input], until: float | None
) -> int:
    try:
        in_time = terminal.pump(streams, pidfd, until)
        if not in_time:
            _kill(pidfd)
            return TIMED_OUT
        return _exit_code(connection, pidfd)
    except BaseException:  # interrupted: it shall not run on without anybody
        _kill(pidfd)
        raise
    finally:
        os.close(pidfd)


def _kill(pidfd: int) -> None:
    """Its process group, which is its session: what it has put into the background on purpose lives on."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, syscalls.PIDFD_SIGNAL_PROCESS_GROUP)
    except ProcessLookupError:
        return
    except OSError:  # kernels before 6.9
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _exit_code(connection: socket.socket, pidfd: int) -> int:
    connection.settimeout(_ENDED_S)
    try:
        message, _ = receive(connection)
    except TimeoutError:
        message = None
    status = message["ended"] if message else syscalls.exit_status(pidfd)  # the spawner has died meanwhile
    if status is None:
        return SIGNALLED + signal.SIGKILL
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code
