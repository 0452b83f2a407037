"""Who decides first."""

from __future__ import annotations

from collections.abc import Mapping

from failover.model import Vserver
from failover.plan.board import rank


def in_order(vservers: Mapping[str, Vserver]) -> list[str]:
    """By priority and name, each after those that it starts after."""
    order: dict[str, None] = {}

    def place(name: str, above: tuple[str, ...] = ()) -> None:
        for before in vservers[name].start_after:
            if before in vservers and before not in order and before not in above:
                place(before, (*above, name))
        order.setdefault(name)

    for vserver in sorted(vservers.values(), key=rank):
        place(vserver.name)
    return list(order)
