"""How old a replica is, and which one is started when all are too old."""

from __future__ import annotations

import math

from failover.model import Vserver
from failover.plan.board import Board, alive, has_begun, has_obeyed, reported
from failover.timing import PROFILES


def age_of(board: Board, vserver: Vserver, host: str) -> float | None:
    """Seconds between the last moment at which the replica was known to be complete and now, or the end of the
    owner's lease if that is lost. None: unknown. Both ends are on the store's clock or on one host's own clock.

    An owner that never started it has shipped nothing: what counts is what the owner before it shipped, and if it is
    lost, how long it may have run it unseen.
    """
    view = board.view
    word = view.assignments.get(vserver.name)
    if word is None:
        return None
    if has_begun(view, word) or word.source is None:
        return _shipped(board, vserver, host, word.owner)
    told_so = alive(view, word.owner) and has_obeyed(view, word)
    unseen_s = 0.0 if told_so else max(0.0, _end(board, word.owner) - word.owned_at)
    before_s = 0.0 if host == word.source else _shipped(board, vserver, host, word.source)
    return None if before_s is None else before_s + unseen_s


def _shipped(board: Board, vserver: Vserver, host: str, owner: str) -> float | None:
    """How old the replica is by the word of the one that shipped it."""
    known = reported(board.view, owner, vserver.name)
    shipment = known.shipments.get(host) if known else None
    if shipment is None or not shipment.generation:
        return None
    if shipment.final:
        return 0.0
    return shipment.age_s + max(0.0, _end(board, owner) - board.view.reports[owner].store_at)


def _end(board: Board, owner: str) -> float:
    """Until when it may have written."""
    lease = board.view.leases.get(owner)
    if lease is None or alive(board.view, owner):
        return board.now
    return lease.store_at + PROFILES[board.view.cluster.timing].lease_s


def freshest_first(board: Board, vserver: Vserver, host: str) -> tuple[float, int]:
    """The newest replica first; of those whose age nobody knows, the one with the highest generation."""
    age = age_of(board, vserver, host)
    report = board.view.reports.get(host)
    replica = report.replicas.get(vserver.name) if report else None
    return math.inf if age is None else age, -(replica.generation if replica else 0)
