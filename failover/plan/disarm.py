"""A disarmed manager starts, stops and moves nothing by itself.

    armed ── operator: disarm ──▶ disarming: what has begun is finished ── nothing is under way ──▶ disarmed
      ▲                                                                                                │
      └───────────────────────────────── operator: arm ───────────────────────────────────────────────┘

Rule 1: a takeover that has begun is finished first: its owner is lost already, or it was given and does not run yet.
Rule 2: words go on that start, stop and move nothing: an owner is told what it must know, and of two copies of which a
        human has started one, only one stays: nothing may run twice, disarmed or not.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from failover.model import Assignment, Hold, Kind, State, View, Want
from failover.plan.board import Board, alive, own_report, reported
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
    if mode is Mode.ARMED or isinstance(found, Hold):
        return found
    if _only_tells(board.view, found) or _moves_nothing(board.view, found):
        return found
    if mode is Mode.DISARMING and _has_begun(board.view, found):
        return found
    word = found.assignments[0]
    for undone in found.assignments:
        board.words.pop(undone.vserver, None)
    return Hold(word.vserver, f"the cluster is disarmed, else: {word.because}", "failover arm")


def _moves_nothing(view: View, change: Change) -> bool:
    """Whoever owns it stays the owner, or it is owned where it runs already."""
    return all(_stays_or_is_adopted(view, word) for word in change.assignments)


def _stays_or_is_adopted(view: View, word: Assignment) -> bool:
    before = view.assignments.get(word.vserver)
    if word.kind is Kind.ADOPTED and (before is None or before.owner != word.owner):
        return True
    if before is None or (word.owner, word.want) != (before.owner, before.want):
        return False
    if word.target is None:
        return before.target is None
    there = reported(view, word.target, word.vserver)
    return word.unshipped and there is not None and there.by_hand


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
    if word.unstarted and report is not None and report.handing_failed:
        return False  # nothing comes of it as long as it is not sent again
    if word.target is not None or word.again or report is None:
        return True
    return word.want is Want.STARTED and report.state not in (State.RUNNING, State.ERROR)
