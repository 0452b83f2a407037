"""The health checks of what runs here: a thread per vserver asks, and whoever wants to know reads what it has found.

    tcp      a connection to its first address            from within its network: a host cannot reach its own macvlans,
    http     GET; the status is compared, not followed    and the question is whether the vserver serves
    command  on the host, or inside the vserver; exit code 0 is well

Rule 1: nobody waits for a probe. One that hangs holds up the other checks of its own vserver only, and an HTTP one
        for no longer than its timeout, however the answer dribbles.
Rule 2: `fails` failures in a row make it failing, one success makes it well.
Rule 3: a boot is no failure: failures count from the first success on, or when it has been watched for GRACE_S. The
        watch begins anew with each life of the vserver, and when it is thawed, when its checks change or the agent
        is a new one.
Rule 4: what could not be asked (no such program on this host, no spawner, a web address that is none) says nothing
        about the vserver: it counts neither way, and is logged once.
"""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import ip_interface
from pathlib import Path
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

from agents import command, network
from agents.isolation import vserver as isolation
from agents.isolation.execution import TIMED_OUT
from failover.errors import FailoverError, Refused
from failover.model import Check

log = logging.getLogger("failover.checks")

GRACE_S = 30.0


@dataclass(frozen=True)
class Subject:
    """One life of a vserver. `address`: its first one, as in cluster.yaml. `netns`: its network; None: ours."""

    name: str
    life: tuple[int | None, float]
    checks: tuple[Check, ...]
    address: str = "127.0.0.1/8"
    netns: Path | None = None


class Unasked(Refused):
    """The question could not be put, so there is no answer."""


class Checks:
    """`changed` is called, from any thread, when a vserver begins or ceases to fail. All other calls by one thread."""

    def __init__(self, changed: Callable[[], None], *, grace_s: float = GRACE_S) -> None:
        self._changed, self._grace_s = changed, grace_s
        self._watches: dict[str, _Watch] = {}

    def watch(self, subject: Subject) -> None:
        """Have it checked from now on; one that is checked already in this life goes on as it is."""
        known = self._watches.get(subject.name)
        if known is not None and known.subject == subject:
            return
        self.forget(subject.name)
        if subject.checks:
            self._watches[subject.name] = _Watch(subject, self._changed, self._grace_s)

    def forget_others(self, names: Collection[str]) -> None:
        for name in self._watches.keys() - set(names):
            self.forget(name)

    def forget(self, name: str) -> None:
        known = self._watches.pop(name, None)
        if known is not None:
            known.end()

    def failing(self, name: str) -> str:
        """Why it fails, as in 'tcp 80 does not answer (3 times)'; empty while it is well or not checked."""
        known = self._watches.get(name)
        return known.failing if known is not None else ""


@dataclass
class _Tally:
    """One check of one life."""

    check: Check
    due_at: float
    healthy: bool = False  # once
    row: int = 0  # of failures
    problem: str = ""
    unasked: str = ""

    def count(self, problem: str, in_grace: bool) -> None:
        if not problem:
            self.healthy, self.row, self.problem = True, 0, ""
        elif self.healthy or not in_grace:
            self.row += 1
            self.problem = problem

    @property
    def failing(self) -> str:
        fails = self.row >= self.check.fails
        return f"{self.problem} ({self.check.fails} time{'s' * (self.check.fails > 1)})" if fails else ""


class _Watch:
    def __init__(self, subject: Subject, changed: Callable[[], None], grace_s: float) -> None:
        self.subject = subject
        self.failing = ""
        self._changed = changed
        self._ended = threading.Event()
        now = time.monotonic()
        self._counts_at = now + grace_s
        self._tallies = [_Tally(check, now) for check in subject.checks]
        threading.Thread(target=self._run, name=f"checks of {subject.name}", daemon=True).start()

    def end(self) -> None:
        """What a probe under way will find does not count any more."""
        self._ended.set()

    def _run(self) -> None:
        while True:
            tally = min(self._tallies, key=lambda tally: tally.due_at)
            if self._ended.wait(max(0.0, tally.due_at - time.monotonic())):
                return
            tally.due_at = time.monotonic() + tally.check.every_s
            self._ask(tally)

    def _ask(self, tally: _Tally) -> None:
        try:
            problem, tally.unasked = probe(self.subject, tally.check), ""
        except Exception as error:  # a probe that breaks must not end the checks
            if str(error) != tally.unasked:
                log.warning("%s: not checked: %s", self.subject.name, error)
            tally.unasked = str(error)
            return
        if self._ended.is_set():
            return
        tally.count(problem, in_grace=time.monotonic() < self._counts_at)
        failing = "; ".join(tally.failing for tally in self._tallies if tally.failing)
        before, self.failing = self.failing, failing
        if failing != before:
            log.log(logging.ERROR if failing else logging.INFO, "%s: %s", self.subject.name, failing or "well again")
            self._changed()


