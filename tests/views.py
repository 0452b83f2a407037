"""Builders for the tables: a healthy cluster of three hosts, and what differs from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from failover.model import (
    Assignment,
    Cluster,
    Host,
    HostIntent,
    Intents,
    Lease,
    Memory,
    Replica,
    Report,
    Shipment,
    State,
    View,
    Vserver,
    VserverIntent,
    VserverReport,
)

NOW = 1000.0
HOSTS = ("alpha", "beta", "gamma")
V1 = Vserver("v1", "alpha", ("beta", "gamma"), ("10.0.0.101/24",))


def cluster(*vservers: Vserver, hosts: tuple[str, ...] = HOSTS) -> Cluster:
    made = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(hosts, 1)}
    return Cluster("test", made, {vserver.name: vserver for vserver in vservers or (V1,)}, timing="fast")


def owned(**changes: Any) -> Assignment:
    """v1, started on alpha under epoch 7."""
    return replace(Assignment("v1", "alpha", 7, because="it said so", owned_at=900.0), **changes)


def view(
    *,
    word: Assignment | None = None,
    lost: tuple[str, ...] = (),
    drained: tuple[str, ...] = (),
    intent: VserverIntent | None = None,
    says: dict[str, VserverReport] | None = None,
    replicas: dict[str, Replica | None] | None = None,
    age: dict[str, float] | None = None,
    unreported: tuple[str, ...] = (),
    vserver: Vserver = V1,
    vouched: tuple[str, ...] = (),
    leaving: tuple[str, ...] = (),
    drained_until: float | None = None,
    undrained: dict[str, float] | None = None,
    up_since: dict[str, float] | None = None,
    gone_since: float = NOW,
    led_at: float = 0.0,
    memory: Memory | None = None,
) -> View:
    """v1 runs on alpha under epoch 7 with a fresh replica on beta and gamma, unless said otherwise.

    `says`: what a host reports of v1. `age`: seconds, per backup, when alpha last reported. `gone_since`: when the
    lost last renewed.
    """
    shipments = {host: Shipment(12, (age or {}).get(host, 1.0)) for host in ("beta", "gamma")}
    owner = word.owner if word else "alpha"
    epoch = word.epoch if word else 0
    said: dict[str, VserverReport] = {owner: VserverReport(State.RUNNING, epoch, shipments=shipments)}
    if word is None:
        said = {}
    said.update(says or {})
    held: dict[str, Replica | None] = {host: Replica(12, 7) for host in HOSTS if host != owner}
    held.update(replicas or {})
    reports = {
        host: Report(
            host,
            vservers={"v1": said[host]} if host in said else {},
            replicas={"v1": replica} if (replica := held.get(host)) else {},
            leaving=host in leaving,
            store_at=NOW,
        )
        for host in HOSTS
        if host not in unreported
    }
    up = up_since or {}
    hosts = {host: HostIntent(drained=True, until_at=drained_until) for host in drained}
    hosts |= {host: HostIntent(vouched=40) for host in vouched}
    hosts |= {host: HostIntent(store_at=at) for host, at in (undrained or {}).items()}
    return View(
        cluster(vserver),
        NOW,
        leases={
            host: Lease(host, host not in lost, 40, gone_since if host in lost else NOW, up.get(host, 0.0))
            for host in HOSTS
        },
        reports=reports,
        assignments={"v1": word} if word else {},
        intents=Intents({"v1": intent} if intent else {}, hosts),
        memory=memory or Memory(),
        leader="beta",
        led_at=led_at,
    )
