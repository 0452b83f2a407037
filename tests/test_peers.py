"""From host to host over UDP: what is not of this cluster, late, twice or from before counts for nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agents.peers import Codec, Letter, Post, UdpPeers
from agents.promise import Answer, Message, Question
from failover.model import Cluster, Host
from tests.wires import Wires, eventually, inside

KNOWN = {"alpha": "", "beta": "", "gamma": ""}
SECRET = "failover:secret"
ASK, YES = Question(1, 1.5, {"v1": 7}), Answer(1, 1.5, ("v1",))

# --- what counts: no network ------------------------------------------------------------------------------------------


class Pair:
    """Alpha asks beta; each row says what arrives instead."""

    def __init__(self) -> None:
        self.alpha, self.beta = Post("alpha", "test", SECRET), Post("beta", "test", SECRET)

    def ask(self, number: int = 1, post: Post | None = None) -> bytes:
        return (post or self.alpha).question("beta", Question(number, 1.5, {"v1": 7}))

    def answer(self, number: int = 1) -> bytes:
        """Beta has heard the question."""
        data = self.beta.answer("alpha", answer_to(self.beta.take(self.ask(number), KNOWN)))
        assert data is not None
        return data


def answer_to(heard: tuple[str, Message] | str) -> Answer:
    assert not isinstance(heard, str) and isinstance(heard[1], Question)
    return Answer(heard[1].number, 1.5, ("v1",), life=heard[1].life)


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def twice(take: Callable[[bytes], object], data: bytes) -> object:
    take(data)
    return take(data)


def by(pair: Pair, data: bytes) -> object:
    return pair.alpha.take(data, KNOWN)


def to(pair: Pair, data: bytes) -> object:
    return pair.beta.take(data, KNOWN)


def late_twin(pair: Pair) -> object:
    """An answer to a question that an agent of alpha before this one has asked under the same number."""
    old = pair.answer()
    pair.alpha = Post("alpha", "test", SECRET)
    pair.ask()
    return by(pair, old)


def of_another_host(pair: Pair) -> object:
    """Gamma answers what beta was asked."""
    gamma = Post("gamma", "test", SECRET)
    heard = gamma.take(pair.alpha.question("gamma", Question(2, 1.5)), KNOWN)
    pair.ask(1)
    data = gamma.answer("alpha", replace(answer_to(heard), number=1))
    assert data is not None
    return by(pair, data)


def after_a_newer(pair: Pair) -> object:
    older, newer = pair.ask(1), pair.ask(2)
    to(pair, newer)
    return to(pair, older)


def of_a_new_life(pair: Pair) -> object:
    to(pair, pair.ask(5))
    return to(pair, pair.ask(1, Post("alpha", "test", SECRET)))


TAKEN = {"a question": ("alpha", ASK), "an answer": ("beta", YES)}
LETTERS: dict[str, tuple[Callable[[Pair], object], object]] = {
    "a question is heard": (lambda pair: to(pair, pair.ask()), TAKEN["a question"]),
    "an answer is heard": (lambda pair: by(pair, pair.answer()), TAKEN["an answer"]),
    "a question of a restarted agent is heard, whatever its number": (of_a_new_life, TAKEN["a question"]),
    "the same question again is not": (lambda pair: twice(lambda data: to(pair, data), pair.ask()), "a newer question"),
    "an older question is not": (after_a_newer, "a newer question"),
    "the same answer again is not": (
        lambda pair: twice(lambda data: by(pair, data), pair.answer()),
        "nobody has asked",
    ),
    "an answer to a question of an agent before is not": (late_twin, "nobody has asked"),
    "an answer of a host that was not asked this is not": (of_another_host, "nobody has asked"),
    "what was changed on its way is not": (lambda pair: to(pair, flipped(pair.ask())), "it has not the hash"),
    "what is cut off is not": (lambda pair: to(pair, pair.ask()[:-1]), "it has not the hash"),
    "nothing is not": (lambda pair: to(pair, b""), "it has not the hash"),
    "what is for another host is not": (lambda pair: by(pair, pair.ask()), "it is from alpha to beta of test"),
    "what comes from a stranger is not": (
        lambda pair: to(pair, Post("delta", "test", SECRET).question("beta", ASK)),
        "it is from delta to beta",
    ),
    "what another cluster with the same credentials says is not": (
        lambda pair: to(pair, Post("alpha", "other", SECRET).question("beta", ASK)),
        "it has not the hash",
    ),
    "what is said with other credentials is not": (
        lambda pair: to(pair, Post("alpha", "test", "failover:wrong").question("beta", ASK)),
        "it has not the hash",
    ),
    "an empty letter is not": (
        lambda pair: to(pair, Codec("test", SECRET).seal(Letter("test", "alpha", "beta", "life", 1))),
        "it says nothing",
    ),
}


@pytest.mark.parametrize("name", LETTERS)
def test_letters(name: str) -> None:
    make, expected = LETTERS[name]
    found = make(Pair())
    if isinstance(expected, str):
        assert isinstance(found, str) and found.startswith(expected)
    else:
        assert isinstance(found, tuple) and (found[0], replace(found[1], life="")) == expected


def test_an_answer_to_a_process_is_not_written_once_another_one_of_that_host_has_asked() -> None:
    """Its bond counts from the older question; under the same number the newer process would count from its own."""
    pair = Pair()
    heard = pair.beta.take(pair.ask(), KNOWN)
    successor = Post("alpha", "test", SECRET)
    newer = pair.beta.take(pair.ask(post=successor), KNOWN)
    assert pair.beta.answer("alpha", answer_to(heard)) is None
    data = pair.beta.answer("alpha", answer_to(newer))
    assert data is not None and isinstance(successor.take(data, KNOWN), tuple)


def test_an_answer_of_a_host_that_was_never_asked_is_not_written() -> None:
    assert Post("beta", "test", SECRET).answer("alpha", YES) is None


# --- over real wires --------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.timeout(60)
ANSWERER = """
import sys, time
from agents.peers import UdpPeers
from agents.promise import Answer
from tests.test_peers import cluster_of
peers = UdpPeers("beta", cluster_of(*sys.argv[1:]), "failover:secret", changed=lambda: None)
print("ready", flush=True)
while True:
    for host, question in peers.heard():
        peers.answer(host, Answer(question.number, question.length_s, tuple(question.epochs), life=question.life))
    time.sleep(0.005)
