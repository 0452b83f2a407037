"""How old a replica is, and which one is started when all are too old."""

from __future__ import annotations

import math

from failover.model import Vserver
from failover.plan.board import Board, alive, reported
from failover.timing import PROFILES


def age_of(board: Board, vserver: Vserver, host: str) -> float | None:
    """Seconds between the last moment at which the replica was known to be complete and now, or the end of the
    owner's lease if that is lost. None: unknown. Both ends are on the store's clock or on one host's own clock."""
    view = board.view
    word = view.assignments.get(vserver.name)
    known = reported(view, word.owner, vserver.name) if word else None
    shipment = known.shipments.get(host) if known else None
    if word is None or shipment is None or not shipment.generation:
        return None
    if shipment.final:
        return 0.0
    lease, end = view.leases.get(word.owner), view.now
    if lease is not None and not alive(view, word.owner):
        end = lease.store_at + PROFILES[view.cluster.timing].lease_s
    return shipment.age_s + max(0.0, end - view.reports[word.owner].store_at)


def freshest_first(board: Board, vserver: Vserver, host: str) -> tuple[float, int]:
    """The newest replica first; of those whose age nobody knows, the one with the highest generation."""
    age = age_of(board, vserver, host)
    report = board.view.reports.get(host)
    replica = report.replicas.get(vserver.name) if report else None
    return math.inf if age is None else age, -(replica.generation if replica else 0)
