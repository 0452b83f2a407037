"""The operator's commands as functions of what is seen: move(view, "v1", "beta") -> Order. Pure.

    failover move v1 beta ──▶ a View ──▶ an Order ──▶ wishes in the store ──▶ the leader's next word is awaited

Rule 1: a command that cannot be obeyed is refused with the reason; it never lingers as a hidden wish.
Rule 2: a command that changes nothing writes nothing: it is answered with a notice.
Rule 3: what shall be done once (move, restart) names the epoch that it was said under; what shall be so from now on
        (want, drained, disarmed) is state. Drains, what is ignored or forgiven, and the like are taken at any time;
        what shall be done needs a leader that obeys.
"""

from failover.orders.cluster import arm, disarm, refuse_losses, restore
from failover.orders.hosts import cut, drain, fence, takeover, undrain
from failover.orders.order import Awaited, Order, counted, host_of, signed, vserver_of
from failover.orders.vservers import clear, failback, ignore, move, remove, restart, start, stop

__all__ = [
    "Awaited", "Order", "arm", "clear", "counted", "cut", "disarm", "drain", "failback", "fence", "host_of", "ignore",
    "move", "refuse_losses", "remove", "restart", "restore", "signed", "start", "stop", "takeover", "undrain",
    "vserver_of",
]  # fmt: skip
