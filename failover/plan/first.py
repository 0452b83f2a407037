"""A vserver that nobody owns yet: it is adopted where it runs, else started on its primary, else where it may run.
If its tree has to be sent there, it is started nowhere before that has succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from failover.model import Assignment, Hold, Kind, MoveWish, State, Vserver, VserverReport, Want
from failover.plan import moves, patience
from failover.plan.board import BOOT_S, Board, alive, reported
from failover.plan.found import found_on, lives, one_of, unheard
from failover.plan.placement import preferred
from failover.plan.starts import waits_for
from failover.plan.verdicts import judge_move, unfit
from failover.plan.words import assign
from failover.store import Change


def first(board: Board, vserver: Vserver, want: Want) -> Change | Hold:
    name = vserver.name
    if hold := unheard(board, name):
        return hold
    running = [host for host in board.view.reports if lives(reported(board.view, host, name))]
    new = Assignment(name, "", 0, want=want, owner_epoch=1, owned_at=board.now)
    if running:
        return _adopted(board, vserver, new, running)
    having = _having(board, vserver)
    if not having:
        built = f"build it there: vserver {name} build, on {vserver.primary}"
        return Hold(name, f"no host that is up has its tree ({', '.join(vserver.hosts)})", built)
    reasons = {host: unfit(board, vserver, host) for host in vserver.hosts}
    if waiting := waits_for(board, vserver):
        return Hold(name, waiting)
    if vserver.primary in having and not reasons[vserver.primary]:
        return assign(board, replace(new, owner=vserver.primary), "first start: its primary")
    able = preferred(board, vserver, [host for host in having if not reasons[host]])
    booting_at = board.view.led_at + BOOT_S
    if able and not alive(board.view, vserver.primary) and board.now < booting_at:
        board.later(booting_at)
        return Hold(name, f"{vserver.primary}, its primary, is waited for: it may be slow to boot")
    if not able and (others := [host for host in vserver.hosts if not reasons[host]]):
        return _sent(board, vserver, replace(new, owner=having[0]), preferred(board, vserver, others)[0], reasons)
    if not able:
        because = "; ".join(f"{host} {reasons[host] or 'has no tree of it'}" for host in vserver.hosts)
        return Hold(name, f"no host may run it: {because}", f"mend or undrain one of {', '.join(vserver.hosts)}")
    why = reasons[vserver.primary] or "has no tree of it"
    return assign(board, replace(new, owner=able[0]), f"first start: {vserver.primary} {why}")


def _sent(board: Board, vserver: Vserver, new: Assignment, target: str, reasons: Mapping[str, str]) -> Change:
    """Its tree is where it may not run: it is brought to where it may, and has its first start there."""
    asked = replace(new, target=target, unstarted=True)
    return assign(board, asked, f"{new.owner} {reasons[new.owner]}: it is sent to {target} first")


def sending(
    board: Board, vserver: Vserver, word: Assignment, report: VserverReport, wish: MoveWish | None
) -> Change | Hold | None:
    """It has not been sent yet. Whatever fails, it is started only where it may run."""
    assert word.target is not None
    if lives(report):
        return assign(board, replace(word, target=None, unstarted=False), f"it was started by hand on {word.owner}")
    if wish is not None:
        return moves.wished(board, vserver, word, wish)
    hopeless = moves.hopeless(board, vserver, word, word.target)
    if not hopeless and not report.handing_failed:
        return moves.handing_over(board, vserver, word, report)
    here = unfit(board.without(vserver.name), vserver, word.owner)
    if not here:
        return assign(board, replace(word, target=None, unstarted=False), f"{word.owner} may run it now")
    failed = f"{word.target} {hopeless or f'could not take it ({report.handing_failed})'}"
    why = f"{word.owner} {here}, and {failed}"
    tried = patience.set_back(word, word.target, report.handing_failed or hopeless, board.now)
    able = [host for host in vserver.hosts if host != word.owner and judge_move(board, vserver, word, host).may]
    if untried := [host for host in able if host not in tried.unreached]:
        return _sent_on(board, tried, preferred(board, vserver, untried)[0], why)
    if hopeless or (at := patience.sends_at(board, word)):
        when = "" if hopeless else f", and is tried again at {at}"
        return Hold(vserver.name, f"{why}{when}", f"mend one of them; try again at once: failover clear {vserver.name}")
    again = preferred(board, vserver, able) or [word.target]
    return _sent_on(board, replace(tried, unreached=()), again[0], why)


def _sent_on(board: Board, word: Assignment, target: str, why: str) -> Change:
    return assign(board, replace(word, target=target), f"{why}: it is sent to {target}")


def _adopted(board: Board, vserver: Vserver, new: Assignment, running: list[str]) -> Change | Hold:
    name = vserver.name
    lost = [host for host in running if not alive(board.view, host)]
    if lost:
        return Hold(name, f"it may still run on {lost[0]}, which is lost", f"bring {lost[0]} back")
    host = vserver.primary if vserver.primary in running else one_of(board, vserver, running)
    if host is None and len(running) == 1 and running[0] in vserver.hosts:
        host = running[0]  # whatever speaks against it: it is moved away in order
    if host is None:
        where = " and ".join(running)
        return Hold(name, f"it runs on {where}, which may not run it", f"stop it there: vserver {name} stop")
    kept = replace(new, owner=host, kind=Kind.ADOPTED, pinned=True, unheld=True)
    return assign(board, kept, found_on(host, running))


def _having(board: Board, vserver: Vserver) -> list[str]:
    """Who has its tree. A copy that no owner has ever shipped counts only where there is no tree."""
    view = board.view
    up = [host for host in vserver.hosts if alive(view, host) and host in view.reports]
    trees = [host for host in up if _has_tree(reported(view, host, vserver.name))]
    copies = [host for host in up if (copy := view.reports[host].replicas.get(vserver.name)) and not copy.epoch]
    return trees or copies


def _has_tree(report: VserverReport | None) -> bool:
    return report is not None and report.state is State.STOPPED
