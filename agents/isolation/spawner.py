"""The process that starts vservers: single-threaded, so that it may clone; small, so that it is seldom replaced.

    python -I -m agents.isolation.spawner [--socket /run/vserver/spawner.sock]

It is the parent of every init it has started, reaps them, and writes down how they end. The order of messages is drawn
in order.py; the consoles are held by a second process, see console.py.

Rule 1: one thread, for ever: a child of a process with threads may find a lock taken that nobody will give back.
Rule 2: nobody waits for a child: one that does not get to its exec in time is killed, with its cgroup.
Rule 3: nothing is started for somebody who has given up, or whose right to run it has ended: a start has a deadline.
Rule 4: it may be killed at any moment: vservers live on. The next spawner finds them by their records.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.isolation import birth, cgroup, confinement, console, entry, record, syscalls
from agents.isolation.order import (
    BIRTH_S,
    ExecuteOrder,
    Message,
    Order,
    PingOrder,
    Report,
    StartOrder,
    failure,
    from_message,
    peer_is_root,
    receive,
    send,
)
from failover.errors import FailoverError, Refused

_DYING_S = 2.0
_REAPED_S = 0.2


@dataclass
class Child:
    """A process on its way to exec. `pidfd` of an execute comes when its usher has cloned it."""

    name: str
    connection: socket.socket
    report: socket.socket
    deadline: float
    pidfd: int = -1
    pid: int = 0
    usher: int = -1  # of an execute: pidfd of the process that leads it in
    record: record.Record | None = None  # of an init
    handed: list[int] = field(default_factory=list)  # for the client: the terminal
    step: str = ""
    failed: Message | None = None


@dataclass(frozen=True)
class Life:
    """A process that runs: an init, or (with a connection) a program that somebody waits for."""

    name: str
    pidfd: int
    record: record.Record | None = None
    connection: socket.socket | None = None


class Spawner:
    def __init__(self, run: Path, *, birth_s: float = BIRTH_S) -> None:
        self._run = run
        self._birth_s = birth_s
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._keeper: socket.socket | None = None

    # --- the loop ---------------------------------------------------------------------------------------------------

    def serve(self, listener: socket.socket) -> None:
        self._watch(listener.fileno(), lambda: self._accept(listener))
        self._adopt()
        self._keeper = self._start_keeper()
        while True:
            first = min((child.deadline for child in self._children), default=None)
            timeout_s = None if first is None else max(0.0, first - time.monotonic())
            for key, _ in self._selector.select(timeout_s):
                if self._selector.get_map().get(key.fd) is key:  # not closed by an earlier one of this round
                    key.data()
            for child in [child for child in self._children if child.deadline <= time.monotonic()]:
                self._late(child)

    def _watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def _unwatch(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        if peer_is_root(connection):
            connection.setblocking(False)
            self._watch(connection.fileno(), lambda: self._hear(connection))
        else:
            connection.close()

    def _hear(self, connection: socket.socket) -> None:
        self._unwatch(connection.fileno())
        descriptors: list[int] = []
        try:
            message, descriptors = receive(connection)
            if message is not None:
                self._obey(from_message(message), descriptors, connection)
                return
        except (FailoverError, OSError, ValueError, TypeError, KeyError) as error:
            _tell(connection, failure(error))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        connection.close()

    def _obey(self, order: Order, descriptors: list[int], connection: socket.socket) -> None:
        match order:
            case StartOrder():
                self._start(order, descriptors, connection)
            case ExecuteOrder():
                self._execute(order, descriptors, connection)
            case PingOrder():
                _tell(connection, {"pid": os.getpid()})
                connection.close()

    # --- orders -----------------------------------------------------------------------------------------------------

    def _start(self, order: StartOrder, descriptors: list[int], connection: socket.socket) -> None:
        name = record.check_name(order.name)
        order.check_in_time()
        if cgroup.populated(cgroup.of(name)):
            raise Refused(f"{name} has processes already", hint="it runs, or is being started or stopped")
        if order.network == "given" and len(descriptors) != 1:
            raise Refused(f"{name}: no network namespace came along")
        record.begin(self._run, name)
        payload = os.open(cgroup.create(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = syscalls.clone(birth.namespaces(order), cgroup=payload, exit_signal=signal.SIGCHLD)
            if not pid:
                report = Report(theirs)
                ours.close()
                network = descriptors[0] if order.network == "given" else None
                confinement.run(report, lambda: birth.live(order, report, network))
        finally:
            os.close(payload)
            theirs.close()
        child = Child(name, connection, ours, time.monotonic() + self._birth_s, pidfd, pid)
        self._expect(child)
        try:
            child.record = record.of_process(name, pid, order.init, order.kind, order.epoch)
            record.write(self._run, child.record)
            send(ours, {"go": True})
        except OSError as error:
            self._fail(child, failure(error, "go"))

    def _execute(self, order: ExecuteOrder, descriptors: list[int], connection: socket.socket) -> None:
        name = record.check_name(order.name)
        found = record.read(self._run, name)
        init = record.open_process(found) if found else None
        if init is None:
            raise Refused(f"{name} does not run", hint=f"vserver {name} start")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if cgroup.frozen(cgroup.of(name)):
                raise Refused(f"{name} is frozen", hint="this host's right to run it is in doubt")
            if len(descriptors) != (0 if order.terminal else 3):
                raise Refused(f"{name}: three descriptors must come along, or none with a terminal")
            payload = os.open(cgroup.payload(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                pid, usher = syscalls.clone(0, cgroup=payload, exit_signal=signal.SIGCHLD)
                if not pid:
                    report = Report(theirs)
                    number = theirs.fileno()
                    confinement.run(report, lambda: entry.enter(order, report, number, init, descriptors))
            finally:
                os.close(payload)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(init)
            theirs.close()
        child = Child(name, connection, ours, time.monotonic() + self._birth_s, usher=usher)
        self._watch(usher, lambda: self._reap_usher(child))
        self._expect(child)

    # --- children on their way --------------------------------------------------------------------------------------

    def _expect(self, child: Child) -> None:
        self._children.append(child)
        child.report.setblocking(False)
        self._watch(child.report.fileno(), lambda: self._listen(child))

    def _listen(self, child: Child) -> None:
        try:
            message, descriptors = receive(child.report)
        except BlockingIOError:
            return
        if message is None:
            self._arrived(child)
        elif "failed" in message:
            child.failed = message
        elif "step" in message:
            child.step = message["step"]
        elif message.get("handed") == "console":
            self._keep_console(child, descriptors)
        elif message.get("handed") == "process":
            (child.pidfd,) = descriptors
        else:
            child.handed += descriptors

    def _arrived(self, child: Child) -> None:
        """The report has closed: it is the vserver's program now, or it is dead."""
        if child.failed or child.step != "exec" or child.pidfd < 0:
            died = {"failed": "its first process died on the way", "hint": "", "step": child.step, "errno": 0}
            self._fail(child, child.failed or died)
            return
        self._forget(child)
        life = Life(child.name, child.pidfd, child.record, None if child.record else child.connection)
        self._watch(child.pidfd, lambda: self._ended(life))
        _tell(child.connection, {"pid": child.pid}, [child.pidfd, *child.handed])
        for descriptor in child.handed:
            os.close(descriptor)
        if child.record:
            child.connection.close()
            _log(f"{child.name}: started, pid {child.pid}")

    def _late(self, child: Child) -> None:
        late = f"not done within {self._birth_s:g} s"
        self._fail(child, {"failed": late, "hint": "", "step": child.step, "errno": 0})

    def _fail(self, child: Child, message: Message) -> None:
        """Kill what there is of it, take away what was made for it, then answer."""
        self._forget(child)
        if child.pid:
            cgroup.kill(cgroup.of(child.name))
        if child.usher >= 0:
            signal.pidfd_send_signal(child.usher, signal.SIGKILL)
        if child.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            record.has_ended(child.pidfd, _DYING_S)
            _reap(child.pidfd)
            os.close(child.pidfd)
        for descriptor in child.handed:
            os.close(descriptor)
        if child.pid:
            record.forget(self._run, child.name)
            self._remove_cgroup(child.name)
        _log(f"{child.name}: {child.step}: {message['failed']}")
        _tell(child.connection, message)
        child.connection.close()

    def _forget(self, child: Child) -> None:
        self._children.remove(child)
        self._unwatch(child.report.fileno())
        child.report.close()

    # --- the keeper -------------------------------------------------------------------------------------------------

    def _start_keeper(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid, pidfd = syscalls.clone(0, exit_signal=signal.SIGCHLD)
        if not pid:
            confinement.run(Report(theirs), lambda: self._be_keeper(theirs))
        theirs.close()
        self._watch(pidfd, lambda: self._keeper_died(pidfd))
        return ours

    def _be_keeper(self, orders: socket.socket) -> None:
        os.setsid()
        confinement.keep_only((orders.fileno(),), [])
        console.keep(orders)

    def _keeper_died(self, pidfd: int) -> None:
        self._unwatch(pidfd)
        _reap(pidfd)
        os.close(pidfd)
        _log("the keeper of the consoles has died; those that it held have hung up")
        self._keeper = None

    def _keep_console(self, child: Child, terminal: list[int]) -> None:
        if self._keeper is None:
            self._keeper = self._start_keeper()
        log = self._run / child.name / "console.log"
        _tell(self._keeper, console.hand_over(log), [*terminal, child.pidfd])
        for descriptor in terminal:
            os.close(descriptor)

    # --- the end of a life ------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Watch what an earlier spawner has started."""
        for name in record.names(self._run):
            found = record.read(self._run, name)
            pidfd = record.open_process(found) if found else None
            if found and pidfd is not None:
                life = Life(name, pidfd, found)
                self._watch(pidfd, lambda life=life: self._ended(life))  # type: ignore[misc]
                _log(f"{name}: found running, pid {found.pid}")
            elif found:
                record.end(self._run, found, None)

    def _ended(self, life: Life) -> None:
        self._unwatch(life.pidfd)
        status = _reap(life.pidfd)
        os.close(life.pidfd)
        if life.record:
            record.end(self._run, life.record, status)
            self._remove_cgroup(life.name)
            _log(f"{life.name}: {record.how(status)[1]}")
        if life.connection:
            _tell(life.connection, {"ended": status})
            life.connection.close()

    def _remove_cgroup(self, name: str) -> None:
        try:
            cgroup.remove(name, timeout_s=0.1)
        except OSError as error:  # the next start takes it away, or says why it cannot
            _log(f"{name}: {error}")

    def _reap_usher(self, child: Child) -> None:
        self._unwatch(child.usher)
        _reap(child.usher)
        os.close(child.usher)
        child.usher = -1


def _reap(pidfd: int) -> int | None:
    """The wait status of a process that has ended: our child's, or by the kernel's memory somebody else's."""
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        deadline = time.monotonic() + _REAPED_S
        while (status := syscalls.exit_status(pidfd)) is None and time.monotonic() < deadline:
            time.sleep(0.01)  # its parent has not reaped it yet
        return status
    if found is None:
        return None
    return found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status


def _tell(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    try:
        send(connection, message, descriptors)
    except OSError:
        return  # who asked has gone


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"spawner: {line}\n")
        sys.stderr.flush()


def listen(path: Path) -> socket.socket:
    """Bind the socket in a directory that only root may enter. Refused if another spawner answers there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until we die, and by no child of ours
    except OSError as error:
        raise Refused(f"a spawner serves {path} already") from error
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)
    return listener


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="spawner", description="start vservers on behalf of the agent")
    parser.add_argument("--socket", type=Path, default=record.RUN / record.SOCKET)
    parser.add_argument("--birth-timeout", type=float, default=BIRTH_S, metavar="SECONDS")
    options = parser.parse_args(argv)
    try:
        listener = listen(options.socket)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # for every child too: nothing inside may look into us
        gc.freeze()
        Spawner(options.socket.parent, birth_s=options.birth_timeout).serve(listener)
    except FailoverError as error:
        _log(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
