"""The znodes below /failover/NAME, and the View or Told that they amount to.

A path is relative to /failover/NAME: "assignments/web1". Records are decoded when they are asked for, each text once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

from failover import wire
from failover.errors import NotApplied
from failover.model import (
    Assignment,
    Cluster,
    ClusterIntent,
    HostIntent,
    Intents,
    Lease,
    Memory,
    Report,
    Told,
    View,
    VserverIntent,
    frozen_map,
)

Role = Literal["operator", "agent", "leader"]

LAYOUT = (
    "cluster", "intent", "intent/vservers", "intent/hosts", "leader", "leader/epoch", "assignments", "holds", "history",
    "leases", "alive", "reports", "intent/cluster", "memory", "taken", "pulse",
)  # fmt: skip
"""What exists before anybody has said a word. A record that is empty has not been written yet."""

_EVERYTHING = ("intent/vservers", "intent/hosts", "leader", "assignments", "leases", "alive", "taken", "reports")
DIRECTORIES: Mapping[Role, tuple[str, ...]] = {
    "operator": _EVERYTHING,
    "leader": _EVERYTHING,
    "agent": ("assignments", "leader"),
}
FILES: Mapping[Role, tuple[str, ...]] = {
    "operator": ("cluster", "holds", "memory", "intent/cluster"),
    "leader": ("cluster", "holds", "memory", "intent/cluster"),
    "agent": ("cluster", "memory"),
}

HISTORY_MAX = 1000

_R = TypeVar("_R")


class Node(NamedTuple):
    """One znode as it was read. `at`: when it was written, on the store's clock; `zxid`: the transaction that did."""

    data: bytes
    version: int
    at: float
    zxid: int = 0
    session: int = 0  # whose it is, when it is ephemeral


def view(nodes: Mapping[str, Node], now: float) -> View:
    """Raises Refused while no cluster.yaml has been applied, or when a record cannot be understood."""
    holds, holder = nodes.get("holds"), nodes.get("leader/holder")
    reports = _records(nodes, "reports", Report)
    hosts = _records(nodes, "intent/hosts", HostIntent)
    return View(
        cluster=cluster(nodes),
        now=now,
        leases=frozen_map(
            {
                host: lease(host, nodes[f"leases/{host}"], nodes.get(f"alive/{host}"), nodes.get(f"taken/{host}"))
                for host in _names(nodes, "leases")
            }
        ),
        reports=frozen_map(
            {host: replace(report, store_at=nodes[f"reports/{host}"].at) for host, report in reports.items()}
        ),
        assignments=frozen_map(_records(nodes, "assignments", Assignment)),
        intents=Intents(
            vservers=frozen_map(_records(nodes, "intent/vservers", VserverIntent)),
            hosts=frozen_map(
                {host: replace(intent, store_at=nodes[f"intent/hosts/{host}"].at) for host, intent in hosts.items()}
            ),
            cluster=_single(nodes, "intent/cluster", ClusterIntent),
        ),
        holds=_decoded(wire.Holds, holds.data, "holds").holds if holds and holds.data else (),
        memory=_single(nodes, "memory", Memory),
        leader=leader(nodes),
        led_at=holder.at if holder else 0.0,
        cluster_version=nodes["cluster"].version,
    )


def lease(host: str, node: Node, alive: Node | None, taken: Node | None) -> Lease:
    record = _decoded(wire.LeaseRecord, node.data, f"leases/{host}")
    since_at, takeovers = alive.at if alive else 0.0, taken.version if taken else 0
    return Lease(host, alive is not None, node.version, node.at, since_at, record.granted, takeovers)


def told(nodes: Mapping[str, Node], host: str) -> Told:
    """Raises Refused like `view`."""
    words = frozen_map(_records(nodes, "assignments", Assignment))
    disarmed = _single(nodes, "memory", Memory).disarmed
    return Told(host, cluster(nodes), words, disarmed, nodes["cluster"].version, leader(nodes))


def leader(nodes: Mapping[str, Node]) -> str | None:
    holder = nodes.get("leader/holder")
    return _decoded(wire.Holder, holder.data, "leader/holder").name if holder else None


def newest(nodes: Mapping[str, Node]) -> float:
    return max((node.at for node in nodes.values()), default=0.0)


def clock(nodes: Mapping[str, Node], wall: float, session_s: float) -> float:
    """The store's clock for somebody who writes nothing: his own, held to what he reads. Nothing was written in the
    future, and while a host is alive its lease was renewed within a session."""
    is_alive = bool(_names(nodes, "alive"))
    latest = newest(nodes) + session_s if is_alive else math.inf
    return min(max(wall, newest(nodes)), latest)


def cluster(nodes: Mapping[str, Node]) -> Cluster:
    return applied(nodes).cluster


def applied(nodes: Mapping[str, Node]) -> wire.Applied:
    record = nodes.get("cluster")
    if record is None or not record.data:
        raise NotApplied("no cluster.yaml has been applied yet", hint="failover apply cluster.yaml")
    return _decoded(wire.Applied, record.data, "cluster")


def _single(nodes: Mapping[str, Node], path: str, kind: type[_R]) -> _R:
    """A record of which there is one; as it is by default while nobody has written it."""
    record = nodes.get(path)
    return _decoded(kind, record.data, path) if record and record.data else kind()


def _names(nodes: Mapping[str, Node], directory: str) -> tuple[str, ...]:
    start = directory + "/"
    return tuple(sorted(path.removeprefix(start) for path in nodes if path.startswith(start)))


def _records(nodes: Mapping[str, Node], directory: str, kind: type[_R]) -> dict[str, _R]:
    found = ((name, nodes[f"{directory}/{name}"].data) for name in _names(nodes, directory))
    return {name: _decoded(kind, data, f"{directory}/{name}") for name, data in found if data}


@lru_cache(maxsize=16_384)
def _decoded_once(kind: Any, data: bytes, where: str) -> Any:
    return wire.decode(kind, data, where=where)


def _decoded(kind: type[_R], data: bytes, where: str) -> _R:
    record: _R = _decoded_once(cast(Hashable, kind), data, where)
    return record
