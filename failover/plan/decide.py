"""What is to become of one vserver now: the rows of the table in failover/plan/__init__.py, asked from above down."""

from __future__ import annotations

from dataclasses import replace

from failover.model import Assignment, Hold, Kind, MoveWish, State, Vserver, VserverIntent, VserverReport, Want
from failover.plan import found, lost, moves, patience
from failover.plan.board import Board, alive, hosts_of, intent_of, own_report, stays_on_shutdown, wanted
from failover.plan.first import first, sending
from failover.plan.words import assign, at_home, forgiven
from failover.store import Change


def decide(board: Board, vserver: Vserver) -> Change | Hold | None:
    view = board.view
    intent, want = intent_of(view, vserver.name), wanted(view, vserver)
    word = view.assignments.get(vserver.name)
    if word is None:
        return None if want is Want.IGNORED else first(board, vserver, want)
    wish = intent.move if intent.move is not None and intent.move.epoch == word.epoch else None
    if word.again:
        return _again(board, vserver, word, want)
    if word.want is not want and (wish is None or Want.IGNORED in (word.want, want)):
        return _wanted_otherwise(board, vserver, word, want)
    if want is Want.IGNORED:
        return None
    word = replace(word, want=want)  # a wish that is obeyed takes it along in one change
    if word != forgiven(word) and intent.cleared_epoch >= word.epoch and wish is None:
        return assign(board, forgiven(word), "an operator says: try again")
    if not alive(view, word.owner):
        return found.where_nobody_put_it(board, vserver, word) or lost.lost(board, vserver, word, intent, wish)
    return _owned(board, vserver, word, intent, wish)


def _wanted_otherwise(board: Board, vserver: Vserver, word: Assignment, want: Want) -> Change | Hold:
    """A new want is a new epoch, at once. What was ignored meanwhile may run where nobody knew."""
    if word.want is Want.IGNORED:
        return found.managed_again(board, vserver, replace(word, want=want))
    return assign(board, at_home(replace(word, want=want)), f"wanted {want}")


def _again(board: Board, vserver: Vserver, word: Assignment, want: Want) -> Change | Hold | None:
    """It is stopped only to be started again, unless it is wanted otherwise by now."""
    if want is not Want.STARTED:
        return assign(board, replace(word, want=want, again=False), f"wanted {want}")
    if not alive(board.view, word.owner):
        return lost.lost(board, vserver, word, intent_of(board.view, vserver.name), None)
    report = own_report(board.view, word)
    if report is None or report.state not in (State.STOPPED, State.ERROR):
        return None
    return assign(board, replace(word, want=Want.STARTED, again=False), "it has stopped and is started again")


def _owned(
    board: Board, vserver: Vserver, word: Assignment, intent: VserverIntent, wish: MoveWish | None
) -> Change | Hold | None:
    report = own_report(board.view, word)
    if report is None:
        return None  # the agent has not obeyed this epoch yet
    if word.unstarted:
        return found.where_nobody_put_it(board, vserver, word) or sending(board, vserver, word, report, wish)
    if word.target is not None:
        return moves.handing_over(board, vserver, word, report)
    if wish is not None:
        return moves.wished(board, vserver, word, wish)
    if intent.restart_epoch == word.epoch and word.want is Want.STARTED:
        return assign(board, replace(word, want=Want.STOPPED, again=True), "an operator restarts it")
    if (strange := found.where_nobody_put_it(board, vserver, word)) is not None:
        return strange
    if report.state is State.ERROR:
        return moves.in_error(board, vserver, word, report, intent)
    if word.kind is Kind.PLANNED and word.source is not None and report.state is State.RUNNING:
        return assign(board, patience.arrived(word), f"it has arrived on {word.owner}")
    return _by_itself(board, vserver, word, report)


def _by_itself(board: Board, vserver: Vserver, word: Assignment, report: VserverReport) -> Change | Hold | None:
    """All is well with it; does the manager want it elsewhere all the same?"""
    owner = word.owner
    if set(word.hosts) != set(hosts_of(vserver, owner)):
        return assign(board, word, f"it may run on {', '.join(vserver.hosts)} now")
    if owner not in vserver.hosts:
        return moves.leave(board, vserver, word, f"{owner} may not run it any more")
    if board.drained(owner):
        return moves.leave(board, vserver, word, f"{owner} is drained")
    if board.leaving(owner):
        return None if stays_on_shutdown(vserver) else moves.leave(board, vserver, word, f"{owner} is shut down")
    if word.want is not Want.STARTED:
        return None
    if board.apart or board.mates:
        repaired = moves.repair(board, vserver, word)
        if repaired is not None:
            return repaired
    return None if vserver.failback_s is None else moves.home(board, vserver, word, report)
