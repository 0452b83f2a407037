"""Questions of the guards to the leader's process and its answers, on their way: late, twice, or never.

Rule: a process that hangs hears when it goes on, as from the buffer of its socket. One that must read a record first
answers after that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from agents.lease import Asks
from failover.errors import FailoverError
from failover.grants.granting import Granting
from failover.grants.protocol import Ask, Letter
from failover.simulate.process import Process
from failover.simulate.scene import Scene

LOST, TWICE, LATE = 0.002, 0.005, 0.002  # so many of all
DELAY_S, LATE_S = 0.0005, 2.0  # on average; at most, when it is late
READ_S = 0.003  # on average, until a record was read


class Ear:
    """That of one leader's process."""

    def __init__(self, host: str, scene: Scene, process: Process, granting: Granting, random: Random) -> None:
        self._host, self._scene, self._process, self._random = host, scene, process, random
        self.granting = granting
        self._reading: set[str] = set()
        self._pulse()

    def _pulse(self) -> None:
        self._process.after(self.granting.pulse(), self._pulse, soft=True, regular=True)

    def hear(self, ask: Ask, answer: Callable[[Letter], None]) -> None:
        self._process.after(0.0, partial(self._hear, ask, answer), soft=True, regular=True)

    def read(self, host: str) -> None:
        """Before long, and then the leader looks again."""
        if host not in self._reading:
            self._reading.add(host)
            self._process.after(self._random.expovariate(1 / READ_S), partial(self._read, host), soft=True)

    def _hear(self, ask: Ask, answer: Callable[[Letter], None]) -> None:
        grant = self.granting.hear(ask)
        if grant is not None:
            answer(Letter(grant=grant, target=ask.host))
        elif ask.host not in self._reading:
            self.read(ask.host)
            self._process.after(3 * READ_S, partial(self._hear_again, ask, answer), soft=True)

    def _hear_again(self, ask: Ask, answer: Callable[[Letter], None]) -> None:
        if (grant := self.granting.hear(ask)) is not None:
            answer(Letter(grant=grant, target=ask.host))

    def _read(self, host: str) -> None:
        self._reading.discard(host)
        try:
            self.granting.read(host)
        except FailoverError:
            return
        self._process.wake()


class Questions:
    """Those of one host's guard. `ear` finds that of the leader's process of a host, whose name is its address here;
    None: nobody is at home."""

    def __init__(self, host: str, scene: Scene, ear: Callable[[str], Ear | None], random: Random) -> None:
        self._host, self._scene, self._ear, self._random = host, scene, ear, random
        self.heard: Callable[[Letter], None] = lambda letter: None

    def send(self, asks: Asks, letter: Letter) -> None:
        assert letter.ask is not None
        self._on_its_way(partial(self._arrive, asks.leader, letter.ask))

    def _arrive(self, address: str, ask: Ask) -> None:
        ear = self._ear(address)
        if ear is not None and self._scene.links.reaches(self._host, ear._host):
            ear.hear(ask, partial(self._answer, ear._host))

    def _answer(self, source: str, letter: Letter) -> None:
        self._on_its_way(partial(self._come_back, source, letter))

    def _come_back(self, source: str, letter: Letter) -> None:
        if self._scene.links.reaches(source, self._host):
            self.heard(letter)

    def _on_its_way(self, arrive: Callable[[], None]) -> None:
        if self._random.random() < LOST:
            return
        for _ in range(2 if self._random.random() < TWICE else 1):
            late = self._random.random() < LATE
            delay_s = self._random.uniform(0.0, LATE_S) if late else self._random.expovariate(1 / DELAY_S)
            self._scene.scheduler.after(delay_s, arrive, soft=True, regular=True)
