"""The state at 0 s: what the store says, what runs, and which trees lie where.

Without recorded owners the cluster is new: nobody has joined yet. With them it is in the midst of its life: who is on
has a session and a lease from 0 s on, who is off had one an hour ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agents.reconcile import describe
from agents.steps import Shipped, Tree
from failover import __version__, records, wire, writes
from failover.model import (
    Assignment,
    Memory,
    Report,
    Shipment,
    State,
    Vserver,
    VserverReport,
    Want,
    frozen_map,
)
from failover.plan.board import hosts_of
from failover.simulate.clock import EPOCH
from failover.simulate.copies import Copy
from failover.simulate.host import Host
from failover.simulate.scene import Scene, Written
from failover.simulate.znodes import aged
from failover.stories.story import Initial
from failover.writes import Create, Set

GENERATION = 7  # of every tree and replica at 0 s
AGO_S = 3600.0  # who is off at 0 s was switched off so long before
UPTIME_S = 10_000.0
OWED_BYTES = 1 << 20  # what an old replica lacks


def build_tree(scene: Scene, hosts: Mapping[str, Host], vserver: Vserver) -> None:
    """A new vserver has its tree on its primary, unless it has one somewhere."""
    if any(host.body.copy(vserver.name).kind is not Tree.NONE for host in hosts.values()):
        return
    if vserver.primary in hosts:
        hosts[vserver.primary].body.copies[vserver.name] = Copy(Tree.LIVE, content=_base(scene, vserver.name))


def begin(scene: Scene, hosts: Mapping[str, Host], initial: Initial) -> None:
    is_old = bool(initial.owners or initial.running or initial.down_cleanly)
    for vserver in scene.cluster.vservers.values():
        _lay_trees(scene, hosts, vserver, initial)
    _fill_store(scene, initial, is_old=is_old)
    for name, host in hosts.items():
        if name in initial.watchdog:
            host.has_watchdog()
        if not _is_on(initial, name):
            continue
        host.begin(at_once=is_old, uptime_s=UPTIME_S)
        if is_old:
            _join(scene, host, initial)


def _is_on(initial: Initial, host: str) -> bool:
    return initial.power.get(host, True) and host not in initial.down_cleanly


def _base(scene: Scene, name: str) -> frozenset[int]:
    scene.written.append(Written(name, 1 << 30, -AGO_S))
    return frozenset((len(scene.written) - 1,))


def _lay_trees(scene: Scene, hosts: Mapping[str, Host], vserver: Vserver, initial: Initial) -> None:
    name, owner = vserver.name, initial.owners.get(vserver.name)
    running = initial.running.get(name, ())
    live = {owner, *running} if owner or running else {vserver.primary}
    ages, epoch = initial.replica_age_s.get(name, {}), 1 if owner else 0
    content = _base(scene, name)
    for host in sorted({*vserver.hosts, *live} - {None}, key=str):
        assert host is not None
        age_s = ages.get(host, 0.0)
        if host not in hosts or (age_s is None and host not in live):
            continue
        kind = Tree.LIVE if host in live else Tree.REPLICA
        hosts[host].body.copies[name] = Copy(kind, GENERATION, epoch, content)
        if kind is Tree.REPLICA and age_s:
            _age(scene, hosts, name, host, age_s, sorted(str(other) for other in live))


def _age(scene: Scene, hosts: Mapping[str, Host], name: str, old: str, age_s: float, live: list[str]) -> None:
    """Whatever was written after the old replica was complete is missing in it."""
    scene.written.append(Written(name, OWED_BYTES, -age_s))
    number = len(scene.written) - 1
    for host, simulated in hosts.items():
        copy = simulated.body.copies.get(name)
        if copy is not None and host != old and (host in live or copy.kind is Tree.REPLICA):
            copy.content |= {number}


# --- the store --------------------------------------------------------------------------------------------------------


def _fill_store(scene: Scene, initial: Initial, *, is_old: bool) -> None:
    world, vservers = scene.world, scene.cluster.vservers
    session = world.open(1.0)
    world.write(session, Set("cluster", wire.encode(wire.Applied(scene.cluster))))
    old = EPOCH - AGO_S
    for name, owner in initial.owners.items():
        if name in vservers:
            hosts = hosts_of(vservers[name], owner)
            word = Assignment(name, owner, 1, want=vservers[name].want, at=old, owned_at=old, hosts=hosts)
            word = replace(word, because="as it was before the story")
            world.write(session, Create(f"assignments/{name}", wire.encode(word)))
    written = []
    for host in scene.cluster.hosts:
        if is_old and not _is_on(initial, host):
            report = wire.encode(_last_report(scene, initial, host))
            world.write(session, Create(f"leases/{host}", wire.encode(wire.LeaseRecord())))
            world.write(session, Create(f"reports/{host}", report))
            written += [f"leases/{host}", f"reports/{host}"]
    world.nodes = aged(world.nodes, -AGO_S, written)
    dead = sorted({initial.owners[name] for name in initial.recovering if name in initial.owners})
    if dead:
        lost_at = EPOCH - AGO_S + scene.timing.session_s  # a leader saw it at once
        memory = Memory(losses=frozen_map(dict.fromkeys(dead, (lost_at,))))
        world.write(session, Set("memory", wire.encode(memory)))
    world.end(session)


def _last_report(scene: Scene, initial: Initial, host: str) -> Report:
    """What a host that is off had to say when it was last heard of."""
    clean = host in initial.down_cleanly  # it has shipped all that it had, unless the story says how old a replica is
    said = {}
    for name, owner in initial.owners.items():
        vserver = scene.cluster.vservers.get(name)
        if owner != host or vserver is None:
            continue
        ran = vserver.want is Want.STARTED and not clean
        ages = initial.replica_age_s.get(name, {})
        shipments = {
            backup: Shipment(
                GENERATION,
                max(0.0, (ages.get(backup) or 0.0) - scene.timing.lease_s),
                final=clean and not ages.get(backup),
            )
            for backup in vserver.hosts
            if backup != host and ages.get(backup, 0.0) is not None
        }
        said[name] = VserverReport(
            State.RUNNING if ran else State.STOPPED, 1, EPOCH - 2 * AGO_S, shipments=frozen_map(shipments)
        )
    return Report(host, vservers=frozen_map(said), leaving=clean, at=EPOCH - AGO_S)


def _join(scene: Scene, host: Host, initial: Initial) -> None:
    """It has renewed its lease at 0 s, and what it owns is held by its guard."""
    world, body = scene.world, host.body
    session = world.open(scene.timing.session_s)
    world.write(session, *writes.claim(host.name, session, None, None))
    host.session = session
    owned = [name for name, owner in initial.owners.items() if owner == host.name]
    body.guard.begin()
    body.guard.obey(host.clock.now() + scene.timing.lease_s, owned, ())
    for name, where in initial.running.items():
        if host.name in where:
            body.run(name, 1 if name in owned else 0, by_hand=name not in owned)
    for name in owned:
        host.shipped[name] = _shipped(scene, host, initial, name)
    told = records.told(world.nodes, host.name)
    report = describe(told, host.observe(told), host.clock.now(), version=__version__)
    world.write(session, Create(f"reports/{host.name}", wire.encode(replace(report, at=host.clock.wall()))))
    world.cut(session, wrote=True)  # until the agent goes on with it


def _shipped(scene: Scene, host: Host, initial: Initial, name: str) -> dict[str, Shipped]:
    vserver, ages = scene.cluster.vservers.get(name), initial.replica_age_s.get(name, {})
    now, found = host.clock.now(), {}
    for backup in vserver.hosts if vserver else ():
        age_s = ages.get(backup, 0.0)
        if backup != host.name and age_s is not None:
            found[backup] = Shipped(GENERATION, 1, now - age_s, tried_at=now - age_s)
    return found
