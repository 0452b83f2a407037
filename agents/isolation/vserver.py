"""Vservers on this host: start, stop, kill, freeze, thaw, status. For the agent (which has threads) and the commands.

Rule 1: nothing here forks: the spawner does, on a word over its socket. Everything but `start` works without it.
Rule 2: what is running is the kernel's word (cgroup, pidfd), never only a file's.
Rule 3: each call may be repeated: starting what runs and stopping what is stopped are successes.
Rule 4: a frozen vserver is killed as it is, never thawed for it: it may belong to another host by now.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agents.isolation import cgroup, record, syscalls
from agents.isolation import init as inits
from agents.isolation.execution import execute
from agents.isolation.order import ASK_S, PingOrder, StartOrder, ask, raise_failure
from agents.isolation.record import RUN, Ended
from failover.boot import boot_time
from failover.errors import FailoverError, Refused, Unreachable
from failover.model import State

__all__ = [
    "RUN", "Settings", "Status", "adopt", "execute", "freeze", "kill", "spawner_answers", "start", "status", "stop",
    "thaw",
]  # fmt: skip

_KILL_S = 10.0  # processes that a kill has not ended by then hang in the kernel
_LISTEN_S = 2.0  # an unknown init that does not hear its signal by then never will
_LOOK_S = 0.02


@dataclass(frozen=True)
class Settings:
    """What a vserver is started with. `netns`: a bind-mounted network namespace that the caller has prepared; without
    one it gets a fresh one with nothing but lo. `until`: boot time (CLOCK_BOOTTIME) after which it must not be
    started, as when the host's right to run it ends; a start that comes to that is refused, whoever was slow. `epoch`:
    of the leader's word that it obeys; 0: a human starts it."""

    name: str
    tree: Path
    netns: Path | None = None
    hostname: str = ""
    init: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    until: float = math.inf
    epoch: int = 0


@dataclass(frozen=True)
class Status:
    """`since_at`: since when it is in this state, if known. `because`, `ended`: how its last life ended. `epoch`: of
    the word under which what runs was started or adopted; 0: by a human, if there is a `pid`."""

    name: str
    state: State
    pid: int | None = None
    since_at: float = 0.0
    because: str = ""
    init: tuple[str, ...] = ()
    ended: Ended | None = None
    epoch: int = 0


def start(settings: Settings, *, run: Path = RUN) -> Status:
    """Start it and return when its init has begun; one that runs (or is frozen) is left as it is."""
    name = record.check_name(settings.name)
    now = status(name, run=run)
    if now.state is not State.STOPPED:
        return now
    try:
        init = inits.find(settings.tree, settings.init)
    except FailoverError as error:
        raise type(error)(f"{name}: {error.message}", hint=error.hint) from error
    order = StartOrder(
        name=name,
        tree=str(settings.tree.absolute()),
        hostname=settings.hostname or name,
        init=init.argv,
        kind=init.kind.name,
        network="given" if settings.netns else "fresh",
        until=min(settings.until, boot_time() + ASK_S),
        environment=dict(settings.environment),
        epoch=settings.epoch,
    )
    with _opened(settings.netns) as descriptors:
        answer, received, connection = ask(run, order, descriptors)
    connection.close()
    for descriptor in received:
        os.close(descriptor)
    raise_failure(name, answer)
    return status(name, run=run)


@contextlib.contextmanager
def _opened(netns: Path | None) -> Iterator[tuple[int, ...]]:
    if netns is None:
        yield ()
        return
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"there is no network namespace at {netns} ({error.strerror})") from error
    try:
        yield (descriptor,)
    finally:
        os.close(descriptor)


def stop(name: str, *, timeout_s: float = 30, run: Path = RUN) -> Status:
    """Ask the init to stop in order, wait `timeout_s`, then kill what is left. A frozen one is killed at once."""
    now = status(name, run=run)
    if now.state is State.RUNNING:
        found, pidfd = _first_process(name, run)
        if found and pidfd is not None:
            try:
                _ask_to_stop(found, pidfd, run, time.monotonic() + timeout_s, timeout_s)
            finally:
                os.close(pidfd)
    if now.state is State.FROZEN:
        record.ask(run, name, Ended.KILLED, "it was frozen, so it was killed")
    if now.state is not State.STOPPED:
        _finish(name, run)
    return status(name, run=run)


def kill(name: str, *, run: Path = RUN) -> Status:
    """End all its processes without a word, frozen or not."""
    now = status(name, run=run)
    if now.state is not State.STOPPED:
        record.ask(run, name, Ended.KILLED, "it was killed")
        _finish(name, run)
    return status(name, run=run)


