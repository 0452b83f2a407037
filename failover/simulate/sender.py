"""The sending end of a simulated host's syncs: one round after another, and what its agent knows of the backups.

Rule 1: a round that failed is remembered, unless its epoch is over: then it is no failure.
Rule 2: no round is the last one of what runs, or has run since the round began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from agents.steps import Ship, Shipped, Tree
from failover.errors import FailoverError, Refused, Unreachable, Unsafe
from failover.model import Assignment
from failover.simulate.body import Body

TOLD_WAIT_S, TOLD_POLL_S = 2.0, 0.1  # so long the receiving end waits for the word that the sender obeys

Phase = tuple[float, Callable[[], None]]  # after so many seconds, do this


class NotNow(Refused):
    """A step that could not be done for a reason that passes by itself: it is no failure, and is decided again."""


class Wait(Exception):
    """What is done now cannot go on yet: try this after a moment."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action


class Sender:
    """`peer` gives another host's body, `word` what the agent was told of a vserver; `starting` says whether a start of
    it is under way."""

    def __init__(
        self,
        body: Body,
        peer: Callable[[str], Body],
        random: Random,
        word: Callable[[str], Assignment | None],
        starting: Callable[[str], bool],
    ) -> None:
        self._body, self._peer, self._random, self._word, self._starting = body, peer, random, word, starting
        self._host, self._scene = body.host, body.scene
        self.shipped: dict[str, dict[str, Shipped]] = {}
        self._acknowledged: dict[tuple[str, str], frozenset[int]] = {}
        self._drafts: dict[tuple[str, str], dict[str, Any]] = {}  # (vserver, target) -> the round under way

    def phases(self, step: Ship) -> list[Phase]:
        draft: dict[str, Any] = {"began": self._body.clock.now(), "life": self._body.life(step.vserver.name).number}
        self._drafts[step.vserver.name, step.target] = draft
        return [
            (0.0, partial(self._noting, step, draft, partial(self._read, step, draft))),
            (self._random.uniform(0.1, 1.0), partial(self._noting, step, draft, partial(self._arrive, step, draft))),
        ]

    def over(self, step: Ship) -> None:
        self._drafts.pop((step.vserver.name, step.target), None)

    def runs_again(self, name: str) -> None:
        """No generation is the last one any more."""
        shipped = self.shipped.get(name, {})
        shipped.update({host: replace(last, final=False) for host, last in shipped.items() if last.final})

    def skip(self, length_s: float, regular: Collection[str]) -> None:
        """As if the regular rounds of these vservers had gone on as they went."""
        for draft in self._drafts.values():
            draft["began"] += length_s
            if "heard" in draft:
                draft["heard"] += length_s
        for name in regular:
            for host, last in self.shipped.get(name, {}).items():
                at = last.at if last.because and not self._has_all(name, host) else last.at + length_s
                self.shipped[name][host] = replace(last, at=at, tried_at=last.tried_at + length_s)
                theirs = self._peer(host).copy(name)
                if not last.because and theirs.received_at is not None:
                    theirs.received_at += length_s

    # --- one round ----------------------------------------------------------------------------------------------------

    def _noting(self, step: Ship, draft: Mapping[str, Any], action: Callable[[], None]) -> None:
        """A round that failed is remembered, unless its epoch is over: then it is no failure."""
        name = step.vserver.name
        try:
            action()
        except FailoverError as error:
            word = self._word(name)
            if word is not None and word.epoch != step.epoch:
                raise NotNow(f"epoch {step.epoch} is over") from error
            before = self._before(step, draft)
            at = draft["began"] if self._has_all(name, step.target) else before.at
            self._note(step, replace(before, at=at, because=str(error), tried_at=self._body.clock.now()))
            raise

    def _has_all(self, name: str, target: str) -> bool:
        """Nothing was written since the target acknowledged a generation. The one who watches a tree knows that."""
        return self._acknowledged.get((name, target)) == self._body.copy(name).content

    def _before(self, step: Ship, draft: Mapping[str, Any]) -> Shipped:
        known = self.shipped.get(step.vserver.name, {}).get(step.target)
        return known or Shipped(0, step.epoch, draft["began"], rounds=0)

    def _note(self, step: Ship, shipped: Shipped) -> None:
        self.shipped.setdefault(step.vserver.name, {})[step.target] = shipped

    def _reach(self, target: str) -> Body:
        links, other = self._scene.links, self._peer(target)
        if not (links.reaches(self._host, target) and links.reaches(target, self._host)) or not other.powered:
            raise Unreachable(f"{target} cannot be reached")
        if other.stalled:
            raise Unreachable(f"{target} does not answer")
        return other

    def _read(self, step: Ship, draft: dict[str, Any]) -> None:
        name = step.vserver.name
        copy, life = self._body.copy(name), self._body.life(name)
        draft["heard"] = self._reach(step.target).clock.now()
        self._body.may_be_read()
        if copy.kind is not Tree.LIVE:
            raise Refused(f"there is no live tree of {name} here")
        if step.final and (life.running or self._starting(name)):
            raise Refused(f"{name} runs: this cannot be the last round")
        draft["content"] = copy.content

    def _arrive(self, step: Ship, draft: dict[str, Any], waited_s: float = 0.0) -> None:
        name, copy = step.vserver.name, self._body.copy(step.vserver.name)
        other = self._reach(step.target)
        self._body.may_be_read()
        word = other.told.assignments.get(name) if other.told else None
        if (word is None or word.epoch < step.epoch) and waited_s < TOLD_WAIT_S:
            again = partial(self._arrive, step, draft, waited_s + TOLD_POLL_S)
            raise Wait(partial(self._noting, step, draft, again))
        if copy.kind is not Tree.LIVE or copy.epoch > step.epoch:
            raise Unsafe(f"epoch {step.epoch} of {name} is over")
        if step.final and self._scene.fails(name, "move", self._scene.traits_of(name).fails_move):
            raise Refused(f"{name} could not be sent to {step.target}")
        self._receive(step, other, draft)

    def _receive(self, step: Ship, other: Body, draft: Mapping[str, Any]) -> None:
        name, copy = step.vserver.name, self._body.copy(step.vserver.name)
        theirs, life = other.copy(name), other.life(name)
        had = theirs.content | theirs.kept
        number = max(copy.generation, theirs.generation) + 1
        done = other.receive(name, self._host, step.epoch, number, draft["content"])
        self._acknowledged[name, step.target] = draft["content"]
        if life.running:
            self._scene.breach(7, f"{self._host} has written into the running tree of {name} on {step.target}")
        if had - theirs.content - theirs.kept:
            self._scene.breach(10, f"what only {step.target} had of {name} was overwritten")
        if other.told is not None and other.told.assignments[name].epoch > step.epoch:
            self._scene.breach(4, f"{step.target} takes a sync of {name} under epoch {step.epoch}, which is over")
        theirs.received_at = draft["heard"]
        copy.generation, copy.epoch = max(copy.generation, done), max(copy.epoch, step.epoch)
        before, began = self._before(step, draft), draft["began"]
        rounds = before.rounds + 1 if before.epoch == step.epoch else 1
        final = step.final and draft["life"] == self._body.life(name).number
        shipped = Shipped(done, step.epoch, began, final, self._body.clock.now() - began, rounds, tried_at=began)
        self._note(step, shipped)
