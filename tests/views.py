"""Builders for the tables: a healthy cluster of three hosts, and what differs from it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from failover.model import (
    Assignment,
    Cluster,
    Host,
    HostIntent,
    Intents,
    Kind,
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
from failover.plan import plan
from failover.timing import PROFILES

NOW = 1000.0
CLUSTER_VERSION = 3
HOSTS = ("alpha", "beta", "gamma")
V1 = Vserver("v1", "alpha", ("beta", "gamma"), ("10.0.0.101/24",))


def cluster(*vservers: Vserver, hosts: tuple[str, ...] = HOSTS) -> Cluster:
    made = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(hosts, 1)}
    return Cluster("test", made, {vserver.name: vserver for vserver in vservers or (V1,)}, timing=PROFILES["fast"])


Expected = tuple[str, str | None, Kind] | str | None  # (owner, target, kind) | "hold: pattern" | nothing


def assert_decides(seen: View, expected: Expected) -> None:
    """Whether the leader's word about v1 is the expected one, with a reason."""
    decided = plan(seen)
    if isinstance(expected, str):
        assert not decided.changes
        assert re.match(expected.removeprefix("hold: "), decided.holds[0].because)
        assert decided.holds[0].hint or decided.again_s, "a hold says what to do, or ends by itself"
    elif expected is None:
        assert not decided.changes
    else:
        (word,) = decided.changes[0].assignments
        assert (word.owner, word.target, word.kind) == expected
        assert word.because, "every decision has a reason"
        assert word.epoch == (seen.assignments["v1"].epoch + 1 if seen.assignments else 1)


def owned(**changes: Any) -> Assignment:
    """v1, started on alpha under epoch 7."""
    return replace(Assignment("v1", "alpha", 7, because="it said so", owned_at=900.0, hosts=HOSTS), **changes)


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
    behind: tuple[str, ...] = (),
    vserver: Vserver = V1,
    vouched: tuple[str, ...] = (),
    leaving: tuple[str, ...] = (),
    drained_until: float | None = None,
    undrained: dict[str, float] | None = None,
    up_since: dict[str, float] | None = None,
    gone_since: float = NOW,
    renewed_at: float = NOW,
    reported_at: float = NOW,
    led_at: float = 0.0,
    memory: Memory | None = None,
) -> View:
    """v1 runs on alpha under epoch 7 with a fresh replica on beta and gamma, unless said otherwise.

    `says`: what a host reports of v1. `age`: seconds, per backup, when alpha last reported. `gone_since`: when the
    lost last renewed. `behind`: whose report goes by the cluster.yaml before the present one.
    """
    reports = _reports(word, says or {}, replicas or {}, age or {})
    for host in HOSTS:
        version = CLUSTER_VERSION - (host in behind)
        reports[host] = replace(reports[host], leaving=host in leaving, store_at=reported_at, cluster_version=version)
    up = up_since or {}
    hosts = _spoken_of(drained, drained_until, vouched, undrained or {})
    return View(
        cluster(vserver),
        NOW,
        leases={
            host: Lease(host, host not in lost, 40, gone_since if host in lost else renewed_at, up.get(host, 0.0))
            for host in HOSTS
        },
        reports={host: report for host, report in reports.items() if host not in unreported},
        assignments={"v1": word} if word else {},
        intents=Intents({"v1": intent} if intent else {}, hosts),
        memory=memory or Memory(),
        leader="beta",
        led_at=led_at,
        cluster_version=CLUSTER_VERSION,
    )


def _reports(
    word: Assignment | None,
    says: dict[str, VserverReport],
    replicas: dict[str, Replica | None],
    age: dict[str, float],
) -> dict[str, Report]:
    shipments = {host: Shipment(12, age.get(host, 1.0)) for host in ("beta", "gamma")}
    said = {word.owner: VserverReport(State.RUNNING, word.epoch, shipments=shipments)} if word else {}
    said.update(says)
    owner = word.owner if word else "alpha"
    held: dict[str, Replica | None] = {host: Replica(12, 7) for host in HOSTS if host != owner}
    held.update(replicas)
    return {
        host: Report(
            host,
            vservers={"v1": said[host]} if host in said else {},
            replicas={"v1": replica} if (replica := held.get(host)) else {},
            store_at=NOW,
        )
        for host in HOSTS
    }


def _spoken_of(
    drained: tuple[str, ...], until: float | None, vouched: tuple[str, ...], undrained: dict[str, float]
) -> dict[str, HostIntent]:
    """What operators have said of hosts."""
    return (
        {host: HostIntent(drained=True, until_at=until) for host in drained}
        | {host: HostIntent(vouched=40) for host in vouched}
        | {host: HostIntent(store_at=at) for host, at in undrained.items()}
    )
