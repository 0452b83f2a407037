"""Hosts that die together are lost in no order: their sessions end within a fraction of a second. Who is more important
chooses first all the same.

Rule 1: only who could take something away is waited for: the room, the way by a rule, or the better place.
Rule 2: the wait is bounded: by its end the host has been heard of, or its own session has ended (`falling_with`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from failover.model import Assignment, Placement, Vserver
from failover.plan.board import Board, rank


def goes_first(board: Board, vserver: Vserver, word: Assignment, able: Iterable[str]) -> str:
    """Another vserver that may choose first among `able` in a moment, and whose choice would count; empty: none."""
    falling = [host for host in board.view.leases if host != word.owner and board.falling_with(word.owner, host)]
    rivals = [other for host in falling for other in _started(board, host) if rank(other) < rank(vserver)]
    for host in able:
        here = sorted((rival for rival in rivals if host in rival.hosts), key=rank)
        short = _room_is_short(board, vserver, here, host)
        for rival in here:
            if short or _minds(board, vserver, rival):
                return rival.name
    return ""


def _started(board: Board, host: str) -> Iterator[Vserver]:
    declared = board.view.cluster.vservers
    return (declared[name] for name in board.owned_by(host) if name in declared and board.wanted(name))


def _room_is_short(board: Board, vserver: Vserver, rivals: Iterable[Vserver], host: str) -> bool:
    all_needs = [vserver.needs, *(rival.needs for rival in rivals)]
    return (
        vserver.needs.memory_bytes > 0 and sum(needs.memory_bytes for needs in all_needs) > board.free_memory(host)
    ) or (vserver.needs.cpus > 0 and sum(needs.cpus for needs in all_needs) > board.free_cpus(host))


def _minds(board: Board, vserver: Vserver, rival: Vserver) -> bool:
    """Whether it would choose otherwise, once the rival has chosen."""
    soft = (*vserver.prefer_apart_from, *vserver.prefer_together_with)
    by_room = vserver.placement is Placement.ROOMIEST and rival.needs.memory_bytes > 0
    hard = board.apart.get(vserver.name, frozenset())
    return by_room or rival.name in soft or rival.name in hard
