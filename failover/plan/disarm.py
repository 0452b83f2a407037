"""A disarmed manager starts, stops and moves nothing by itself.

    armed ── operator: disarm ──▶ disarming: what has begun is finished ── nothing is under way ──▶ disarmed
      ▲                                                                                                │
      └───────────────────────────────── operator: arm ───────────────────────────────────────────────┘

Rule: a takeover that has begun is finished first: its owner is lost already, or it was given and does not run yet.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from failover.model import Hold, State, View, Want
from failover.plan.board import Board, alive, own_report
from failover.store import Change


class Mode(Enum):
    ARMED = auto()
    DISARMING = auto()
    DISARMED = auto()


def mode(view: View) -> Mode:
    if not view.intents.cluster.disarmed:
        return Mode.ARMED
    return Mode.DISARMED if view.memory.disarmed else Mode.DISARMING


def masked(board: Board, mode: Mode, found: Change | Hold) -> Change | Hold:
    """The decision, or that it is not carried out now."""
    if mode is Mode.ARMED or isinstance(found, Hold) or _only_tells(board.view, found):
        return found
    if mode is Mode.DISARMING and _has_begun(board.view, found):
        return found
    word = found.assignments[0]
    for undone in found.assignments:
        board.words.pop(undone.vserver, None)
    return Hold(word.vserver, f"the cluster is disarmed, else: {word.because}", "failover arm")


def held(board: Board, name: str) -> Hold | None:
    """What does not run though it is wanted: nobody starts it while the manager is disarmed."""
    word = board.view.assignments.get(name)
    if word is None or word.want is not Want.STARTED or not alive(board.view, word.owner):
        return None
    report = own_report(board.view, word)
    if report is None or report.state is not State.STOPPED:
        return None
    because = f": {report.because}" if report.because else ""
    return Hold(name, f"the cluster is disarmed, and it does not run on {word.owner}{because}", "failover arm")


def in_force(board: Board, mode: Mode, changes: tuple[Change, ...]) -> bool:
    """Whether the manager is disarmed from now on."""
    if mode is Mode.DISARMING:
        return not changes and not any(_under_way(board.view, name) for name in board.view.assignments)
    return mode is Mode.DISARMED


def _has_begun(view: View, change: Change) -> bool:
    word = change.assignments[0]
    before = view.assignments.get(word.vserver)
    return before is not None and (before.target is not None or not alive(view, before.owner) or before.again)


def _only_tells(view: View, change: Change) -> bool:
    """Its owner is told by which hosts it goes, or that a copy which a person started is not its own: by that the
    manager starts, stops and moves nothing of what it manages."""
    word = change.assignments[0]
    before = view.assignments.get(word.vserver)
    if before is None:
        return False
    known = replace(word, hosts=before.hosts, known_hosts=before.known_hosts)
    return replace(before, epoch=word.epoch, because=word.because, at=word.at) == known


def _under_way(view: View, name: str) -> bool:
    word = view.assignments[name]
    if name not in view.cluster.vservers or word.want is Want.IGNORED or not alive(view, word.owner):
        return False
    report = own_report(view, word)
    if word.target is not None or word.again or report is None:
        return True
    return word.want is Want.STARTED and report.state not in (State.RUNNING, State.ERROR)
