"""The owner is lost: its lease has ended, so it has stopped or frozen the vserver, and cannot renew unseen.

the first that holds decides
───────────────────────────────────────────────────  ───────────────────────────────────────────────────────────
nobody knows the owner, or it may only be booting     wait
it was in error there                                  it stays in error: a person says what next
it was handed over whole, then the owner was lost      the target has it
it was shut down in order, and waits for its host      wait (`on_host_shutdown`)
a host may run it                                      the preferred one takes it over, unless it falls with the owner,
                                                      or who is more important may choose first in a moment (rivals)
only replicas that are too old are left                `when_stale`: wait, ask, or take the newest
"""

from __future__ import annotations

from failover.model import (
    Assignment,
    Hold,
    Kind,
    MoveWish,
    Shutdown,
    Stale,
    State,
    Verdict,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.plan.board import Board, alive, fenced, own_report, stays_on_shutdown
from failover.plan.freshness import freshest_first
from failover.plan.placement import preferred
from failover.plan.rivals import goes_first
from failover.plan.starts import waits_for
from failover.plan.verdicts import cannot_follow, is_stale, judge, unfit, verdicts
from failover.plan.words import give
from failover.store import Change


def lost(
    board: Board, vserver: Vserver, word: Assignment, intent: VserverIntent, wish: MoveWish | None
) -> Change | Hold:
    name, owner = vserver.name, word.owner
    if owner not in board.view.leases:
        return Hold(name, f"nobody knows whether {owner}, its owner, is off", f"bring {owner} back")
    if (until := board.booting_until(owner)) > board.now and wish is None and not fenced(board.view, owner):
        board.later(until)
        return Hold(name, f"{owner}, its owner, is waited for: it may be slow to boot")
    last = own_report(board.view, word)
    in_error = last is not None and last.state is State.ERROR and word.want is Want.STARTED
    if in_error and last is not None and intent.cleared_epoch < word.epoch and wish is None:
        why = f"it was in error on {owner}, which is lost: {last.because}"
        return Hold(name, why, f"failover start {name}")
    if word.target is not None and last is not None and last.handed and alive(board.view, word.target):
        because = f"{owner} handed it over to {word.target}, then was lost"
        return give(board, word, word.target, Kind.PLANNED, because)
    if (waiting := _waits_for_its_host(board, vserver, word, last)) is not None and wish is None:
        return waiting
    return _taken_over(board, vserver, word, wish if wish is not None and wish.accept_loss else None)


def _waits_for_its_host(board: Board, vserver: Vserver, word: Assignment, last: VserverReport | None) -> Hold | None:
    """Its host was shut down in order, having stopped it; it is to wait until that is back."""
    if (
        not stays_on_shutdown(vserver)
        or not board.leaving(word.owner)
        or last is None
        or last.state is not State.STOPPED
    ):
        return None
    hint = f"failover takeover {word.owner}, to start it elsewhere now"
    if vserver.on_host_shutdown is Shutdown.STOP:
        return Hold(vserver.name, f"{word.owner} was shut down, and it waits for it (on_host_shutdown: stop)", hint)
    until = board.lost_at(word.owner) + vserver.keep_s
    if board.now >= until:
        return None
    board.later(until)
    why = f"{word.owner} was shut down, and it waits {vserver.keep_s:g} s for it (on_host_shutdown: keep)"
    return Hold(vserver.name, why, hint)


def _taken_over(board: Board, vserver: Vserver, word: Assignment, accepted: MoveWish | None) -> Change | Hold:
    judged = verdicts(board, vserver, accepted)
    able = [verdict.host for verdict in judged if verdict.may and verdict.host != word.owner]
    able = [host for host in able if not _stranded(board, vserver, word, host)]
    if accepted is not None:
        able = [host for host in able if host == accepted.target] or able
    reasons = "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged)
    if not able:
        stale = [host for host in vserver.hosts if host != word.owner and is_stale(board, vserver, host)]
        return _only_stale(board, vserver, word, stale, f"no host may run it: {reasons}")
    if word.want is Want.STARTED and (waiting := waits_for(board, vserver)):
        return Hold(vserver.name, waiting)
    chosen = preferred(board, vserver, able)[0]
    if accepted is None and board.falling_with(word.owner, chosen):
        board.put_off.add(vserver.name)
        return Hold(vserver.name, f"{chosen}, which would take it over, may be lost together with {word.owner}")
    if accepted is None and (rival := goes_first(board, vserver, word, able)):
        board.put_off.add(vserver.name)
        lost_too = board.words[rival].owner
        return Hold(vserver.name, f"{rival} chooses first, if {lost_too} is lost together with {word.owner}")
    last = own_report(board.view, word)
    shipment = last.shipments.get(chosen) if last else None
    whole = shipment is not None and shipment.final and board.leaving(word.owner)
    kind = Kind.PLANNED if whole else Kind.TAKEOVER
    gone = "is off" if fenced(board.view, word.owner) else "is lost"
    because = f"{word.owner} {gone}; {chosen} {_verdict_of(judged, chosen).because}"
    return give(board, word, chosen, kind, because, accept_loss=accepted is not None)


def _stranded(board: Board, vserver: Vserver, word: Assignment, host: str) -> str:
    """Which of the set that lost its host together with it could not follow to `host`; empty when all can."""
    for other in board.mates.get(vserver.name, ()):
        its = board.words.get(other)
        if its is None or its.owner != word.owner or not board.wanted(other):
            continue
        if not judge(board, board.view.cluster.vservers[other], host).may:
            return other
    return ""


def _only_stale(board: Board, vserver: Vserver, word: Assignment, stale: list[str], why: str) -> Change | Hold:
    """All that is left is too old: `when_stale` decides."""
    if stale and vserver.when_stale is Stale.TAKE:
        chosen = min(stale, key=lambda host: freshest_first(board, vserver, host))
        because = f"{word.owner} is lost; {chosen} has the newest replica, older than max_data_loss (when_stale: take)"
        return give(board, word, chosen, Kind.TAKEOVER, because, accept_loss=True)
    until = board.lost_at(word.owner) + vserver.stale_wait_s
    if stale and board.now < until:
        board.later(until)
        return Hold(vserver.name, f"{why}; {word.owner} is waited for (when_stale: wait)", _way_out(stale, word))
    return Hold(vserver.name, why, _way_out(stale or _with_a_copy(board, vserver, word), word, _strangers(board, word)))


def _way_out(stale: list[str], word: Assignment, strangers: bool = False) -> str:
    """The command that helps when the manager may not decide by itself."""
    if stale:
        return f"start an old replica all the same: failover start {word.vserver} --on {stale[0]} --accept-loss"
    if strangers:
        return f"bring {word.owner} back, or once it is off: failover fence {word.owner} --confirmed"
    return f"bring {word.owner} back"


def _strangers(board: Board, word: Assignment) -> bool:
    return any(cannot_follow(board, word, host) for host in board.view.cluster.vservers[word.vserver].hosts)


def way_out(board: Board, vserver: Vserver, word: Assignment) -> str:
    return _way_out(_with_a_copy(board, vserver, word), word)


def _with_a_copy(board: Board, vserver: Vserver, word: Assignment) -> list[str]:
    """Hosts that hold some complete replica, however old or diverged, and could start it."""
    reports = board.view.reports
    return [
        host
        for host in vserver.hosts
        if host != word.owner and host in reports and vserver.name in reports[host].replicas
        if not unfit(board, vserver, host) and not cannot_follow(board, word, host)
    ]


def _verdict_of(judged: tuple[Verdict, ...], host: str) -> Verdict:
    return next(verdict for verdict in judged if verdict.host == host)
