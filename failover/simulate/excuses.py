"""Why something that is wanted started may run nowhere although all is well: from what really is so in the story, and
not from what the leader says. A hold that has none of these reasons is a breach of invariant 11.

    the cluster is disarmed · it failed itself in this story · what it starts after does not run · no host could run it

Rule: a host could run it if it may, has a copy of it that loses nothing, is not drained, has room, and no rule speaks
against it. Who is asked is every host: this is for a cluster in which all are up.
"""

from __future__ import annotations

from collections.abc import Mapping

from agents.steps import Tree
from failover.model import Assignment, ClusterIntent, HostIntent, Vserver
from failover.simulate.clock import EPOCH
from failover.simulate.host import Host
from failover.simulate.record import decoded
from failover.simulate.scene import Scene


def excuse(scene: Scene, hosts: Mapping[str, Host], name: str, word: Assignment | None) -> str:
    """Why it may run nowhere; empty when it must run."""
    vserver, nodes = scene.cluster.vservers[name], scene.world.nodes
    if (decoded(ClusterIntent, nodes, "intent/cluster") or ClusterIntent()).disarmed:
        return "the cluster is disarmed"
    if name in scene.ailing:
        return scene.ailing[name]
    missing = [other for other in vserver.start_after if not _where(hosts, other)]
    if missing:
        return f"{missing[0]} does not run"
    could = [host for host in vserver.hosts if _could(scene, hosts, vserver, word, host)]
    return "" if could else "no host could run it"


def _where(hosts: Mapping[str, Host], name: str) -> list[str]:
    return [host for host, one in hosts.items() if one.body.runs(name)]


def _could(scene: Scene, hosts: Mapping[str, Host], vserver: Vserver, word: Assignment | None, host: str) -> bool:
    if host not in scene.cluster.hosts or host not in hosts or not _has_it(scene, hosts, vserver.name, word, host):
        return False
    intent = decoded(HostIntent, scene.world.nodes, f"intent/hosts/{host}") or HostIntent()
    if intent.drained and (intent.until_at is None or intent.until_at > EPOCH + scene.now):
        return False
    return _has_room(scene, hosts, vserver, host) and _is_allowed(scene, hosts, vserver, host)


def _has_it(scene: Scene, hosts: Mapping[str, Host], name: str, word: Assignment | None, host: str) -> bool:
    """The owner's own tree; what the owner can still ship from; or, if that is gone, all that it had."""
    copy = hosts[host].body.copy(name)
    if word is None or host == word.owner:
        return copy.kind is Tree.LIVE
    if not copy.complete or copy.diverged:
        return False
    owner = hosts[word.owner].body.copy(name) if word.owner in hosts else None
    if word.owner in scene.cluster.hosts and owner is not None and owner.kind is Tree.LIVE:
        return True
    return owner is not None and owner.content <= copy.content


def _has_room(scene: Scene, hosts: Mapping[str, Host], vserver: Vserver, host: str) -> bool:
    capacity, vservers = scene.cluster.hosts[host].capacity, scene.cluster.vservers
    there = [other.needs for name, other in vservers.items() if name != vserver.name and hosts[host].body.runs(name)]
    memory_bytes = vserver.needs.memory_bytes + sum(needs.memory_bytes for needs in there)
    cpus = vserver.needs.cpus + sum(needs.cpus for needs in there)
    if capacity.memory_bytes is not None and memory_bytes > capacity.memory_bytes:
        return False
    return capacity.cpus is None or cpus <= capacity.cpus


def _is_allowed(scene: Scene, hosts: Mapping[str, Host], vserver: Vserver, host: str) -> bool:
    for name, other in scene.cluster.vservers.items():
        where = _where(hosts, name)
        apart = name in vserver.apart_from or vserver.name in other.apart_from
        together = name in vserver.together_with or vserver.name in other.together_with
        if (apart and host in where) or (together and where and host not in where):
            return False
    return True
