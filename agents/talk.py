"""The agent's talk with the other hosts: questions out, answers in, bonds kept (agents/promise.py has the rules).

Rule 1: `hear` takes the time after it has taken the questions, so a bond begins no sooner than its question was sent.
Rule 2: a bond is written down before its answer is sent, and what the machine does not keep is not promised.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from agents.promise import Answer, Holder, Message, Question, refusal
from agents.steps import Bond, Seen, SeenVserver
from failover.model import Assignment, State, Told, Want, frozen_map
from failover.timing import Timing

log = logging.getLogger("failover.promises")


class Peers(Protocol):
    """The other hosts, as far as the machine lets us talk to them. Nothing here waits, and anything may be lost."""

    def now(self) -> float: ...

    def ask(self, host: str, question: Question) -> None: ...

    def answer(self, host: str, answer: Answer) -> None:
        """To the process that has asked; it is dropped when another one of that host has asked since."""
        ...

    def heard(self) -> tuple[tuple[str, Message], ...]:
        """What has come since, in order, with its sender. An answer comes at most once, and only to a question that
        this very process has asked that host; a question may come late, but no two of one process out of order."""
        ...

    def promise(self, name: str, bond: Bond) -> bool:
        """Keep it: from now on no Start and no Thaw of it is begun before its end, nor by a later agent, and `observe`
        shows it. False when a step of it is under way, or when it cannot be written down."""
        ...


class Talk:
    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._holder = Holder()
        self._asked_at = float("-inf")
        self._refused: Mapping[tuple[str, str], str] = {}
        self._questions: list[tuple[str, Question]] = []
        self._heard_at = float("-inf")

    # --- as the holder ------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        for host, message in self._peers.heard():
            if isinstance(message, Question):
                self._questions.append((host, message))
            else:
                self._holder.heard(host, message)
                self._complain(host, message)
        self._heard_at = self._peers.now()

    def rights(self, told: Told, timing: Timing, now: float) -> dict[str, float]:
        """Until when each of those that belong here may run on by promises; those that may not are left out."""
        latest = now + timing.promise_s
        ends = {name: min(latest, self._holder.end(told.host, word)) for name, word in owned(told).items()}
        return {name: end for name, end in ends.items() if end > now}

    def ask(self, told: Told, seen: Seen, timing: Timing, now: float) -> None:
        """Those that run here or are about to; again only after a pause. `now`: no later than the sending."""
        if now < self.ask_at(timing):
            return
        self._asked_at = now
        running = {name: word for name, word in owned(told).items() if _runs(seen.vservers.get(name))}
        for host, question in self._holder.questions(told.host, running, timing, now):
            self._peers.ask(host, question)

    def ask_at(self, timing: Timing) -> float:
        return self._asked_at + timing.ask_s

    def _complain(self, host: str, answer: Answer) -> None:
        """Once per reason."""
        known = {key: why for key, why in self._refused.items() if key[0] != host or key[1] in answer.refused}
        for name, why in answer.refused.items():
            if known.get((host, name)) != why:
                log.warning("%s does not promise %s: %s", host, name, why)
            known[host, name] = why
        self._refused = known

    # --- as the giver -------------------------------------------------------------------------------------------------

    def answer(self, told: Told, seen: Seen, timing: Timing) -> Seen:
        """Answer what was heard; returns what is seen, with the new bonds. `seen` was seen after the hearing."""
        questions, self._questions = self._questions, []
        vservers = dict(seen.vservers)
        for host, question in questions:
            length_s, refused = min(question.length_s, timing.promise_s), {}
            for name, epoch in question.epochs.items():
                own, word = vservers.get(name, SeenVserver()), told.assignments.get(name)
                why = refusal(told.host, word, own, host, epoch, self._heard_at)
                bond = Bond(host, epoch, self._heard_at + length_s)
                if not why and not self._peers.promise(name, bond):
                    why = f"{told.host} could not write it down, or something is under way there"
                if why:
                    refused[name] = why
                else:
                    vservers[name] = replace(own, bond=bond)
            promised = tuple(name for name in question.epochs if name not in refused)
            answer = Answer(question.number, length_s, promised, frozen_map(refused), question.life)
            self._peers.answer(host, answer)
        return replace(seen, vservers=frozen_map(vservers))


def owned(told: Told) -> dict[str, Assignment]:
    """What belongs to this host and is to be managed here."""
    return {
        name: word
        for name, word in told.assignments.items()
        if word.owner == told.host and word.want is not Want.IGNORED and name in told.cluster.vservers
    }


def _runs(seen: SeenVserver | None) -> bool:
    return seen is not None and (seen.state is State.RUNNING or "start" in seen.busy)
