"""Promises: without ZooKeeper a vserver runs on while every other host that may run it has promised not to start it.

    holder (its owner)                            giver (every other host that may run it)
    ask, several times per length ──────────────▶ does not run it, and knows no other owner?
                                                  write the bond down, then ◀ promise: so many seconds from hearing
    answers of all of them: it runs on until      until then it is neither started nor thawed here,
    the earliest end (failover/timing.py)         whatever the leader says meanwhile

Rule 1: the holder's right counts from the sending of a question that was answered, the giver's bond from after hearing
        it; the holder's end comes first.
Rule 2: an answer counts for a question of this very process that has no answer yet (agents/peers.py), so nothing old
        and nothing twice extends a right.
Rule 3: a right is only ever extended. Once its end has come, what was frozen is thawed by the leader's word alone: it
        may have run elsewhere meanwhile. The guard sees to that (agents/lease.py).
Rule 4: a host that knows a newer word, or may not know what it has promised, promises nothing.
Rule 5: who owns a vserver and is bound has not obeyed its word yet, and does not report that it has. So what an owner
        reports is no sooner than the end of every right that was before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from agents.steps import Bond, SeenVserver
from failover.model import Assignment, State, Want, frozen_map
from failover.timing import Timing

IN_ONE = 12  # vservers in one question: it shall fit into one frame
_BEGUN = ("start", "thaw", "stop", "kill", "demote")  # while one is under way nobody knows whether it runs


@dataclass(frozen=True)
class Question:
    """Will you promise not to run these, which I own under these epochs, for so long? `number`: the asker's own.
    `life`: the process that has asked; whoever hears it knows."""

    number: int
    length_s: float
    epochs: Mapping[str, int] = field(default_factory=frozen_map)
    life: str = ""


@dataclass(frozen=True)
class Answer:
    """Those that are promised, for so long from the hearing of the question; and why the others are not. `number` and
    `life` are those of the question."""

    number: int
    length_s: float
    promised: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=frozen_map)
    life: str = ""


Message = Question | Answer


# --- the giver --------------------------------------------------------------------------------------------------------


def refusal(host: str, word: Assignment | None, seen: SeenVserver, holder: str, epoch: int, now: float) -> str:
    """Why `host`, which was told `word` and sees `seen`, may not promise it to `holder`; empty when it may."""
    if word is None:
        return f"{host} knows nothing of it"
    if word.epoch >= epoch and word.owner != holder:
        return f"{word.owner} owns it under epoch {word.epoch}"
    if word.epoch >= epoch and word.want is Want.IGNORED:
        return "it is ignored"
    if seen.state is not State.STOPPED:
        return f"it is {seen.state} on {host}"
    if begun := under_way(seen.busy):
        return f"its {begun} is under way on {host}"
    if seen.bond is not None and seen.bond.until > now and seen.bond.holder != holder:
        return f"{host} has promised it to {seen.bond.holder}" if seen.bond.holder else f"{host} has only just begun"
    return ""


def under_way(busy: Collection[str]) -> str:
    """The step of these that keeps a promise from being given; empty: none does."""
    return next((step for step in sorted(busy) if step in _BEGUN), "")


def lasting(known: Bond | None, new: Bond) -> Bond:
    """The new promise, which ends no sooner than the one that was given before it."""
    return new if known is None else replace(new, until=max(new.until, known.until))


# --- the holder -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    host: str
    sent_at: float
    names: frozenset[str]
    timing: Timing


class Holder:
    """What was asked of whom, and what was promised. All times are boot times."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._ends: dict[tuple[str, str], float] = {}  # (vserver, giver): until then it may go by this promise

    def questions(
        self, own: str, running: Mapping[str, Assignment], timing: Timing, now: float
    ) -> list[tuple[str, Question]]:
        """What to ask of whom about those that run on `own` and belong there, to be sent at once."""
        self._forget(now - timing.promise_s)
        wanted: dict[str, dict[str, int]] = {}
        for name, word in running.items():
            for host in _others(own, word):
                wanted.setdefault(host, {})[name] = word.epoch
        asked = []
        for host, epochs in sorted(wanted.items()):
            for part in _parts(epochs):
                question = Question(next(self._numbers), timing.promise_s, frozen_map(part))
                self._asked[question.number] = _Asked(host, now, frozenset(part), timing)
                asked.append((host, question))
        return asked

    def heard(self, host: str, answer: Answer) -> None:
        asked = self._asked.pop(answer.number, None)
        if asked is None or asked.host != host:
            return
        end = asked.sent_at + asked.timing.promised_s(answer.length_s)
        for name in asked.names.intersection(answer.promised):
            self._ends[name, host] = max(end, self._ends.get((name, host), end))

    def end(self, host: str, word: Assignment) -> float:
        """Until when `host`, its owner, may run it by promises; minus infinity: it may not."""
        if host not in word.hosts:
            return float("-inf")
        others = _others(host, word)
        return min((self._ends.get((word.vserver, other), float("-inf")) for other in others), default=float("inf"))

    def _forget(self, before: float) -> None:
        self._asked = {number: asked for number, asked in self._asked.items() if asked.sent_at > before}
        self._ends = {key: end for key, end in self._ends.items() if end > before}


def _others(host: str, word: Assignment) -> list[str]:
    return [other for other in word.hosts if other != host]


def _parts(epochs: Mapping[str, int]) -> Iterator[dict[str, int]]:
    names = sorted(epochs)
    for first in range(0, len(names), IN_ONE):
        yield {name: epochs[name] for name in names[first : first + IN_ONE]}
