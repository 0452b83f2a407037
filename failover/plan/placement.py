"""Which of the hosts that may run a vserver is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from failover.model import Placement, Vserver
from failover.plan.board import Board
from failover.plan.freshness import freshest_first

_Key = Callable[[Board, Vserver, str], tuple[float, ...]]


def preferred(board: Board, vserver: Vserver, hosts: Iterable[str]) -> list[str]:
    """These hosts, the best first: those that flap last, then the soft rules, then `placement`, then as written."""
    by_placement = _PLACEMENTS[vserver.placement]
    written = vserver.hosts.index
    return sorted(
        hosts,
        key=lambda host: (
            board.flapping(host),
            _soft_breaches(board, vserver, host),
            by_placement(board, vserver, host),
            written(host),
        ),
    )


def _soft_breaches(board: Board, vserver: Vserver, host: str) -> int:
    """How many wishes to be near or far from others a host would not fulfil."""
    near = sum(board.wanted(other) and board.place(other) not in (host, None) for other in vserver.prefer_together_with)
    far = sum(board.wanted(other) and board.place(other) == host for other in vserver.prefer_apart_from)
    return near + far


_PLACEMENTS: dict[Placement, _Key] = {
    Placement.ORDERED: lambda board, vserver, host: (),
    Placement.ROOMIEST: lambda board, vserver, host: (-board.free_memory(host),),
    Placement.FRESHEST: freshest_first,
}