# --- one probe --------------------------------------------------------------------------------------------------------


def probe(subject: Subject, check: Check) -> str:
    """What is wrong; empty when all is well. Raises when it could not be asked."""
    if check.command:
        return _inside(subject.name, check) if check.inside else _on_the_host(check)
    ask = _http if check.http is not None else _tcp
    began = time.monotonic()
    problem = network.inside(subject.netns, lambda: ask(subject, check)) if subject.netns else ask(subject, check)
    late = time.monotonic() - began > check.timeout_s  # it may have dribbled, or its name was long looked for
    return problem or (f"{_asked(check)} does not answer within {check.timeout_s:g} s" if late else "")


def _asked(check: Check) -> str:
    return check.http if check.http is not None else f"tcp {check.tcp}"


def _tcp(subject: Subject, check: Check) -> str:
    assert check.tcp is not None
    try:
        socket.create_connection((str(ip_interface(subject.address).ip), check.tcp), check.timeout_s).close()
    except OSError:
        return f"{_asked(check)} does not answer"
    return ""


def _http(_: Subject, check: Check) -> str:
    """No proxy, no redirection, nothing but http and https: the status is the answer."""
    assert check.http is not None
    opener, sockets = OpenerDirector(), list[socket.socket]()
    opener.add_handler(_Http(sockets))
    opener.add_handler(_Https(sockets))
    deadline = threading.Timer(check.timeout_s, _shut_down, (sockets,))  # the socket's own counts from byte to byte
    deadline.daemon = True
    deadline.start()
    try:
        answer = opener.open(check.http, timeout=check.timeout_s)
        if answer is None:
            raise Unasked(f"{check.http} is no web address")
        with answer:
            status = answer.status
    except (OSError, HTTPException):
        return f"{_asked(check)} does not answer"
    finally:
        deadline.cancel()
        for made in sockets:
            made.close()
    return "" if status == check.expect else f"{_asked(check)} answers {status}, not {check.expect}"


class _Http(HTTPHandler):
    """Notes the sockets that it opens."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(_noting, HTTPConnection, self._sockets), request)


class _Https(HTTPSHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(_noting, HTTPSConnection, self._sockets), request)


def _noting(kind: type[HTTPConnection], sockets: list[socket.socket], host: str, **rest: Any) -> HTTPConnection:
    """A connection that notes its socket before anything is said on it, a TLS handshake included."""
    connection = kind(host, **rest)

    def connect(*arguments: Any, **settings: Any) -> socket.socket:
        made = socket.create_connection(*arguments, **settings)
        sockets.append(made.dup())  # TLS takes the other one over
        return made

    connection._create_connection = connect  # type: ignore[attr-defined]
    return connection


def _shut_down(sockets: list[socket.socket]) -> None:
    for made in sockets:
        with suppress(OSError):
            made.shutdown(socket.SHUT_RDWR)


def _on_the_host(check: Check) -> str:
    program = check.command[0]
    if shutil.which(program) is None:
        raise Unasked(f"this host has no program {program}")
    try:
        command.run(check.command, timeout_s=check.timeout_s)
    except command.CommandFailed as failed:
        return _ended(check, failed.returncode)
    return ""


def _inside(name: str, check: Check) -> str:
    try:
        done = isolation.execute(name, check.command, timeout_s=check.timeout_s)
    except FailoverError as error:
        raise Unasked(str(error)) from error
    return _ended(check, None if done.returncode == TIMED_OUT else done.returncode)


def _ended(check: Check, code: int | None) -> str:
    program = Path(check.command[0]).name
    if code is None:
        return f"{program} does not end within {check.timeout_s:g} s"
    return f"{program} ends with {code}" if code else ""
