"""An operator's commands on a healthy cluster and on what differs from it, and what is expected of an order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from failover import orders
from failover.errors import FailoverError
from failover.model import (
    Assignment,
    Capacity,
    ClusterIntent,
    HostIntent,
    MoveWish,
    Needs,
    State,
    View,
    Vserver,
    VserverIntent,
    VserverReport,
)
from failover.orders import Order
from tests.views import NOW, owned, view

Intent = VserverIntent | HostIntent | ClusterIntent

DB1 = Vserver("db1", "alpha", ("beta", "gamma"))
HEALTHY = view(word=owned())
ERROR = VserverReport(State.ERROR, 7, because="no init")
STOPPED = VserverReport(State.STOPPED, 7)


@dataclass(frozen=True)
class Does:
    """The order is taken: what each intent is then (the cluster's has no name), what is said, who is awaited."""

    intents: dict[str, Intent]
    says: str = ""
    awaits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Says:
    """Nothing is to be changed."""

    text: str
    awaits: tuple[str, ...] = ()


@dataclass(frozen=True)
class No:
    kind: type[FailoverError]
    text: str
    hint: str = ""


def wishing(**changes: object) -> View:
    """v1 runs well on alpha, and an operator has wished this before."""
    return view(word=owned(), intent=VserverIntent(**changes))  # type: ignore[arg-type]


def hosts(seen: View, **intents: HostIntent) -> View:
    return replace(seen, intents=replace(seen.intents, hosts=intents))


def disarmed(seen: View, reason: str = "") -> View:
    return replace(seen, intents=replace(seen.intents, cluster=ClusterIntent(disarmed=True, reason=reason)))


def leaderless(seen: View) -> View:
    return replace(seen, leader=None)


def silent(seen: View, host: str, for_s: float) -> View:
    """The host has not renewed its lease for so long."""
    return replace(seen, leases={**seen.leases, host: replace(seen.leases[host], store_at=NOW - for_s)})


def beside(seen: View, *others: Vserver, **words: str) -> View:
    """Other vservers are declared; `words` are their owners, under epoch 3."""
    cluster = replace(seen.cluster, vservers={**seen.cluster.vservers, **{other.name: other for other in others}})
    more = {name: Assignment(name, owner, 3) for name, owner in words.items()}
    return replace(seen, cluster=cluster, assignments={**seen.assignments, **more})


def small(seen: View, host: str, memory_bytes: int, needs: Needs) -> View:
    """The host has only so much memory, and v1 needs some."""
    hosts = {**seen.cluster.hosts, host: replace(seen.cluster.hosts[host], capacity=Capacity(memory_bytes))}
    vservers = {**seen.cluster.vservers, "v1": replace(seen.cluster.vservers["v1"], needs=needs)}
    return replace(seen, cluster=replace(seen.cluster, hosts=hosts, vservers=vservers))


def given(view: View, order: Order) -> View:
    """The same cluster once the order's wishes are written."""
    was = view.intents
    vservers = {name: change(was.vservers.get(name, VserverIntent())) for name, change in order.vservers.items()}
    hosts = {name: change(was.hosts.get(name, HostIntent())) for name, change in order.hosts.items()}
    return replace(
        view,
        intents=replace(
            was,
            vservers={**was.vservers, **vservers},
            hosts={**was.hosts, **hosts},
            cluster=order.cluster(was.cluster) if order.cluster else was.cluster,
        ),
    )


def wishes(seen: View, order: Order) -> dict[str, Intent]:
    after = given(seen, order).intents
    found: dict[str, Intent] = {name: after.vservers[name] for name in order.vservers}
    found |= {name: after.hosts[name] for name in order.hosts}
    return found | ({"": after.cluster} if order.cluster else {})


Command = Callable[[View], Order]


def do(command: Callable[..., Order], *words: str, **options: object) -> Command:
    return lambda seen: command(seen, *words, **options)


MOVE = do(orders.move, "v1", "beta")
TAKEOVER = do(orders.takeover, "alpha")
START = do(orders.start, "v1")
ACCEPT = do(orders.start, "v1", on="beta", accept_loss=True)
STOP = do(orders.stop, "v1")
RESTART = do(orders.restart, "v1")
FAILBACK = do(orders.failback, "v1")
IGNORE = do(orders.ignore, "v1")
REMOVE = do(orders.remove, "v1")
CLEAR = do(orders.clear, "v1")
DRAIN = do(orders.drain, "alpha")
UNDRAIN = do(orders.undrain, "alpha")
FENCE = do(orders.fence, "alpha")
OFF = do(orders.takeover, "alpha", confirmed_off=True)

MOVING = VserverIntent(move=MoveWish("beta", 7))
AWAY = VserverIntent(move=MoveWish(None, 7))
V2 = Vserver("v2", "alpha", ("beta",))

Rows = dict[str, tuple[View, Command, Does | Says | No]]


def check(row: tuple[View, Command, Does | Says | No]) -> None:
    seen, command, expected = row
    if isinstance(expected, No):
        with pytest.raises(expected.kind, match=expected.text) as refused:
            command(seen)
        assert expected.hint in refused.value.hint
        return
    order = command(seen)
    assert tuple(wish.vserver for wish in order.awaited) == expected.awaits
    if isinstance(expected, Says):
        assert order.notice == expected.text
        assert not wishes(seen, order)
    else:
        assert wishes(seen, order) == expected.intents
        assert re.fullmatch(expected.says, order.notice)
