"""The seam between our processes and ZooKeeper. `ZooKeeperStore` (failover/zookeeper.py) is the real one, `MemoryStore`
(failover/simulate/memory.py) plays in the simulator; tests/test_store_contract*.py hold both to this page.

    /failover/NAME/cluster              the operator   cluster.yaml as it was applied
    /failover/NAME/intent/vservers/V    the operator
    /failover/NAME/intent/hosts/H       the operator
    /failover/NAME/intent/cluster       the operator
    /failover/NAME/leader/epoch         the leader     its version is checked by every commit
    /failover/NAME/leader/holder        the leader     ephemeral
    /failover/NAME/assignments/V        the leader
    /failover/NAME/holds                the leader
    /failover/NAME/memory               the leader     what it remembers, and tells the agents (disarmed)
    /failover/NAME/history/N            the leader     events, bounded
    /failover/NAME/leases/H             the agent      rewritten by every renewal: its version is the proof
    /failover/NAME/alive/H              the agent      ephemeral: the session
    /failover/NAME/taken/H              the leader     its version counts the takeovers from the host
    /failover/NAME/reports/H            the agent
    /failover/NAME/pulse                the leader     rewritten now and then: it still leads

Rule 1: nobody waits here for longer than the deadline of a call. A lost connection is `connected == False`, and calls
        that need the store then raise `Unreachable`; no daemon dies of it.
Rule 2: what `view` and `told` return comes from a mirror that watches keep up to date; the mirror is read anew after
        every loss of the connection, and until that is done `fresh` is False.
Rule 3: in a new session the lease record is written first and the mirror read after it. So an agent that is `fresh` has
        seen every takeover that was committed before its lease was written, and a takeover that comes after it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from failover.grants.protocol import Footing
from failover.model import (
    Assignment,
    Cluster,
    ClusterIntent,
    Event,
    Hold,
    HostIntent,
    Lease,
    Memory,
    Report,
    Told,
    View,
    VserverIntent,
)


@dataclass(frozen=True)
class Change:
    """What one decision changes, in one transaction: all of it or nothing.

    It fails (commit returns False) when the leadership is lost, when an assignment is not at the epoch that it was
    decided on, or when a lease has another version than it says (the host has come back since).
    """

    assignments: tuple[Assignment, ...] = ()  # each replaces the one with epoch - 1; epoch 1 creates it
    leases: tuple[tuple[str, int], ...] = ()  # (host, version) that must still hold, and the host not alive
    vouched: tuple[tuple[str, int], ...] = ()  # (host, version) that must still hold: it is off, or its grants are over
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Rest:
    """What a host's lease rests on: the grants of the leader, or its session. Not `settled`: it is being written, so it
    may be either, and its right is the shorter one (failover/grants/protocol.py)."""

    granted: bool = False
    settled: bool = True


class Store(Protocol):
    """One process's connection. `changed` (given when it is built) is called from any thread, quickly and often."""

    @property
    def connected(self) -> bool: ...

    @property
    def fresh(self) -> bool:
        """Connected, and the mirror has been read in this connection (for an agent: after its lease was written)."""
        ...

    @property
    def session_s(self) -> float | None:
        """How long ZooKeeper lets a session live without a word; None before the first connection."""
        ...

    def close(self) -> None:
        """Let go. An agent's session is not ended: that would tell the leader, too early, that the host has stopped."""
        ...

    # everyone
    def view(self) -> View: ...

    def history(self, limit: int = 1000) -> tuple[Event, ...]:
        """The events, oldest first."""
        ...

    # the operator (each call is acknowledged by ZooKeeper before it returns)
    def apply(self, cluster: Cluster, text: str, version: int | None = None) -> None:
        """Over the record of this version, which was judged; None: whatever stands there. Raises Refused when another
        operator was quicker."""
        ...

    def cluster_text(self) -> str: ...

    def wish(self, vserver: str, change: Callable[[VserverIntent], VserverIntent]) -> VserverIntent:
        """Read, change and write an intent, again if another operator was quicker."""
        ...

    def wish_host(self, host: str, change: Callable[[HostIntent], HostIntent]) -> HostIntent: ...

    def wish_cluster(self, change: Callable[[ClusterIntent], ClusterIntent]) -> ClusterIntent: ...

    # the agent
    def told(self) -> Told: ...

    def renew(self, now: float) -> None:
        """Begin to write the lease record, or only to ask something while the lease rests on grants; `now` is the boot
        time at which it is sent. Does not wait."""
        ...

    def rest_on_grants(self) -> None:
        """Begin to write that the lease rests on the grants of the leader. Does not wait; renewals are not written any
        more."""
        ...

    @property
    def rest(self) -> Rest: ...

    @property
    def footing(self) -> Footing | None:
        """What this host goes by, as far as its writes are acknowledged; None while it is not fresh."""
        ...

    def claim_anew(self) -> None:
        """Begin to write the lease, resting on the session again, and to read what was told after it; `fresh` is False
        until then."""
        ...

    def pause(self) -> None:
        """Say nothing more until `resume`, pings included: the session ends by itself, if that does not come before."""
        ...

    def resume(self) -> None:
        """Connect again."""
        ...

    @property
    def renewed_at(self) -> float | None:
        """When ZooKeeper surely knew last that the present session lives, boot time (failover/touches.py); None: it is
        not known, or the lease rests on grants."""
        ...

    def report(self, report: Report) -> None:
        """Begin to write the report (a newer one replaces one that is still on its way). Does not wait."""
        ...

    # the leader
    @property
    def leader(self) -> str | None:
        """Whose process leads; None: nobody's, or the mirror has not been read."""
        ...

    @property
    def epoch(self) -> int | None:
        """Under which this process leads; None: it does not."""
        ...

    @property
    def leads_until(self) -> float | None:
        """Until when nobody else can lead, boot time: one lease after ZooKeeper is known to have heard of the leader's
        session. None: it does not lead, or nothing is known yet."""
        ...

    @property
    def proved_at(self) -> float | None:
        """The sending of the newest write of this leader that was acknowledged since its election, boot time. None: it
        does not lead, or has not written."""
        ...

    def pulse(self, now: float) -> None:
        """Begin to write that this process still leads; `now`: the boot time at which it is sent. Does not wait."""
        ...

    def look_at_lease(self, host: str) -> Lease | None:
        """Read it again, for leases are not watched; None when it has none. Waits for the answer."""
        ...

    def lead(self) -> int | None:
        """The leader epoch if this process leads; tries to become leader when nobody does. Does not wait long."""
        ...

    def step_down(self) -> None:
        """Lead no more: before long others know, and stand. What was granted must be over. Waits for the answer."""
        ...

    def hear(self) -> None:
        """Read all leases anew, which nobody watches: `view` has them then as they are after all that this process has
        written before."""
        ...

    def commit(self, change: Change) -> bool: ...

    def hold(self, holds: Sequence[Hold]) -> None:
        """Replace what the leader shows as its holds; under its leadership, like a commit."""
        ...

    def remember(self, memory: Memory) -> bool:
        """Replace what the leader remembers; under its leadership, like a commit."""
        ...
