"""Who survives whom: what would become of everything, had some hosts just been lost. The same decisions, on a copy.

`matrix` asks it for every host (N+1) or every pair (N+2). Only what the lost hosts own is decided anew, on one board.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from failover.model import (
    Assignment,
    Cluster,
    Hold,
    Lease,
    Replica,
    Report,
    Shipment,
    State,
    View,
    VserverReport,
    Want,
    frozen_map,
)
from failover.plan.board import Board, alive, wanted
from failover.plan.decide import decide
from failover.plan.order import in_order
from failover.store import Change


@dataclass(frozen=True)
class Survival:
    """`moved`: (vserver, from, to, because); `waiting`: what would run nowhere, (vserver, because)."""

    lost: tuple[str, ...]
    moved: tuple[tuple[str, str, str, str], ...]
    waiting: tuple[tuple[str, str], ...]

    @property
    def whole(self) -> bool:
        return not self.waiting


def matrix(view: View, at_once: int = 1) -> Iterator[Survival]:
    """What follows when any `at_once` of the hosts that are up are lost together."""
    board = Board(_unordered(view))
    up = [host for host in view.cluster.hosts if alive(view, host)]
    for lost in combinations(up, at_once):
        yield _survival(board, lost)


def survival(view: View, lost: tuple[str, ...]) -> Survival:
    return _survival(Board(_unordered(view)), lost)


def _survival(board: Board, lost: tuple[str, ...]) -> Survival:
    after = board.having_lost(lost)
    vservers = after.view.cluster.vservers
    owned = {name: vservers[name] for host in lost for name in board.owned_by(host) if name in vservers}
    moved, waiting = [], []
    for name in in_order(owned):
        if wanted(after.view, owned[name]) is not Want.STARTED:
            continue
        before, found = after.view.assignments[name], decide(after, owned[name])
        if isinstance(found, Change) and found.assignments[0].owner != before.owner:
            word = found.assignments[0]
            moved.append((name, before.owner, word.owner, word.because))
        else:
            waiting.append((name, found.because if isinstance(found, Hold) else "it is not taken over"))
    return Survival(lost, tuple(moved), tuple(waiting))


def _unordered(view: View) -> View:
    """An order of starts delays and prevents nothing."""
    if not any(vserver.start_after for vserver in view.cluster.vservers.values()):
        return view
    free = {name: replace(vserver, start_after=()) for name, vserver in view.cluster.vservers.items()}
    return replace(view, cluster=replace(view.cluster, vservers=frozen_map(free)))


def as_written(cluster: Cluster) -> View:
    """A cluster as its file says and nothing more: every host up, all on its primary, every replica fresh."""
    said: dict[str, dict[str, VserverReport]] = {host: {} for host in cluster.hosts}
    copies: dict[str, dict[str, Replica]] = {host: {} for host in cluster.hosts}
    for name, vserver in cluster.vservers.items():
        state = State.RUNNING if vserver.want is Want.STARTED else State.STOPPED
        shipments = {host: Shipment(1, 0.0) for host in vserver.backups}
        said[vserver.primary][name] = VserverReport(state, 1, shipments=frozen_map(shipments))
        for host in vserver.backups:
            copies[host][name] = Replica(1, 1)
    return View(
        cluster,
        now=0.0,
        leases=frozen_map({host: Lease(host, True, 0, 0.0) for host in cluster.hosts}),
        reports=frozen_map(
            {host: Report(host, frozen_map(said[host]), frozen_map(copies[host])) for host in cluster.hosts}
        ),
        assignments=frozen_map(
            {name: Assignment(name, v.primary, 1, want=v.want, hosts=v.hosts) for name, v in cluster.vservers.items()}
        ),
    )
