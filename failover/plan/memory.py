"""What the leader remembers of hosts: when each was lost."""

from __future__ import annotations

from dataclasses import replace

from failover.model import Memory, State, View, Want, frozen_map
from failover.plan.board import Board, is_noted, reported

LOSSES = 5  # so many are kept per host


def remembered(board: Board) -> Memory:
    """The memory as it is now: a host that is lost, and was not when a leader last looked, is noted. One that may only
    be slow to boot is not lost yet."""
    view = board.view
    known = view.memory.losses
    fresh = {
        host: (*known.get(host, ()), view.now)[-LOSSES:]
        for host, lease in view.leases.items()
        if not lease.alive and not is_noted(view.memory, lease) and board.booting_until(host) <= board.now
    }
    return replace(view.memory, losses=frozen_map({**known, **fresh})) if fresh else view.memory


def declared_lost(view: View, memory: Memory) -> frozenset[str]:
    """The hosts of which the leader says that they are lost."""
    return frozenset(host for host, lease in view.leases.items() if not lease.alive and is_noted(memory, lease))


def bereft(view: View, host: str) -> tuple[str, ...]:
    """What is wanted started and has lost its owner with this host: not what had been stopped before in order, and not
    what was in error."""
    found = []
    for name, word in view.assignments.items():
        seen = reported(view, host, name)
        rests = seen is not None and seen.state is State.STOPPED and view.reports[host].leaving
        if word.owner == host and word.want is Want.STARTED and not rests and not (seen and seen.state is State.ERROR):
            found.append(name)
    return tuple(sorted(found))