def freeze(name: str, *, timeout_s: float = 2.0) -> None:
    """Return once every process stands still."""
    with _explained(name, "frozen"):
        cgroup.freeze(cgroup.of(record.check_name(name)), timeout_s)


def thaw(name: str, *, timeout_s: float = 2.0) -> None:
    with _explained(name, "thawed"):
        cgroup.thaw(cgroup.of(record.check_name(name)), timeout_s)


@contextlib.contextmanager
def _explained(name: str, done: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Refused(f"{name} does not run, so it cannot be {done}") from error
    except TimeoutError as error:
        raise Unreachable(
            f"{name} could not be {done}: {error.strerror}", hint="a process hangs in the kernel"
        ) from error


def status(name: str, *, run: Path = RUN) -> Status:
    record.check_name(name)
    path = cgroup.of(name)
    found, pidfd = _first_process(name, run)
    if pidfd is not None:
        os.close(pidfd)
    if pidfd is not None or cgroup.populated(path):
        state = State.FROZEN if cgroup.frozen(path) else State.RUNNING
        if found and pidfd is not None:
            return Status(name, state, found.pid, found.at, init=found.init, epoch=found.epoch)
        return Status(name, state, because="its first process has ended or was never recorded; others are left")
    last = record.last_exit(run, name)
    if last is None:
        ended, because = record.how(None) if found else (None, "")
        return Status(name, State.STOPPED, because=because, init=found.init if found else (), ended=ended)
    return Status(name, State.STOPPED, None, last.at, last.because, last.init, last.ended)


def adopt(name: str, epoch: int, *, run: Path = RUN) -> None:
    """Write down that what runs was not started under this word, but runs under it from now on."""
    found, pidfd = _first_process(record.check_name(name), run)
    if found and pidfd is not None:
        record.write(run, replace(found, epoch=epoch))
        os.close(pidfd)


def spawner_answers(run: Path = RUN) -> bool:
    try:
        _, received, connection = ask(run, PingOrder())
    except FailoverError:
        return False
    connection.close()
    return not received


# --- stopping ---------------------------------------------------------------------------------------------------------


def _first_process(name: str, run: Path) -> tuple[record.Record | None, int | None]:
    found = record.read(run, name)
    return found, record.open_process(found) if found else None


def _ask_to_stop(found: record.Record, pidfd: int, run: Path, until: float, timeout_s: float) -> None:
    """Returns when the init has ended or is to be killed."""
    kind = inits.KINDS.get(found.kind, inits.KINDS["other"])
    record.ask(run, found.name, Ended.STOPPED, "it was stopped")
    command = kind.stop_command
    asked = _run_inside(found.name, command, run) if command else _signal(found, pidfd, kind, until)
    if asked and record.has_ended(pidfd, max(0.0, until - time.monotonic())):
        return
    why = f"it did not stop within {timeout_s:g} s" if asked else "its init could not be asked to stop"
    record.ask(run, found.name, Ended.KILLED, f"{why}, so it was killed")


def _run_inside(name: str, argv: tuple[str, ...], run: Path) -> bool:
    try:
        return execute(name, argv, timeout_s=10, run=run).returncode == 0
    except FailoverError:
        return False


def _signal(found: record.Record, pidfd: int, kind: inits.Kind, until: float) -> bool:
    """Send its signal, once it listens: before, the kernel would drop it. False: it never will."""
    number = kind.stop_signal or signal.SIGTERM
    if kind.name == "other":
        until = min(until, time.monotonic() + _LISTEN_S)
    while not inits.listens(found.pid, number):
        if record.has_ended(pidfd, _LOOK_S):
            return True
        if time.monotonic() > until:
            return False
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
    return True


def _finish(name: str, run: Path) -> None:
    """Kill what is left, wait until nothing is, write down how it ended, remove its cgroups."""
    path = cgroup.of(name)
    found, pidfd = _first_process(name, run)
    cgroup.kill(path)
    try:
        cgroup.wait_empty(path, _KILL_S)
    except TimeoutError as error:
        left = ", ".join(str(pid) for pid in cgroup.processes(path))
        hint = "they hang in the kernel (a disk or file server that does not answer?)"
        raise Unreachable(f"{name} has processes that cannot be killed: {left}", hint=hint) from error
    wait_status = None
    if pidfd is not None:
        record.has_ended(pidfd, _KILL_S)
        wait_status = syscalls.exit_status(pidfd)
        os.close(pidfd)
    if found:
        record.end(run, found, wait_status)
    with contextlib.suppress(OSError):  # a cgroup that is empty may stay: the next start takes it away
        cgroup.remove(name)
