"""How long the manager waits before it does by itself again what has come to nothing.

    a move that failed (a setback): it could not be handed      its target is no candidate for   1, 2, 4, 8, 16, then
    over, or not be started there; each is an outage              a move by itself                 30 minutes
    a move because of a rule, whatever became of it             it is not moved for a rule for   the same

Rule 1: the pauses grow with what has happened lately: once nothing has for an hour, all of it is forgotten.
Rule 2: a move that succeeds forgets the setbacks; `failover clear` and an operator's move forget all.
Rule 3: what is down needs no such patience: its next try makes no outage, and `restart` says how many there are.
Rule 4: nothing here speaks against a takeover.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from failover.model import Assignment, State
from failover.plan.board import Board, own_report

SHORTEST_S, LONGEST_S = 60.0, 1800.0
FORGOTTEN_S = 3600.0
KEPT = 6  # with so many the pause is the longest


def unreached(board: Board, word: Assignment) -> tuple[str, ...]:
    """The hosts to which the manager does not move it by itself now, for it has failed there lately."""
    return word.unreached if word.unreached and board.now < _over(board, _tries_at(board, word)) else ()


def why_unreached(board: Board, word: Assignment) -> str:
    return f"could not take it{_of(word.setback)}, and is tried again at {clock(_tries_at(board, word))}"


def sends_at(board: Board, word: Assignment) -> str:
    """When that which has never run is sent again, which makes no outage; empty: now, and once more at once."""
    at = _after(word.setbacks)
    return clock(at) if board.now < _over(board, at) else ""


def mends_at(board: Board, word: Assignment) -> str:
    """When it may be moved again because of a rule; empty: now."""
    at = _after(word.mended)
    return clock(at) if board.now < _over(board, at) else ""


def set_back(word: Assignment, host: str, because: str, now: float) -> Assignment:
    """It could not be moved to `host`."""
    hosts = word.unreached if host in word.unreached else (*word.unreached, host)
    return replace(word, unreached=hosts, setbacks=_noted(word.setbacks, now), setback=because)


def mended(word: Assignment, now: float) -> Assignment:
    """It is moved because of a rule."""
    return replace(word, mended=_noted(word.mended, now))


def arrived(word: Assignment) -> Assignment:
    """A move has come to its end. One that only brought it back is no success."""
    came_back = word.source == word.owner or word.source in word.unreached
    at_home = replace(word, source=None)
    return at_home if came_back else replace(at_home, unreached=(), setbacks=(), setback="")


def _tries_at(board: Board, word: Assignment) -> float:
    times = word.setbacks or (word.at,)  # an older failover noted no times
    report = own_report(board.view, word)
    down = report is not None and report.state is State.ERROR
    return min(_after(times), times[-1] + SHORTEST_S) if down else _after(times)


def _after(times: tuple[float, ...]) -> float:
    return times[-1] + min(LONGEST_S, SHORTEST_S * 2.0 ** (len(times) - 1)) if times else float("-inf")


def _over(board: Board, at: float) -> float:
    board.later(at)
    return at


def _noted(times: tuple[float, ...], now: float) -> tuple[float, ...]:
    lately = times if times and now < times[-1] + FORGOTTEN_S else ()
    return (*lately, now)[-KEPT:]


def _of(why: str) -> str:
    return f" ({why})" if why else ""


def clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
