"""`start_after`: who is given a host only once others run."""

from __future__ import annotations

from failover.model import State, Vserver, Want
from failover.plan.board import Board, alive, own_report

LONGEST_S = 60.0  # an order of starts must not become an outage


def waits_for(board: Board, vserver: Vserver) -> str:
    """Why its start is put off for another's; empty when it is not."""
    for other in vserver.start_after:
        if other in board.put_off:
            board.put_off.add(vserver.name)
            return f"it starts after {other}, which waits itself"
        word = board.words.get(other)
        if word is None or word.want is not Want.STARTED or not alive(board.view, word.owner):
            continue  # what cannot run now is not waited for
        report = own_report(board.view, word)
        over_at = word.at + LONGEST_S
        if (report is None or report.state is State.STOPPED) and board.now < over_at:
            board.later(over_at)
            board.put_off.add(vserver.name)
            return f"it starts after {other}, which does not run yet"
    return ""
