"""What the leader remembers of hosts: when each was lost."""

from __future__ import annotations

from failover.model import Memory, View, frozen_map

LOSSES = 5  # so many are kept per host


def remembered(view: View) -> Memory:
    """The memory as it is now: a host that is lost, and was not when a leader last looked, is noted."""
    known = view.memory.losses
    fresh = {
        host: (*known.get(host, ()), view.now)[-LOSSES:]
        for host, lease in view.leases.items()
        if not lease.alive and not (known.get(host) and known[host][-1] >= lease.store_at)
    }
    return Memory(frozen_map({**known, **fresh}) if fresh else known, view.memory.disarmed)
