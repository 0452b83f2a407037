"""The leader's ear, over real UDP: what it answers, and that nothing else changes anything."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from failover import wire
from failover.boot import boot_time
from failover.grants.granting import Granting
from failover.grants.hearing import LONGEST, Hearing
from failover.grants.protocol import Ask, Footing, Grant, Letter
from failover.seal import Seal
from tests.stores import TIMING
from tests.test_granting import Cluster
from tests.wires import eventually

SEAL, STRANGE = Seal.of("user:secret", "grants", "contract"), Seal.of("user:guessed", "grants", "contract")


class Ear:
    """Hearing, on a free port of this machine."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.cluster = Cluster()
        self.cluster.clock = boot_time  # type: ignore[method-assign]
        self.cluster.agent._clock = self.cluster.leader._clock = boot_time
        self.cluster.leader._proofs.begun(boot_time())
        self.granting = Granting(self.cluster.leader, TIMING, boot_time)
        self.granting.lead(self.cluster.leader.lead())
        self.read = threading.Event()
        self.looks = 0
        self.hearing = Hearing(self.granting, SEAL, self.address, self.read.set, self.port)
        self.guard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.guard.settimeout(10)
        assert eventually(lambda: self.hearing.ready)

    def address(self) -> str:
        self.looks += 1
        return "127.0.0.1"

    def say(self, data: bytes) -> None:
        self.guard.sendto(data, ("127.0.0.1", self.port))

    def ask(self, number: int, footing: Footing | None = None) -> bytes:
        known = footing or self.cluster.agent.footing
        assert known is not None
        return SEAL.close(wire.encode(Letter(ask=Ask("alpha", known, number))))

    def answer(self) -> Letter:
        body = SEAL.open(self.guard.recv(65536))
        assert body is not None
        return wire.decode(Letter, body)


@contextmanager
def an_ear() -> Iterator[Ear]:
    made = Ear()
    try:
        yield made
    finally:
        made.hearing.close()
        made.guard.close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    with an_ear() as made:
        yield made


def test_many_questions_cost_few_looks_at_the_cluster(ear: Ear) -> None:
    for number in range(1, 301):
        ear.say(ear.ask(number))
        assert ear.answer().grant is not None
    assert ear.looks < 100


def test_a_question_is_answered_also_when_the_record_must_be_read_first(ear: Ear) -> None:
    for number in (1, 2):
        ear.say(ear.ask(number))
        said = ear.answer()
        assert said == Letter(grant=Grant(number, TIMING.grant_s), target="alpha")
    assert ear.read.is_set()


def test_who_goes_by_an_older_footing_has_no_answer(ear: Ear) -> None:
    older = ear.cluster.agent.footing
    ear.cluster.agent.renew(boot_time())
    ear.say(ear.ask(1, older))
    ear.guard.settimeout(0.5)
    with pytest.raises(TimeoutError):
        ear.answer()


BAD: dict[str, Callable[[Ear], bytes]] = {
    "nothing": lambda ear: b"",
    "shorter than a hash": lambda ear: b"x" * 31,
    "a hash of nothing": lambda ear: SEAL.close(b""),
    "no JSON": lambda ear: SEAL.close(b"{"),
    "another format": lambda ear: SEAL.close(b'{"format": 999}'),
    "an answer": lambda ear: SEAL.close(wire.encode(Letter(grant=Grant(1, 60.0), target="beta"))),
    "sealed by a stranger": lambda ear: STRANGE.close(SEAL.open(ear.ask(1)) or b""),
    "not sealed": lambda ear: SEAL.open(ear.ask(1)) or b"",
    "a bit is wrong": lambda ear: bytes([ear.ask(1)[0] ^ 1]) + ear.ask(1)[1:],
    "oversized": lambda ear: SEAL.close((SEAL.open(ear.ask(1)) or b"") + b" " * LONGEST),
    "of a host that is not there": lambda ear: SEAL.close(wire.encode(Letter(ask=Ask("zeta", Footing(1, 0), 1)))),
    "numbers as text": lambda ear: SEAL.close((SEAL.open(ear.ask(1)) or b"").replace(b'"number":1', b'"number":"1"')),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_question_changes_nothing_and_has_no_answer(ear: Ear, name: str) -> None:
    ear.say(BAD[name](ear))
    ear.say(ear.ask(7))
    assert ear.answer().grant == Grant(7, TIMING.grant_s), "the first answer is that to the good one"


def test_thousands_of_random_datagrams_change_nothing(ear: Ear) -> None:
    chance, good = random.Random(1), ear.ask(1)
    for _ in range(3000):
        data = bytearray(good)
        match chance.randrange(3):
            case 0:
                data = bytearray(chance.randbytes(chance.randrange(200)))
            case 1:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case _:
                del data[chance.randrange(len(data)) :]
        ear.say(bytes(data))
    assert ear.granting._grantor is not None
    assert ear.granting._grantor.end("alpha") == float("-inf"), "nothing was granted"
    ear.guard.settimeout(0.5)

    def answered() -> bool:  # the buffer may have been full
        ear.say(ear.ask(9))
        try:
            return ear.answer().grant == Grant(9, TIMING.grant_s)
        except TimeoutError:
            return False

    assert eventually(answered)
