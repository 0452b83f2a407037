"""What hosts say to each other, on its way: late, twice, or never, as datagrams are.

Rule: an answer is heard once, and only by the process that has asked; a question that is no newer than the last one of
the same process is not heard (agents/peers.py makes the same promises on a real network).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from random import Random

from agents.promise import Answer, Message, Question
from failover.simulate.scene import Scene

LOST, TWICE, LATE = 0.02, 0.02, 0.01  # so many of all
DELAY_S, LATE_S = 0.002, 5.0  # on average; at most, when it is late
_LIVES = count()  # no two processes have the same; nothing else depends on it


@dataclass(frozen=True)
class Letter:
    source: str
    life: str  # the process that has asked
    message: Message


class Letterbox:
    """That of one agent's process. `box` finds that of another host; None: nobody is at home."""

    def __init__(
        self, host: str, scene: Scene, box: Callable[[str], Letterbox | None], woken: Callable[[], None], random: Random
    ) -> None:
        self._host, self._scene, self._box, self._woken, self._random = host, scene, box, woken, random
        self._life = f"{host} {next(_LIVES)}"
        self._heard: list[tuple[str, Message]] = []
        self._asked: dict[int, str] = {}
        self._newest: dict[str, tuple[str, int]] = {}
        self.asked_at = float("-inf")  # virtual time

    def ask(self, host: str, question: Question) -> None:
        self._asked[question.number] = host
        self.asked_at = self._scene.now
        self._send(host, Letter(self._host, self._life, question))

    def answer(self, host: str, answer: Answer) -> None:
        if answer.life == self._newest.get(host, ("", 0))[0]:
            self._send(host, Letter(self._host, answer.life, answer))

    def heard(self) -> tuple[tuple[str, Message], ...]:
        found, self._heard = tuple(self._heard), []
        return found

    def _send(self, host: str, letter: Letter) -> None:
        if self._random.random() < LOST:
            return
        for _ in range(2 if self._random.random() < TWICE else 1):
            late = self._random.random() < LATE
            delay_s = self._random.uniform(0.0, LATE_S) if late else self._random.expovariate(1 / DELAY_S)
            self._scene.scheduler.after(delay_s, partial(self._deliver, host, letter), soft=True)

    def _deliver(self, host: str, letter: Letter) -> None:
        box = self._box(host)
        if box is not None and self._scene.links.reaches(self._host, host):
            box.take(letter)

    def take(self, letter: Letter) -> None:
        message, source = letter.message, letter.source
        if isinstance(message, Question):
            life, number = self._newest.get(source, ("", 0))
            if life == letter.life and message.number <= number:
                return
            self._newest[source] = letter.life, message.number
            message = replace(message, life=letter.life)
        elif letter.life != self._life or self._asked.pop(message.number, None) != source:
            return
        self._heard.append((source, message))
        self._woken()
