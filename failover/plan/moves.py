"""Moves with the owner's help: it syncs, stops it, ships the last changes, and then the target has it.

Rule 1: whoever must be together with it comes along, in the same change.
Rule 2: an operator's move is obeyed or answered with a reason, once. What the manager moves by itself is more careful:
        not to a host that flaps, nor at once again to one that could not take it.
Rule 3: a move that fails leaves it running where it was, and by itself is repeated with growing pauses (patience).
"""

from __future__ import annotations

import math
from dataclasses import replace

from failover.model import (
    Assignment,
    Hold,
    Kind,
    MoveWish,
    State,
    Verdict,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.plan import patience
from failover.plan.board import Board, alive, has_begun, own_report, rank
from failover.plan.lost import way_out
from failover.plan.placement import preferred
from failover.plan.verdicts import broken_rule, judge, judge_move, unfit
from failover.plan.words import assign, forgiven, give, joined, stays
from failover.store import Change

_FAILED = "failed to run it before"

# --- a move that is under way -----------------------------------------------------------------------------------------


def handing_over(board: Board, vserver: Vserver, word: Assignment, report: VserverReport) -> Change | None:
    assert word.target is not None
    stay = replace(word, target=None, unshipped=False, accept_loss=False)
    if why := hopeless(board, vserver, word, word.target):
        return assign(board, stay, f"the move was given up: {word.target} {why}")
    if report.handed is not None:
        return give(board, word, word.target, _kind(board, word), word.because, accept_loss=word.accept_loss)
    if report.handing_failed:
        failed = f"the move to {word.target} failed and it stays on {word.owner}: {report.handing_failed}"
        if word.failed_at[-1:] == (word.at,):  # it was moved because it failed, and that was no move: see _relocated
            stay = replace(stay, failed_at=(*word.failed_at[:-1], board.now))
        return assign(board, patience.set_back(stay, word.target, report.handing_failed, board.now), failed)
    return None


def hopeless(board: Board, vserver: Vserver, word: Assignment, target: str) -> str:
    """Why it cannot go there any more. What goes without a last sync must find a replica there that is fresh enough."""
    if _is_adopted(board, word) or _goes_back(board, word):
        return ""
    if not word.unshipped or word.accept_loss:
        return unfit(board, vserver, target)
    verdict = judge(board, vserver, target)
    return "" if verdict.may else verdict.because


def _goes_back(board: Board, word: Assignment) -> bool:
    """Whether it returns from a host that could not start it: whatever speaks against where it was, it ran there."""
    back = word.target == word.source and word.unshipped and word.kind is Kind.PLANNED
    return back and _may_take_back(board, word)


def _may_take_back(board: Board, word: Assignment) -> bool:
    return word.source is not None and alive(board.view, word.source) and not board.leaving(word.source)


def _kind(board: Board, word: Assignment) -> Kind:
    """Of a change of owner with the owner's help."""
    if word.accept_loss:
        return Kind.TAKEOVER
    if word.unstarted:
        return Kind.FIRST
    if _is_adopted(board, word):
        return Kind.ADOPTED
    if not word.unshipped or (word.target == word.source and word.kind is Kind.PLANNED):
        return Kind.PLANNED
    return Kind.TAKEOVER if word.kind is Kind.TAKEOVER or has_begun(board.view, word) else Kind.PLANNED


def _is_adopted(board: Board, word: Assignment) -> bool:
    """Whether it runs at the target already, where a person started it."""
    if not word.unshipped or word.accept_loss or word.target is None or not alive(board.view, word.target):
        return False
    there = board.view.reports[word.target].vservers.get(word.vserver)
    return there is not None and there.by_hand


# --- an operator's word -----------------------------------------------------------------------------------------------


def wished(board: Board, vserver: Vserver, word: Assignment, wish: MoveWish) -> Change:
    """An operator's word for this very epoch: obeyed, or answered by an epoch that says why not."""
    if wish.accept_loss and wish.target:
        verdict = judge(board, vserver, wish.target, wish)
        if not verdict.may:
            return assign(board, word, f"not started on {wish.target}: it {verdict.because}")
        because = f"an operator starts the replica of {wish.target} as it is"
        asked = replace(word, target=wish.target, unshipped=True, accept_loss=True, pinned=True)
        return assign(board, asked, because)
    fresh = forgiven(word) if wish.target else word
    hosts = (wish.target,) if wish.target else vserver.hosts
    judged = [judge_set(board, vserver, fresh, host) for host in hosts if host != word.owner]
    able = preferred(board, vserver, [verdict.host for verdict in judged if verdict.may])
    if not able:
        reasons = "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged) or "it is there already"
        return stays(board, word, f"not moved: {reasons}")
    kept = replace(fresh, pinned=wish.stay and wish.target is not None)
    return along(board, vserver, kept, able[0], f"an operator moves it to {able[0]}")


# --- what the manager moves by itself ---------------------------------------------------------------------------------


def leave(
    board: Board, vserver: Vserver, word: Assignment, why: str, *, but_not: tuple[str, ...] = ()
) -> Change | Hold:
    """It is to go where it may run, wherever that is; where there is no such host it stays, and that is shown."""
    judged = [judge_set(board, vserver, word, host, by_itself=True) for host in vserver.hosts if host != word.owner]
    judged = [replace(v, may=False, because=_FAILED) if v.may and v.host in but_not else v for v in judged]
    able = preferred(board, vserver, [verdict.host for verdict in judged if verdict.may])
    if not able:
        reasons = "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged) or "it has no backup"
        at_once = f", or try again at once: failover clear {vserver.name}" if patience.unreached(board, word) else ""
        return Hold(vserver.name, f"{why}, but it must stay there: {reasons}", f"add or repair a backup{at_once}")
    return along(board, vserver, word, able[0], f"{why}; it moves to {able[0]}")


def in_error(
    board: Board, vserver: Vserver, word: Assignment, report: VserverReport, intent: VserverIntent
) -> Change | Hold:
    """It failed on its owner, which has done all that it may by itself."""
    if intent.cleared_epoch >= word.epoch:
        return assign(board, forgiven(word), "an operator says: try again")
    failed_on = _with(word.failed_on, word.owner)
    back = word.source if word.kind is Kind.PLANNED and word.source not in word.failed_on else None
    if back and back in vserver.hosts and _may_take_back(board, word):
        return _returned(board, vserver, replace(word, failed_on=failed_on), back, report.because)
    why = f"{word.owner} cannot {'start' if word.want is Want.STARTED else 'stop'} it: {report.because}"
    if word.want is Want.STARTED:
        asked = replace(word, failed_on=failed_on, pinned=False)
        moved = _relocated(board, vserver, asked, f"it failed on {word.owner} ({report.because})")
        if isinstance(moved, Change):
            return moved
        why = moved or why
    hint = f"mend it, then: failover start {vserver.name}; or {way_out(board, vserver, word)}"
    return Hold(vserver.name, why, hint)


def _relocated(board: Board, vserver: Vserver, word: Assignment, why: str) -> Change | str:
    """Moved as often as `restart` says, else why not; empty: often enough. When its owner cannot even ship what it has
    (its disk fails), that was no move: it is tried once more, and then another host starts its replica as it is."""
    recent = tuple(at for at in word.failed_at if at > word.at - vserver.restart.within_s)  # what is in error stays so
    unshipped = bool(recent) and recent[-1:] == word.setbacks[-1:]
    asked = replace(word, failed_at=(*recent, board.now))
    because = ""
    if len(recent) - unshipped < vserver.restart.moves:
        tried = word.unreached if unshipped else ()
        moved = _passed_on(board, vserver, asked, why) or leave(board, vserver, asked, why, but_not=tried)
        if isinstance(moved, Change):
            return moved
        because = moved.because
    if not unshipped:
        return because
    why = f"{why}, which cannot ship it ({word.setback})"
    return _as_it_is(board, vserver, asked, why) or f"{why}: {_verdicts(board, vserver, word.owner)}"


def _returned(board: Board, vserver: Vserver, word: Assignment, back: str, why: str) -> Change:
    """It could not start where it was moved to. Was it to leave where it was, another host is tried first."""
    word = patience.set_back(word, word.owner, why, board.now)
    if unfit(board, vserver, back):
        moved = leave(board, vserver, word, f"{word.owner} could not start it ({why})")
        if isinstance(moved, Change):
            return moved
    returning = replace(word, target=back, unshipped=True, pinned=True)  # a move that failed is not repeated by itself
    return assign(board, returning, f"{word.owner} could not start it ({why}); it goes on at {back}")


def _passed_on(board: Board, vserver: Vserver, word: Assignment, why: str) -> Change | None:
    """An owner that took it over and never started it need ship nothing: another replica is as good as it was."""
    return None if word.source is None or has_begun(board.view, word) else _as_it_is(board, vserver, word, why)


def _as_it_is(board: Board, vserver: Vserver, word: Assignment, why: str) -> Change | None:
    """Another host starts its replica without a last sync, if there is one that is fresh enough."""
    others = [host for host in vserver.hosts if host != word.owner]
    able = preferred(board, vserver, [host for host in others if judge(board, vserver, host).may])
    if not able:
        return None
    return assign(board, replace(word, target=able[0], unshipped=True), f"{why}; {able[0]} starts its replica instead")


def _verdicts(board: Board, vserver: Vserver, owner: str) -> str:
    judged = [judge(board, vserver, host) for host in vserver.hosts if host != owner]
    return "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged) or "it has no backup"


def repair(board: Board, vserver: Vserver, word: Assignment) -> Change | Hold | None:
    """It breaks a hard rule where it is. The one with the lower priority moves."""
    cluster = board.view.cluster
    others = [*board.apart.get(vserver.name, ()), *board.mates.get(vserver.name, ())]
    above = [other for other in others if board.wanted(other) and rank(cluster.vservers[other]) < rank(vserver)]
    if not above:
        return None
    only_above = _only(board, vserver, above)
    if not (broken := broken_rule(only_above, vserver, word.owner)):
        return None
    if any(_is_moving(board, other) for other in above):
        return None  # it may be whole again soon
    if at := patience.mends_at(board, word):
        why = f"{word.owner} {broken}; it was moved for a rule just now, and may be again at {at}"
        return Hold(vserver.name, why, f"try again at once: failover clear {vserver.name}")
    asked = patience.mended(word, board.now)
    return leave(board, vserver, asked, f"{word.owner} {broken}", but_not=word.failed_on)  # where it failed: tried once


def home(board: Board, vserver: Vserver, word: Assignment, report: VserverReport) -> Change | Hold | None:
    """`failback`: back to the primary once that has been healthy so long, unless an operator put it elsewhere."""
    primary = vserver.primary
    if vserver.failback_s is None or word.owner == primary or word.pinned or report.state is not State.RUNNING:
        return None
    mates = board.mates.get(vserver.name, ())
    if any(board.wanted(mate) and rank(board.view.cluster.vservers[mate]) < rank(vserver) for mate in mates):
        return None  # a set goes where the highest of it is at home
    due_at = max(board.free_since(primary), word.at) + vserver.failback_s
    if math.isinf(due_at) or board.now < due_at:
        board.later(due_at if not math.isinf(due_at) else board.now)
        return None
    verdict = judge_set(board, vserver, word, primary, by_itself=True)
    if not verdict.may:
        return Hold(vserver.name, f"it does not return to {primary} yet: {primary} {verdict.because}")
    return along(board, vserver, word, primary, f"{primary} has been healthy for {vserver.failback_s:g} s; it returns")


# --- the set that must be together ------------------------------------------------------------------------------------


def judge_set(board: Board, vserver: Vserver, word: Assignment, host: str, *, by_itself: bool = False) -> Verdict:
    """Whether it, and all that must come along, may be handed over to `host`."""
    mates = companions(board, vserver, host)
    board.moving_along = frozenset((vserver.name, *(mate.vserver for mate in mates)))
    try:
        verdict = judge_move(board, vserver, word, host, by_itself=by_itself)
        for mate in mates if verdict.may else ():
            its = judge_move(board, board.view.cluster.vservers[mate.vserver], mate, host, by_itself=by_itself)
            if not its.may:
                return Verdict(host, False, f"cannot take {mate.vserver}, which must come along: it {its.because}")
    finally:
        board.moving_along = frozenset()
    return verdict


def along(board: Board, vserver: Vserver, word: Assignment, target: str, because: str) -> Change:
    """It is to be handed over to `target`, and its set with it."""
    mates = companions(board, vserver, target)
    changes = [assign(board, replace(word, target=target, unshipped=False), because)]
    for mate in mates:
        own = own_report(board.view, mate)
        if own is not None and mate.target is None:
            follows = replace(mate, target=target, unshipped=False, pinned=word.pinned)
            changes.append(assign(board, follows, f"it must be together with {vserver.name}: {because}"))
    return joined(changes)


def companions(board: Board, vserver: Vserver, host: str) -> list[Assignment]:
    """The words of those that must be where it is and are somewhere else, with an owner that can hand over."""
    mates = [board.words[name] for name in board.mates.get(vserver.name, ()) if name in board.words]
    return [
        mate
        for mate in mates
        if board.wanted(mate.vserver) and alive(board.view, mate.owner) and host not in (mate.owner, mate.target)
    ]


def _is_moving(board: Board, name: str) -> bool:
    word = board.words.get(name)
    return word is not None and word.target is not None


def _only(board: Board, vserver: Vserver, others: list[str]) -> Board:
    """The same board, on which the vserver's rules name only these others."""
    narrowed = Board.__new__(Board)
    narrowed.__dict__.update(board.__dict__)
    narrowed.apart = {vserver.name: board.apart.get(vserver.name, frozenset()) & frozenset(others)}
    narrowed.mates = {vserver.name: tuple(n for n in board.mates.get(vserver.name, ()) if n in others)}
    return narrowed


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
