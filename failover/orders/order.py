"""What a command comes to, and what several commands ask of a View."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from failover.errors import BadInput, Refused
from failover.model import (
    Assignment,
    ClusterIntent,
    HostIntent,
    MoveWish,
    View,
    Vserver,
    VserverIntent,
    Want,
    frozen_map,
)
from failover.plan import intent_of, wanted

_I = TypeVar("_I", VserverIntent, HostIntent, ClusterIntent)


@dataclass(frozen=True)
class Awaited:
    """The answer to an order: a word of the leader about this vserver for which `reached` holds."""

    vserver: str
    epoch: int  # when the order was given
    reached: Callable[[Assignment], bool]


@dataclass(frozen=True)
class Order:
    """What a command comes to: the wishes to write, what to say at once, and what to wait for."""

    vservers: Mapping[str, Callable[[VserverIntent], VserverIntent]] = field(default_factory=frozen_map)
    hosts: Mapping[str, Callable[[HostIntent], HostIntent]] = field(default_factory=frozen_map)
    cluster: Callable[[ClusterIntent], ClusterIntent] | None = None
    notice: str = ""
    awaited: tuple[Awaited, ...] = ()


def signed(order: Order, by: str, at: float) -> Order:
    """The same order, each wish with who said it and when (seconds since 1970)."""

    def sign(change: Callable[[_I], _I]) -> Callable[[_I], _I]:
        return lambda intent: replace(change(intent), by=by, at=at)

    return replace(
        order,
        vservers=frozen_map({name: sign(change) for name, change in order.vservers.items()}),
        hosts=frozen_map({name: sign(change) for name, change in order.hosts.items()}),
        cluster=sign(order.cluster) if order.cluster else None,
    )


# --- what several commands ask ----------------------------------------------------------------------------------------


def vserver_of(view: View, name: str) -> Vserver:
    if name not in view.cluster.vservers:
        raise BadInput(f"there is no vserver {name}", hint=_nearest(name, view.cluster.vservers))
    if intent_of(view, name).removed:
        raise BadInput(f"{name} was removed", hint="failover apply brings it back")
    return view.cluster.vservers[name]


def host_of(view: View, name: str) -> str:
    if name not in view.cluster.hosts:
        raise BadInput(f"there is no host {name}", hint=_nearest(name, view.cluster.hosts))
    return name


def must_be_obeyed(view: View) -> None:
    """What shall be done must not wait in secret: neither for somebody who leads, nor for `arm`."""
    disarmed = view.intents.cluster
    if disarmed.disarmed:
        why = f" ({disarmed.reason})" if disarmed.reason else ""
        raise Refused(f"the cluster is disarmed{why}", hint="failover arm")
    if view.leader is None:
        raise Refused(
            "no host leads the cluster now, so nobody would obey", hint="is failover-leader running anywhere?"
        )


def must_be_at_rest(view: View, now: Assignment) -> None:
    if now.target is not None:
        raise Refused(f"{now.vserver} is being moved to {now.target} right now")
    if now.again or intent_of(view, now.vserver).restart_epoch == now.epoch:
        raise Refused(f"{now.vserver} is being restarted right now")


def taken(view: View, order: Order) -> Order:
    """State is taken at any time; when nobody acts on it now, that is said and not awaited."""
    if view.intents.cluster.disarmed:
        waits = "the cluster is disarmed: nothing follows until failover arm"
    elif view.leader is None:
        waits = "nobody leads the cluster now: nothing follows until a host does"
    else:
        return order
    return replace(order, notice=f"{order.notice}; {waits}" if order.notice else waits, awaited=())


def word_of(view: View, vserver: Vserver) -> Assignment:
    name = vserver.name
    if wanted(view, vserver) is Want.IGNORED:
        raise Refused(f"{name} is ignored: it is left alone", hint=f"failover start {name}")
    if name not in view.assignments:
        hold = next((hold for hold in view.holds if hold.subject == name), None)
        raise Refused(
            f"{name} has no owner yet" + (f": {hold.because}" if hold else ""), hint=hold.hint if hold else ""
        )
    return view.assignments[name]


def owned_by(view: View, host: str) -> list[Assignment]:
    """What is managed of what it owns."""
    vservers = view.cluster.vservers
    words = (word for word in view.assignments.values() if word.owner == host and word.vserver in vservers)
    return [word for word in words if wanted(view, vservers[word.vserver]) is not Want.IGNORED]


def pending(view: View, now: Assignment) -> MoveWish | None:
    """A move that an operator wishes and the leader has not answered yet."""
    wish = intent_of(view, now.vserver).move
    return wish if wish is not None and wish.epoch == now.epoch else None


def moving(wish: MoveWish | None) -> Callable[[VserverIntent], VserverIntent]:
    return lambda intent: replace(intent, move=wish)


def _nearest(word: str, known: Iterable[str]) -> str:
    names = {name.casefold(): name for name in sorted(known)}
    close = difflib.get_close_matches(word.casefold(), names, n=1)
    return f"did you mean {names[close[0]]}?" if close else f"known here: {', '.join(names.values())}"


def counted(count: int, noun: str) -> str:
    """1 host, 3 hosts, no host."""
    return f"{count or 'no'} {noun}{'s' if count > 1 else ''}"
