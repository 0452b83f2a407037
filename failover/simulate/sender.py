"""The sending end of a simulated host's syncs: one round after another, and what its agent knows of the backups.

    read ─▶ nothing new? done : begin ─▶ so many bytes a second ─▶ commit ─▶ moved into place: acknowledged

What is cut off on its way goes on when the line is back soon; else the round is torn, and what has arrived of it stays
on the backup until somebody drops it.

Rule 1: a round that failed is remembered, unless its epoch is over: then it is no failure.
Rule 2: no round is the last one of what runs, or has run since the round began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from agents.steps import Ship, Shipped, Tree
from failover.errors import FailoverError, Refused, Unreachable, Unsafe
from failover.model import Assignment
from failover.simulate.body import MOVED_S, Body
from failover.simulate.copies import Incoming

TOLD_WAIT_S, TOLD_POLL_S = 2.0, 0.1  # so long the receiving end waits for the word that the sender obeys
LINE_BYTES_S = 100e6  # of a round without `bandwidth`: a line of 1 Gbit/s
CHUNK_S = 0.5  # so often it is looked at whether the line is there
BROKEN_S = 20.0  # without a byte the transfer is given up

Phase = tuple[float, Callable[[], None]]  # after so many seconds, do this


class NotNow(Refused):
    """A step that could not be done for a reason that passes by itself: it is no failure, and is decided again."""


class Wait(Exception):
    """What is done now cannot go on yet: do this after a moment."""

    def __init__(self, action: Callable[[], None], delay_s: float = TOLD_POLL_S) -> None:
        self.action, self.delay_s = action, delay_s


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

    @property
    def sends(self) -> bool:
        """Bytes are on their way."""
        return any("new" in draft for draft in self._drafts.values())

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
                reached = not self._body.life(name).frozen and self._scene.links.reaches(self._host, host)
                went_on = reached and not last.because
                at = last.at + length_s if went_on or self._has_all(name, host) else last.at
                self.shipped[name][host] = replace(last, at=at, tried_at=last.tried_at + length_s)
                theirs = self._peer(host).copy(name)
                if went_on and theirs.received_at is not None:
                    theirs.received_at += length_s

    # --- one round ----------------------------------------------------------------------------------------------------

    def _noting(self, step: Ship, draft: Mapping[str, Any], action: Callable[[], None]) -> None:
        """A round that failed is remembered, unless its epoch is over: then it is no failure."""
        name = step.vserver.name
        try:
            action()
        except FailoverError as error:
            self._abort(step, draft)
            word = self._word(name)
            if word is not None and word.epoch != step.epoch:
                raise NotNow(f"epoch {step.epoch} is over") from error
            before = self._before(step, draft)
            at = draft["began"] if self._has_all(name, step.target) else before.at
            self._note(step, replace(before, at=at, because=str(error), tried_at=self._body.clock.now()))
            raise

    def _abort(self, step: Ship, draft: Mapping[str, Any]) -> None:
        """What has arrived is dropped there, if that can be said."""
        with suppress(Unreachable):
            theirs, new = self._reach(step.target).copy(step.vserver.name), draft.get("new")
            if isinstance(new, Incoming) and theirs.incoming is new and not new.committed:
                theirs.incoming = None

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
            raise self._later(step, draft, again, TOLD_POLL_S)
        if copy.kind is not Tree.LIVE or copy.epoch > step.epoch:
            raise Unsafe(f"epoch {step.epoch} of {name} is over")
        if step.final and self._scene.fails(name, "move", self._scene.traits_of(name).fails_move):
            raise Refused(f"{name} could not be sent to {step.target}")
        theirs = other.receivable(name, self._host, step.epoch)
        if theirs.has(step.epoch, draft["content"]):
            theirs.received_at = draft["heard"]
            self._acknowledge(step, draft, other.copy(name).generation)
            return
        draft["had"] = theirs.content | theirs.kept
        need_bytes = sum(self._scene.written[number].size_bytes for number in draft["content"] - theirs.content)
        number = max(copy.generation, theirs.generation) + 1
        self._body.may_be_written(name)  # the number is written down before it is used
        copy.generation = number
        new = Incoming(self._host, step.epoch, number, draft["content"], need_bytes, draft["heard"])
        other.begin(name, new)
        draft["new"] = new
        self._send(step, draft, new)

    # --- bytes on their way -------------------------------------------------------------------------------------------

    def _send(self, step: Ship, draft: dict[str, Any], new: Incoming) -> None:
        rate = step.vserver.sync.bandwidth_bytes_s or LINE_BYTES_S
        left_s = (new.need_bytes - new.arrived_bytes) / rate
        if left_s <= 0:
            self._commit(step, draft, new)
            return
        chunk_s = min(CHUNK_S, left_s)
        last = chunk_s == left_s
        arrived_bytes = float(new.need_bytes) if last else new.arrived_bytes + chunk_s * rate
        raise self._later(step, draft, partial(self._chunk, step, draft, new, arrived_bytes), chunk_s)

    def _chunk(
        self, step: Ship, draft: dict[str, Any], new: Incoming, arrived_bytes: float, silent_s: float = 0.0
    ) -> None:
        try:
            other = self._reach(step.target)
        except Unreachable as error:
            if silent_s >= BROKEN_S or not self._peer(step.target).powered:
                raise Unreachable(
                    f"the transfer of {step.vserver.name} to {step.target} broke off ({error.message})",
                    hint="the next round tries again",
                ) from error
            again = partial(self._chunk, step, draft, new, arrived_bytes, silent_s + CHUNK_S)
            raise self._later(step, draft, again, CHUNK_S) from error
        self._body.may_be_read()
        if other.copy(step.vserver.name).incoming is not new:
            raise Refused(f"the transfer of {step.vserver.name} to {step.target} was ended there")
        other.may_be_written(step.vserver.name)
        new.arrived_bytes = arrived_bytes
        self._send(step, draft, new)

    def _commit(self, step: Ship, draft: dict[str, Any], new: Incoming) -> None:
        name, other = step.vserver.name, self._reach(step.target)
        other.commit(name, new)
        if other.life(name).running:
            self._scene.breach(7, f"{self._host} has written into the running tree of {name} on {step.target}")
        if other.told is not None and other.told.assignments[name].epoch > step.epoch:
            self._scene.breach(4, f"{step.target} takes a sync of {name} under epoch {step.epoch}, which is over")
        raise self._later(step, draft, partial(self._moved, step, draft, new), MOVED_S)

    def _moved(self, step: Ship, draft: dict[str, Any], new: Incoming) -> None:
        """The answer to the commit, when there is one."""
        name, other = step.vserver.name, self._reach(step.target)
        theirs = other.copy(name)
        if theirs.incoming is new:
            raise self._later(step, draft, partial(self._moved, step, draft, new), MOVED_S)
        if draft["had"] - theirs.content - theirs.kept:
            self._scene.breach(10, f"what only {step.target} had of {name} was overwritten")
        self._acknowledge(step, draft, new.generation)

    def _later(self, step: Ship, draft: dict[str, Any], action: Callable[[], None], delay_s: float) -> Wait:
        return Wait(partial(self._noting, step, draft, action), delay_s)

    def _acknowledge(self, step: Ship, draft: Mapping[str, Any], done: int) -> None:
        name, copy = step.vserver.name, self._body.copy(step.vserver.name)
        self._acknowledged[name, step.target] = draft["content"]
        copy.generation, copy.epoch = max(copy.generation, done), max(copy.epoch, step.epoch)
        before, began = self._before(step, draft), draft["began"]
        rounds = before.rounds + 1 if before.epoch == step.epoch else 1
        final = step.final and draft["life"] == self._body.life(name).number
        shipped = Shipped(done, step.epoch, began, final, self._body.clock.now() - began, rounds, tried_at=began)
        self._note(step, shipped)