"""


def cluster_of(*addresses: str) -> Cluster:
    return Cluster("test", {name: Host(name, at) for name, at in zip(KNOWN, addresses, strict=False)}, {})


@contextmanager
def answering(netns: Path, *addresses: str) -> Iterator[None]:
    """Another process, on a host of its own, which promises whatever it is asked for."""
    argv = ["nsenter", f"--net={netns}", sys.executable, "-c", ANSWERER, *addresses]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def wires() -> Iterator[Wires]:
    made = Wires()
    yield made
    made.close()


class Asker:
    def __init__(self, netns: Path, *addresses: str) -> None:
        self.woken, self._netns, self._number = threading.Event(), netns, 0
        self.peers = inside(netns, lambda: UdpPeers("alpha", cluster_of(*addresses), SECRET, self.woken.set))
        assert eventually(lambda: self.peers.ready)

    def asks(self, timeout_s: float = 1.0) -> list[tuple[str, Message]]:
        """What comes back for one question."""
        self._number += 1
        self.woken.clear()
        inside(self._netns, lambda: self.peers.ask("beta", Question(self._number, 1.5, {"v1": 7})))
        self.woken.wait(timeout_s)
        return list(self.peers.heard())


FAMILIES = {
    "IPv4": ("10.9.0.1", "10.9.0.2"),
    "IPv6": ("fd09::1", "fd09::2"),
    "one of each": ("10.9.0.1", "fd09::2"),
}


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_question_is_answered_by_another_process_on_another_host(name: str, wires: Wires) -> None:
    addresses = FAMILIES[name]
    alpha = wires.host("alpha", "10.9.0.1/24", "fd09::1/64")
    beta = wires.host("beta", "10.9.0.2/24", "fd09::2/64")
    with answering(beta, *addresses):
        asker = Asker(alpha, *addresses)
        assert eventually(asker.asks)
        ((host, answer),) = asker.asks()
        assert (host, replace(answer, life="")) == ("beta", Answer(asker._number, 1.5, ("v1",)))
        asker.peers.close()


@pytest.mark.needs("root")
def test_garbage_a_cut_and_a_restart_cost_answers_and_nothing_else(wires: Wires) -> None:
    alpha, beta = wires.host("alpha", "10.9.0.1/24"), wires.host("beta", "10.9.0.2/24")
    addresses = ("10.9.0.1", "10.9.0.2")
    asker = Asker(alpha, *addresses)
    assert asker.asks(0.2) == []
    with answering(beta, *addresses):
        assert eventually(asker.asks)
        inside(beta, lambda: throw(b"\0" * 500, b"", b"x" * 60000))
        assert asker.asks()
        assert eventually(lambda: sum(asker.peers.dropped.values()) >= 3)
    wires.ip(alpha, "link set eth0 down")
    assert asker.asks(0.2) == []  # the network is unreachable: a loss like any other
    wires.ip(alpha, "link set eth0 up")
    assert asker.asks(0.2) == []
    with answering(beta, *addresses):
        assert eventually(asker.asks)
    asker.peers.close()


def throw(*datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        for data in datagrams:
            ours.sendto(data, ("10.9.0.1", 7181))


@pytest.mark.needs("root")
def test_a_host_whose_address_changes_is_heard_there(wires: Wires) -> None:
    alpha = wires.host("alpha", "10.9.0.1/24", "10.9.0.3/24")
    beta = wires.host("beta", "10.9.0.2/24")
    with answering(beta, "10.9.0.3", "10.9.0.2"):
        asker = Asker(alpha, "10.9.0.1", "10.9.0.2")
        assert asker.asks(0.3) == []
        asker.peers.know(cluster_of("10.9.0.3", "10.9.0.2"))
        assert eventually(asker.asks)
        asker.peers.close()
