"""Health checks against real servers on the loopback: what counts as a failure, and from when on."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agents.checks import Checks, Subject, Unasked, probe
from failover.model import Check
from tests.wires import Wires, eventually, inside

QUICK = {"every_s": 0.02, "timeout_s": 0.5, "fails": 3}


class Server(BaseHTTPRequestHandler):
    """/200 is answered with 200, /503 with 503; /302 leads elsewhere; /slow waits; /drip sends a byte now and then."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1.0)
        if self.path == "/drip":
            with suppress(OSError):  # nobody listens any more
                for byte in b"HTTP/1.1 200 OK\r\n\r\n":
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            return
        status = int(self.path[1:]) if self.path[1:].isdigit() else 200
        self.send_response(status)
        self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(port: int = 0) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", port), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def subject(*checks: Check, life: int = 1) -> Subject:
    return Subject("v1", (life, 0.0), checks)


def python(program: str, **changes: object) -> Check:
    return replace(Check(command=(sys.executable, "-S", "-c", program), timeout_s=5.0), **changes)  # type: ignore[arg-type]


# --- one probe --------------------------------------------------------------------------------------------------------

ANSWERS = {
    "an open port is well": (Check(tcp=0), ""),
    "the expected status is well": (Check(http="http://127.0.0.1:PORT/200"), ""),
    "another may be expected": (Check(http="http://127.0.0.1:PORT/503", expect=503), ""),
    "another than that is not": (
        Check(http="http://127.0.0.1:PORT/503"),
        "http://127.0.0.1:PORT/503 answers 503, not 200",
    ),
    "a redirection is not followed": (
        Check(http="http://127.0.0.1:PORT/302"),
        "http://127.0.0.1:PORT/302 answers 302, not 200",
    ),
    "silence is a failure": (
        Check(http="http://127.0.0.1:PORT/slow", timeout_s=0.1),
        "http://127.0.0.1:PORT/slow does not answer",
    ),
    "an answer that dribbles is too late": (
        Check(http="http://127.0.0.1:PORT/drip", timeout_s=0.3),
        "http://127.0.0.1:PORT/drip does not answer",
    ),
    "exit code 0 is well": (python("pass"), ""),
    "another exit code is not": (python("raise SystemExit(2)"), "python ends with 2"),
    "a program that does not end is killed": (
        python("import time; time.sleep(60)", timeout_s=0.2),
        "python does not end within 0.2 s",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer(name: str, port: int) -> None:
    check, expected = ANSWERS[name]
    if check.tcp is not None:
        check = replace(check, tcp=port)
    if check.http is not None:
        check = replace(check, http=check.http.replace("PORT", str(port)))
    said = probe(subject(check), check)
    assert said.replace(Path(sys.executable).name, "python") == expected.replace("PORT", str(port))


def test_an_answer_that_dribbles_is_not_waited_for(port: int) -> None:
    check, began = Check(http=f"http://127.0.0.1:{port}/drip", timeout_s=0.2), time.monotonic()
    assert probe(subject(check), check).startswith(f"{check.http} does not answer")
    assert time.monotonic() - began < 0.6


def test_a_port_that_nobody_has_opened(nobody: int) -> None:
    assert probe(subject(), Check(tcp=nobody)) == f"tcp {nobody} does not answer"


@pytest.mark.parametrize(
    "check",
    [Check(command=("/no/such/program",)), Check(http="gopher://127.0.0.1/"), Check(command=("true",), inside=True)],
    ids=["no such program on this host", "no web address", "it does not run, or there is no spawner"],
)
def test_what_cannot_be_asked_is_no_answer(check: Check) -> None:
    with pytest.raises(Unasked):
        probe(replace(subject(), name="nobody-has-this-name"), check)


@pytest.mark.needs("root")
def test_it_is_asked_from_within_the_network_of_the_vserver() -> None:
    wires = Wires()
    try:
        netns, check = wires.host("v1", "10.9.0.101/24"), Check(tcp=80)
        there = replace(subject(), address="10.9.0.101/24", netns=netns)
        assert probe(there, check) == "tcp 80 does not answer"
        with inside(netns, lambda: socket.create_server(("10.9.0.101", 80))):
            assert probe(there, check) == ""
    finally:
        wires.close()


# --- again and again --------------------------------------------------------------------------------------------------


class Watched:
    """The checks of v1, and how often somebody was told."""

    def __init__(self, grace_s: float) -> None:
        self.told = 0
        self.checks = Checks(self._changed, grace_s=grace_s)

    def _changed(self) -> None:
        self.told += 1

    @property
    def failing(self) -> str:
        return self.checks.failing("v1")


@pytest.fixture
def watched() -> Iterator[Watched]:
    """The grace is longer than any test."""
    made = Watched(grace_s=600.0)
    yield made
    made.checks.forget_others(())


def test_what_was_once_well_and_fails_so_often_is_failing(watched: Watched, nobody: int) -> None:
    watched.checks.watch(subject(Check(tcp=nobody, **QUICK)))  # type: ignore[arg-type]
    with serving(nobody):
        assert eventually(lambda: _healthy(watched))
        assert not watched.failing
    assert eventually(lambda: watched.failing)
    assert watched.failing == f"tcp {nobody} does not answer (3 times)"
    assert watched.told == 1
    with serving(nobody):
        assert eventually(lambda: not watched.failing)
    assert watched.told == 2


def _healthy(watched: Watched) -> bool:
    return any(tally.healthy for tally in watched.checks._watches["v1"]._tallies)


def test_a_boot_is_no_failure(watched: Watched, nobody: int) -> None:
    watched.checks.watch(subject(Check(tcp=nobody, **QUICK)))  # type: ignore[arg-type]
    time.sleep(0.5)  # 25 rounds
    assert not watched.failing


def test_after_the_grace_it_is_one(nobody: int) -> None:
    impatient = Watched(grace_s=0.0)
    impatient.checks.watch(subject(Check(tcp=nobody, **QUICK)))  # type: ignore[arg-type]
    assert eventually(lambda: impatient.failing)
    impatient.checks.forget("v1")
    assert not impatient.failing


def test_a_new_life_begins_well(nobody: int) -> None:
    impatient = Watched(grace_s=0.0)
    check = Check(tcp=nobody, **{**QUICK, "every_s": 0.1})  # type: ignore[arg-type]
    impatient.checks.watch(subject(check))
    assert eventually(lambda: impatient.failing)
    impatient.checks.watch(subject(check))
    assert impatient.failing  # the same life
    impatient.checks.watch(subject(check, life=2))
    assert not impatient.failing
    impatient.checks.forget("v1")


def test_one_check_of_several_is_enough(port: int, nobody: int) -> None:
    impatient = Watched(grace_s=0.0)
    good, bad = Check(tcp=port, **QUICK), Check(tcp=nobody, **{**QUICK, "fails": 1})  # type: ignore[arg-type]
    impatient.checks.watch(subject(good, bad))
    assert eventually(lambda: impatient.failing)
    assert impatient.failing == f"tcp {nobody} does not answer (1 time)"
    impatient.checks.forget("v1")


def test_what_cannot_be_asked_never_fails(nobody: int) -> None:
    impatient = Watched(grace_s=0.0)
    impatient.checks.watch(subject(replace(Check(command=("/no/such/program",)), every_s=0.02, fails=1)))
    time.sleep(0.3)
    assert not impatient.failing
    impatient.checks.forget("v1")


def test_nobody_waits_for_a_probe(port: int) -> None:
    impatient = Watched(grace_s=0.0)
    slow = Check(http=f"http://127.0.0.1:{port}/slow", every_s=0.01, timeout_s=5.0, fails=1)
    began = time.monotonic()
    impatient.checks.watch(subject(slow))
    time.sleep(0.05)  # it has been asked
    impatient.checks.failing("v1")
    impatient.checks.watch(subject(slow, life=2))
    impatient.checks.forget("v1")
    assert time.monotonic() - began < 0.9
