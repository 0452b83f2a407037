"""From host to host: questions and answers in UDP datagrams, each with a keyed hash.

    port 7181 of every host's address    a letter as JSON (failover/wire.py), sealed (failover/seal.py)

Rule 1: what has not the right hash, or is for another host or from a stranger, is dropped; that is said once.
Rule 2: an answer counts once, and only for a question that this very process has asked that host: it bears the number
        that no other process has ever used. So nothing that is sent again, late or twice, is taken for an answer. It is
        sealed with the life of the question that it answers: the bond counts from the hearing of that one.
Rule 3: a question that is no newer than the last one of the same process is dropped. One of a process that is gone may
        come again: then this host is bound once more, and only waits longer.
Rule 4: an answer goes to the address that the cluster has for the asker, wherever its question came from.
Rule 5: sending never waits; one thread hears. Whatever is wrong with the network is a loss, like any other.
"""

from __future__ import annotations

import logging
import secrets
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from agents.promise import Answer, Message, Question
from failover import udp, wire
from failover.errors import FailoverError
from failover.model import Cluster
from failover.seal import Seal

PORT = 7181
AGAIN_S = 1.0  # after the socket could not be opened, or has failed
WAITING = 1000  # messages that nobody has taken yet, and questions that may still be answered: the newest
LONGEST = 65535

log = logging.getLogger("failover.peers")


@dataclass(frozen=True)
class Letter:
    """`life`: the process that asked; `number`: of its question. Both are the asker's in the answer, too."""

    cluster: str
    source: str
    target: str
    life: str
    number: int
    question: Question | None = None
    answer: Answer | None = None


class Codec:
    """Letters to bytes and back; what is not from a host of this cluster is None."""

    def __init__(self, cluster: str, credentials: str) -> None:
        self._seal = Seal.of(credentials, "promises", cluster)

    def seal(self, letter: Letter) -> bytes:
        return self._seal.close(wire.encode(letter))

    def open(self, data: bytes) -> Letter | None:
        try:
            body = self._seal.open(data)
            return None if body is None else wire.decode(Letter, body)
        except FailoverError:
            return None


class Post:
    """What is sent, and what of that which comes in counts (rules 1 to 3). No network, no thread, no clock."""

    def __init__(self, host: str, cluster: str, credentials: str) -> None:
        self._host, self._cluster, self._codec = host, cluster, Codec(cluster, credentials)
        self._life = secrets.token_hex(16)
        self._asked: dict[int, str] = {}  # number of a question that has no answer: whom
        self._newest: dict[str, tuple[str, int]] = {}  # per host, its newest question: life and number

    def question(self, host: str, question: Question) -> bytes:
        self._asked[question.number] = host
        while len(self._asked) > WAITING:
            del self._asked[next(iter(self._asked))]
        return self._codec.seal(Letter(self._cluster, self._host, host, self._life, question.number, question=question))

    def answer(self, host: str, answer: Answer) -> bytes | None:
        """None when the newest question of that host is another process's, or there was none."""
        life, _ = self._newest.get(host, ("", 0))
        if not life or answer.life != life:
            return None
        return self._codec.seal(Letter(self._cluster, self._host, host, answer.life, answer.number, answer=answer))

    def take(self, data: bytes, known: Mapping[str, object]) -> tuple[str, Message] | str:
        """Who says what; or why it is dropped."""
        letter = self._codec.open(data)
        if letter is None:
            return "it has not the hash of this cluster"
        if letter.cluster != self._cluster or letter.target != self._host or letter.source not in known:
            return f"it is from {letter.source} to {letter.target} of {letter.cluster}"
        if letter.question is not None:
            if letter.question.number != letter.number:
                return "its numbers differ"
            life, number = self._newest.get(letter.source, ("", 0))
            if life == letter.life and letter.number <= number:
                return "a newer question was heard"
            self._newest[letter.source] = letter.life, letter.number
            return letter.source, replace(letter.question, life=letter.life)
        if letter.answer is None or letter.answer.number != letter.number:
            return "it says nothing"
        if letter.life != self._life or self._asked.get(letter.number) != letter.source:
            return "nobody has asked, or it was answered"
        del self._asked[letter.number]
        return letter.source, letter.answer


class UdpPeers:
    """`changed` is called, from another thread, whenever something was heard."""

    def __init__(
        self, host: str, cluster: Cluster, credentials: str, changed: Callable[[], None], port: int = PORT
    ) -> None:
        self._host, self._changed, self._port = host, changed, port
        self._addresses = _addresses(cluster)
        self._lock = threading.Lock()
        self._post = Post(host, cluster.name, credentials)
        self._heard: deque[tuple[str, Message]] = deque(maxlen=WAITING)
        self._socket: socket.socket | None = None
        self._closed = False
        self.dropped: Counter[str] = Counter()
        self._troubled = ""
        threading.Thread(target=self._listen, name="peers", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether it hears."""
        return self._socket is not None

    def know(self, cluster: Cluster) -> None:
        """The addresses as they are now."""
        self._addresses = _addresses(cluster)

    def close(self) -> None:
        """Before long nothing is heard any more."""
        self._closed = True

    def ask(self, host: str, question: Question) -> None:
        with self._lock:
            data = self._post.question(host, question)
        self._send(host, data)

    def answer(self, host: str, answer: Answer) -> None:
        with self._lock:
            data = self._post.answer(host, answer)
        if data is not None:
            self._send(host, data)

    def heard(self) -> tuple[tuple[str, Message], ...]:
        found = []
        while self._heard:
            found.append(self._heard.popleft())
        return tuple(found)

    def _send(self, host: str, data: bytes) -> None:
        address = self._addresses.get(host)
        if address is None:
            return
        family = udp.family(address)
        try:
            ours = self._socket
            if ours is not None and ours.family == family:
                ours.sendto(data, socket.MSG_DONTWAIT, (address, self._port))
                return
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as other:
                other.sendto(data, socket.MSG_DONTWAIT, (address, self._port))
        except OSError as error:
            self._say(f"{host} cannot be asked: {error}")

    def _say(self, text: str) -> None:
        """The last trouble once."""
        if text != self._troubled:
            self._troubled = text
            log.info("%s", text)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closed:
            address = self._addresses.get(self._host)
            try:
                if address is None:
                    raise OSError(f"{self._host} has no address in the cluster")
                self._socket = udp.listening(address, self._port)
                self._receive(self._socket, address)
            except OSError as error:
                self._say(f"the other hosts cannot be heard: {error}")
                time.sleep(AGAIN_S)
            except Exception:
                log.exception("the other hosts cannot be heard")
                time.sleep(AGAIN_S)
            finally:
                ours, self._socket = self._socket, None
                if ours is not None:
                    ours.close()

    def _receive(self, ours: socket.socket, address: str) -> None:
        """Until the address is another one, or nobody wants to hear any more."""
        while not self._closed and self._addresses.get(self._host) == address:
            if not select.select([ours], [], [], AGAIN_S)[0]:
                continue
            data = ours.recv(LONGEST, socket.MSG_DONTWAIT)
            with self._lock:
                taken = self._post.take(data, self._addresses)
            if isinstance(taken, str):
                if not self.dropped[taken]:
                    log.info("a datagram is dropped: %s", taken)
                self.dropped[taken] += 1
                continue
            self._heard.append(taken)
            self._changed()


def _addresses(cluster: Cluster) -> dict[str, str]:
    return {name: host.address for name, host in cluster.hosts.items()}
