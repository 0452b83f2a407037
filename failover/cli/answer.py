"""Waiting for what becomes of a wish: the leader's next word about a vserver, and its owner's report on it."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from failover.errors import Refused, Unreachable
from failover.model import Assignment, State, View, Want
from failover.plan import own_report
from failover.store import Store

LOOK_S = 0.1
GRACE_S = 3.0  # a hold that is older than the wish is no answer to it: give the leader time for a new one


@dataclass(frozen=True)
class Awaited:
    vserver: str
    epoch: int  # when the wish was written
    reached: Callable[[Assignment], bool]


@dataclass(frozen=True)
class Answer:
    text: str
    done: bool | None = None  # None: not yet; False: the answer is no


def follow(store: Store, options: Namespace, wishes: Sequence[Awaited]) -> None:
    """Say every change once, until each wish has its answer.

    Raises Refused when an answer is no, Unreachable when there is none within `options.timeout` seconds.
    """
    if options.no_wait:
        return
    waiting, said = list(wishes), set[str]()
    refused: list[str] = []
    began = time.monotonic()
    while waiting and time.monotonic() < began + options.timeout:
        view = store.view()
        for wish in tuple(waiting):
            answer = answer_to(view, wish, patient=time.monotonic() < began + GRACE_S)
            if answer.done is not False and answer.text and answer.text not in said:
                said.add(answer.text)
                print(answer.text, flush=True)
            if answer.done is False:
                refused.append(answer.text)
            if answer.done is not None:
                waiting.remove(wish)
        time.sleep(LOOK_S)
    if refused:
        raise Refused("; ".join(refused))
    if waiting:
        names = ", ".join(wish.vserver for wish in waiting)
        raise Unreachable(f"no answer within {options.timeout:g} s for {names}", hint="failover status says more")


def answer_to(view: View, wish: Awaited, *, patient: bool) -> Answer:
    name = wish.vserver
    word = view.assignments.get(name)
    hold = next((hold.because for hold in view.holds if hold.subject == name), "")
    stuck = Answer(f"{name}: {hold}", False) if hold and not patient else None
    if word is None or (word.epoch <= wish.epoch and not wish.reached(word)):
        return stuck or Answer("")
    said = f"{name}: {word.because}" if word.epoch > wish.epoch else ""
    if word.target is not None:
        return Answer(said)
    if not wish.reached(word):
        return Answer(said, False)
    report = own_report(view, word)
    if report is not None and report.state is (State.STOPPED if word.want is Want.STOPPED else State.RUNNING):
        return Answer(f"{name} is {report.state} on {word.owner}", True)
    return stuck or Answer(said)
