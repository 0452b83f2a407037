"""Vservers that run where nobody put them: adopted, or stopped by the leader's next word.

Rule 1: an agent does not kill a copy that a person started by hand under the very epoch under which it first saw it. So
        the leader has one turn; its answer is the next epoch, and whoever is not the owner under that one kills.
Rule 2: an owner that lives is never overruled: it lets go first (`unshipped`), and then the copy is adopted.
Rule 3: of several copies one goes on: two humans may have helped, and nothing may run twice.
Rule 4: what was not started under a word is held by no lease until its host has obeyed one (`unheld`).
Rule 5: who was given nothing yet, or nothing any more, may run anywhere: every live host is heard first (`unheard`).
Rule 6: what is ignored is held by no lease. So a lost host on which it may still run must prove more than a lost lease.
"""

from __future__ import annotations

from dataclasses import replace

from failover.model import Assignment, Hold, Kind, State, Vserver, VserverReport, Want
from failover.plan.board import Board, alive, off, own_report, reported
from failover.plan.placement import preferred
from failover.plan.verdicts import cannot_follow, unfit
from failover.plan.words import assign, at_home, give, stays
from failover.store import Change


def lives(report: VserverReport | None) -> bool:
    return report is not None and report.state in (State.RUNNING, State.FROZEN)


def where_nobody_put_it(board: Board, vserver: Vserver, word: Assignment) -> Change | Hold | None:
    """A copy started by hand on a host that is up, seen under the present word; None when there is none."""
    view, name = board.view, vserver.name
    copies = [
        host
        for host, report in view.reports.items()
        if name in report.vservers and host not in (word.owner, word.target) and alive(view, host)
        if (own := report.vservers[name]).by_hand and own.state is State.RUNNING and own.epoch == word.epoch
    ]
    if not copies:
        return None
    owns = own_report(view, word) if alive(view, word.owner) else None
    if lives(owns) or word.want is not Want.STARTED:
        return stays(board, word, f"it belongs to {word.owner}; a copy was started by hand on {', '.join(copies)}")
    copy = one_of(board, vserver, [host for host in copies if not cannot_follow(board, word, host)])
    if copy is None and (kept_off := one_of(board, vserver, copies)) is not None:
        why = f"a copy was started by hand on {kept_off}, which {cannot_follow(board, word, kept_off)}"
        return Hold(name, why, f"bring {word.owner} back, or once it is off: failover fence {word.owner} --confirmed")
    if copy is None:
        return stays(board, word, f"a copy was started by hand on {' and '.join(copies)}, which may not run it")
    if not alive(view, word.owner):
        return give(board, replace(word, pinned=True), copy, Kind.ADOPTED, found_on(copy, copies))
    let_go = replace(word, target=copy, unshipped=True, pinned=True, unstarted=False)
    return assign(board, let_go, f"{found_on(copy, copies)}; {word.owner} lets go of it")


def managed_again(board: Board, vserver: Vserver, word: Assignment) -> Change | Hold:
    """It was ignored: it is adopted where it runs, else it belongs to its owner as before. `word` has the new want."""
    view, name = board.view, vserver.name
    if waiting := unheard(board, name):
        return waiting
    running = [host for host in view.reports if lives(reported(view, host, name))]
    gone = [host for host in running if not alive(view, host) and not off(view, host)]
    last = reported(view, word.owner, name)
    if not alive(view, word.owner) and not off(view, word.owner) and (last is None or lives(last)):
        gone = [word.owner, *gone]  # what it did not report, it may have run unseen
    board.unproved[name].update(gone)
    if gone:
        hint = f"bring {gone[0]} back, or once it is off: failover fence {gone[0]} --confirmed"
        return Hold(name, f"it may still run on {gone[0]}, which is lost", hint)
    running = [host for host in running if alive(view, host)]
    word = replace(at_home(word), unheld=bool(running) or alive(view, word.owner))
    word = replace(word, unstarted=False, target=None) if running else word
    copy = None if word.owner in running else one_of(board, vserver, running)
    if copy is not None:
        kept = replace(word, owner=copy, source=None, kind=Kind.ADOPTED, pinned=True, owned_at=board.now)
        kept = replace(kept, owner_epoch=word.epoch + 1)
        return assign(board, kept, found_on(copy, running))
    return assign(board, word, f"wanted {word.want}")


def unheard(board: Board, name: str) -> Hold | None:
    """A live host that has not said yet whether it runs there; None when all have."""
    if not board.silent:
        return None
    host = board.silent[0]
    hint = f"it does so within a second; if not, see what failover-agent writes on {host}"
    return Hold(name, f"{host} has not said yet whether it runs there", hint)


def one_of(board: Board, vserver: Vserver, running: list[str]) -> str | None:
    """Which of several copies goes on, when none of them is the owner's: the preferred one of those that may. The trees
    of the others are kept aside like that of a former owner."""
    able = preferred(board, vserver, [host for host in running if _may_keep(board, vserver, host)])
    return able[0] if able else None


def found_on(copy: str, copies: list[str]) -> str:
    others = [host for host in copies if host != copy]
    return f"found running on {copy}" + (f", and on {' and '.join(others)}, where it ends" if others else "")


def _may_keep(board: Board, vserver: Vserver, host: str) -> bool:
    """What runs takes its room already, so only what forbids the host altogether counts."""
    return host in vserver.hosts and not unfit(board, replace(vserver, needs=type(vserver.needs)()), host)
