"""Giving an order, and waiting for what becomes of it: the leader's next word about a vserver, its owner's report."""

from __future__ import annotations

import getpass
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from failover.errors import Refused, Unreachable
from failover.model import State, View, Want
from failover.orders import Awaited, Order, signed
from failover.plan import own_report
from failover.store import Store

LOOK_S = 0.1
GRACE_S = 3.0  # a hold that is older than the wish is no answer to it: give the leader time for a new one


@dataclass(frozen=True)
class Answer:
    text: str
    done: bool | None = None  # None: not yet; False: the answer is no


def obey(options: Namespace, command: Callable[[View], Order]) -> None:
    """Check the command against the present view, write down what it comes to, and follow that."""
    from failover.cli.connect import connected

    with connected(options) as store:
        order = command(store.view())
        give(store, order)
        follow(store, options, order.awaited)


def give(store: Store, order: Order) -> None:
    """Write an order's wishes, signed, and say its notice."""
    mine = signed(order, getpass.getuser(), time.time())
    for host, host_change in mine.hosts.items():
        store.wish_host(host, host_change)
    for vserver, vserver_change in mine.vservers.items():
        store.wish(vserver, vserver_change)
    if mine.cluster is not None:
        store.wish_cluster(mine.cluster)
    if mine.notice:
        print(mine.notice, flush=True)


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
                refused.append(_since(store, wish, answer.text))
            if answer.done is not None:
                waiting.remove(wish)
        time.sleep(LOOK_S)
    if refused:
        raise Refused("; ".join(refused))
    if waiting:
        names = ", ".join(wish.vserver for wish in waiting)
        raise Unreachable(f"no answer within {options.timeout:g} s for {names}", hint="failover status says more")


def _since(store: Store, wish: Awaited, last: str) -> str:
    """All that was decided since the order: the reason for a no may be older than the last word."""
    name = wish.vserver
    decided = [
        event.text
        for event in store.history()
        if event.vserver == name and event.epoch > wish.epoch and event.kind != "running"
    ]
    return f"{name}: {'; '.join(dict.fromkeys([*decided, last.removeprefix(f'{name}: ')]))}"


def answer_to(view: View, wish: Awaited, *, patient: bool) -> Answer:
    name = wish.vserver
    word = view.assignments.get(name)
    hold = next((hold.because for hold in view.holds if hold.subject == name), "")
    stuck = Answer(f"{name}: {hold}", False) if hold and not patient else None
    if word is None or (word.epoch <= wish.epoch and not wish.reached(word)):
        return stuck or Answer("")
    said = f"{name}: {word.because}" if word.epoch > wish.epoch else ""
    if word.target is not None or (word.again and not wish.reached(word)):
        return Answer(said)
    if not wish.reached(word):
        return Answer(said, False)
    if word.want is Want.IGNORED:
        return Answer(f"{name} is left alone", True)
    report = own_report(view, word)
    if report is not None and report.state is (State.STOPPED if word.want is Want.STOPPED else State.RUNNING):
        return Answer(f"{name} is {report.state} on {word.owner}", True)
    return stuck or Answer(said)
