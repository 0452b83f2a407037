"""The operator's commands in a story: the orders of failover/orders, given in the simulated store.

Rule: commands are taken one at a time. One that is refused is counted; one that changes nothing is answered and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from failover import orders
from failover.errors import FailoverError, Unreachable
from failover.model import Cluster, View
from failover.orders import Order
from failover.simulate.clock import EPOCH
from failover.simulate.memory import MemoryStore
from failover.simulate.scene import Scene
from failover.stories.events import Event

OPERATOR = "the operator of the story"

ORDERS: Mapping[str, Callable[[View, Event], Order]] = {
    "move": lambda view, event: orders.move(view, event.vserver, event.host),
    "failback": lambda view, event: orders.failback(view, event.vserver),
    "start": lambda view, event: orders.start(
        view, event.vserver, on=event.host or None, accept_loss="--accept-loss" in event.options
    ),
    "stop": lambda view, event: orders.stop(view, event.vserver),
    "restart": lambda view, event: orders.restart(view, event.vserver),
    "ignore": lambda view, event: orders.ignore(view, event.vserver),
    "remove": lambda view, event: orders.remove(view, event.vserver),
    "clear": lambda view, event: orders.clear(view, event.vserver),
    "takeover": lambda view, event: orders.takeover(view, event.host, confirmed_off="--confirmed-off" in event.options),
    "fence": lambda view, event: _fence(view, event),
    "drain": lambda view, event: orders.drain(
        view, event.host, until_at=view.now + event.length_s if "--until" in event.options else None
    ),
    "undrain": lambda view, event: orders.undrain(view, event.host),
    "disarm": lambda view, event: orders.disarm(view),
    "arm": lambda view, event: orders.arm(view),
}


def _fence(view: View, event: Event) -> Order:
    if "--confirmed" in event.options:
        return orders.fence(view, event.host)
    return orders.cut(view, event.host, though_alive="--though-alive" in event.options)


def obey(scene: Scene, event: Event) -> bool:
    """Whether it was taken. What is applied becomes the scene's cluster."""
    scene.say(f"operator: {event.text}")
    try:
        notice = _obey(scene, event)
    except FailoverError as error:
        hint = f" ({error.hint})" if error.hint else ""
        scene.say(f"refused: {error.message}{hint}")
        return False
    if notice:
        scene.say(f"answered: {notice}")
    return True


def _obey(scene: Scene, event: Event) -> str:
    if scene.world.down:
        raise Unreachable("no connection to the store")
    store = MemoryStore(scene.world, role="operator", timing=scene.timing)
    try:
        if event.cluster is not None:
            return _apply(scene, store, event.cluster)
        return _give(scene, store, ORDERS[event.word](store.view(), event))
    finally:
        store.close()


def _apply(scene: Scene, store: MemoryStore, cluster: Cluster) -> str:
    view = store.view()
    orders.refuse_losses(view, cluster)
    store.apply(cluster, "", view.cluster_version)
    scene.cluster = cluster
    return _give(scene, store, orders.restore(view, cluster))


def _give(scene: Scene, store: MemoryStore, order: Order) -> str:
    mine = orders.signed(order, OPERATOR, EPOCH + scene.now)
    for host, host_change in mine.hosts.items():
        store.wish_host(host, host_change)
    for vserver, vserver_change in mine.vservers.items():
        store.wish(vserver, vserver_change)
    if mine.cluster is not None:
        store.wish_cluster(mine.cluster)
    return mine.notice
