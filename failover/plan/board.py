"""What one planning looks at: the view, the words so far (its own included), and what follows from them for a host.

Rule 1: a decision made now counts for the next one: what was just given to a host takes room there.
Rule 2: who waits for a moment says so (`later`), so that the leader looks again then.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from failover.model import (
    Assignment,
    Cluster,
    Cut,
    Host,
    Lease,
    Memory,
    Report,
    Shutdown,
    State,
    View,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.timing import Timing

FLAPS = 3  # a host lost so often ...
FLAPS_WITHIN_S = 600.0  # ... in this time is chosen last, and nothing moves there by itself
BOOT_S = 60.0  # a whole cluster that is switched on again may take so long until each host is there
MISSED = 2  # renewals that a host must have missed before an operator's word counts that it is off
RUNS_WELL_S = 60.0  # what has run so long elsewhere may come back to a host on which it failed


@dataclass
class _Load:
    memory_bytes: int = 0
    cpus: float = 0.0


class Board:
    """`words` grows with the decisions. Everything else is as the view has it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.now = view.now
        self.words: dict[str, Assignment] = dict(view.assignments)
        self.again_at = math.inf
        self.silent = silent(view)
        self.mates = _groups(view.cluster)
        self.apart = _both_ways(view.cluster, "apart_from")
        self.put_off: set[str] = set()  # their start has a host, and waits for a moment
        self.unproved: defaultdict[str, set[str]] = defaultdict(set)  # per vserver: hosts on which it may still run
        self.moving_along: frozenset[str] = frozenset()  # they come along with the one that is being judged
        self._load: defaultdict[str, _Load] = defaultdict(_Load)
        self._owned: defaultdict[str, list[str]] = defaultdict(list)  # as the view has it
        for word in self.words.values():
            self._weigh(word, 1)
            self._owned[word.owner].append(word.vserver)

    def put(self, word: Assignment) -> None:
        if word.vserver in self.words:
            self._weigh(self.words[word.vserver], -1)
        self.words[word.vserver] = word
        self._weigh(word, 1)

    def owned_by(self, host: str) -> list[str]:
        return self._owned.get(host, [])

    def having_lost(self, hosts: tuple[str, ...]) -> Board:
        """A copy, on which these hosts have just been lost."""
        other = Board.__new__(Board)
        other.__dict__.update(self.__dict__)
        gone = {host: replace(self.view.leases[host], alive=False) for host in hosts}
        other.view = replace(self.view, leases={**self.view.leases, **gone})
        other.words = dict(self.words)
        other._load = defaultdict(_Load, {host: replace(load) for host, load in self._load.items()})
        return other

    def without(self, name: str) -> Board:
        """A copy, on which nobody owns this vserver."""
        other = self.having_lost(())
        if name in other.words:
            other._weigh(other.words.pop(name), -1)
        return other

    def later(self, at: float) -> None:
        """Something is to be decided at this moment of the store's clock."""
        if at > self.now:
            self.again_at = min(self.again_at, at)

    def _weigh(self, word: Assignment, sign: int) -> None:
        vserver = self.view.cluster.vservers.get(word.vserver)
        if vserver is None or word.want is Want.IGNORED:
            return
        for host in {word.owner, word.target} - {None}:
            load = self._load[host or ""]
            load.memory_bytes += sign * vserver.needs.memory_bytes
            load.cpus += sign * vserver.needs.cpus

    # --- hosts --------------------------------------------------------------------------------------------------------

    def free_memory(self, host: str) -> float:
        total = self._capacity(host, "memory_bytes")
        return math.inf if total is None else total - self._load[host].memory_bytes

    def free_cpus(self, host: str) -> float:
        total = self._capacity(host, "cpus")
        return math.inf if total is None else total - self._load[host].cpus

    def _capacity(self, host: str, what: str) -> float | None:
        """As declared, else as measured, else unknown."""
        declared: Host | None = self.view.cluster.hosts.get(host)
        found: float | None = getattr(declared.capacity, what) if declared else None
        if found is None and host in self.view.reports:
            found = getattr(self.view.reports[host].capacity, what)
        return found

    def drained(self, host: str) -> bool:
        intent = self.view.intents.hosts.get(host)
        if intent is not None and intent.drained and intent.until_at is not None:
            self.later(intent.until_at)
        return is_drained(self.view, host)

    def free_since(self, host: str) -> float:
        """Since when it is up and not drained, on the store's clock; in the future when it is not."""
        lease, intent = self.view.leases.get(host), self.view.intents.hosts.get(host)
        if lease is None or not alive(self.view, host) or self.drained(host):
            return math.inf
        ended = min(intent.until_at or math.inf, intent.store_at) if intent and not intent.drained else 0.0
        if intent and intent.drained and intent.until_at is not None:
            ended = intent.until_at
        return max(lease.since_at, ended)

    def leaving(self, host: str) -> bool:
        report = self.view.reports.get(host)
        return report is not None and report.leaving

    def flapping(self, host: str) -> bool:
        """It was lost again and again, and has not been up for long since."""
        losses = self.view.memory.losses.get(host, ())
        if len(losses) < FLAPS or losses[-1] - losses[-FLAPS] > FLAPS_WITHIN_S:
            return False
        lease = self.view.leases.get(host)
        calm_at = (lease.since_at if lease and lease.alive else self.now) + FLAPS_WITHIN_S
        self.later(calm_at)
        return self.now < calm_at

    def booting_until(self, host: str) -> float:
        """A host that was gone long before anybody led may only be slow to boot: until then it is waited for."""
        lease = self.view.leases.get(host)
        if lease is None:
            return self.view.led_at + BOOT_S
        long_s = BOOT_S + terms(self.view, host).session_s
        long_gone = not lease.alive and self.lost_at(host) - lease.store_at > long_s
        return self.view.led_at + BOOT_S if long_gone else -math.inf

    def heard_at(self, host: str) -> float:
        """When it last wrote something that we know of, on the store's clock."""
        lease, report = self.view.leases.get(host), self.view.reports.get(host)
        return max(lease.store_at if lease else -math.inf, report.store_at if report else -math.inf)

    def falling_with(self, owner: str, host: str) -> bool:
        """The owner's session has just ended (or its power was cut), and this host has not been heard of since either:
        its session may be the next to end. Until that is known nothing is given to it. Hosts that die together are so
        lost in no order."""
        timing = terms(self.view, host)
        gone_at, heard_at = self.heard_at(owner), self.heard_at(host)
        known_at = heard_at + timing.session_s + 2 * timing.tick_s  # who is alive then has been heard of
        early = self.now < gone_at + terms(self.view, owner).session_s and not fenced(self.view, owner)
        if early or heard_at >= gone_at + MISSED * timing.renew_s:
            return False
        self.later(known_at)
        return self.now < known_at

    def lost_at(self, host: str) -> float:
        """When a leader saw that it was lost; now, if this is the first look."""
        lease = self.view.leases.get(host)
        return self.view.memory.losses[host][-1] if lease and is_noted(self.view.memory, lease) else self.now

    # --- vservers -----------------------------------------------------------------------------------------------------

    def kept_off(self, word: Assignment) -> tuple[str, ...]:
        """The hosts on which it failed, while that counts: until it has run elsewhere for a while."""
        if not word.failed_on or self._runs_well(word):
            return ()
        return word.failed_on

    def _runs_well(self, word: Assignment) -> bool:
        report = own_report(self.view, word)
        if report is None or report.state is not State.RUNNING or word.owner in word.failed_on:
            return False
        up = alive(self.view, word.owner)
        if up:
            self.later(word.at + RUNS_WELL_S)
        end = self.now if up else self.view.reports[word.owner].store_at
        return end >= word.at + RUNS_WELL_S

    def wanted(self, name: str) -> bool:
        """Whether it is wanted started, so that rules about it count."""
        vserver = self.view.cluster.vservers.get(name)
        word = self.words.get(name)
        if vserver is None:
            return False
        return (word.want if word else wanted(self.view, vserver)) is Want.STARTED

    def place(self, name: str) -> str | None:
        """Where it is, or is about to be; None when it is nowhere (its owner is lost)."""
        word = self.words.get(name)
        if word is None:
            return None
        host = word.target or word.owner
        return host if alive(self.view, host) else None


# --- small words ------------------------------------------------------------------------------------------------------


def alive(view: View, host: str) -> bool:
    """Whether its lease may still run: its session exists, and neither an operator nor a device says that it is off."""
    lease = view.leases.get(host)
    return lease is not None and lease.alive and not vouched(view, host) and not fenced(view, host)


def fenced(view: View, host: str) -> bool:
    """Its power was cut, as its device says, and it has not written since before that."""
    lease, last = view.leases.get(host), view.memory.fencings.get(host)
    return lease is not None and last is not None and last.state is Cut.OFF and last.version == lease.version


def off(view: View, host: str) -> bool:
    return vouched(view, host) or fenced(view, host)


def promises_ended(view: View, host: str) -> bool:
    """Whether it is known to be off for so long that nobody runs on by a promise of it."""
    if vouched(view, host):
        return True  # that is what an operator vouches for
    return fenced(view, host) and view.now >= promises_end(view, host)


def promises_end(view: View, host: str) -> float:
    """Of a host whose power was cut: the end of all that it had promised to others."""
    longest_s = max(one.promise_s * (1 + 2 * one.drift) for one in (view.cluster.timing, terms(view, host)))
    report = view.reports.get(host)
    known = ((report.promised if report else None) or {}).values()  # from when it went by longer terms, perhaps
    ends = [report.store_at - bond.ended_s for bond in known] if report else []
    return max(view.memory.fencings[host].ended_at + longest_s, *ends, -math.inf)


def terms(view: View, host: str) -> Timing:
    """By which a host goes, as it says itself; else those of the cluster."""
    report = view.reports.get(host)
    return view.cluster.timing if report is None or report.terms is None else report.terms


def is_noted(memory: Memory, lease: Lease) -> bool:
    """Whether a leader has noted a loss of the host since its last renewal."""
    return max(memory.losses.get(lease.host, ()), default=-math.inf) >= lease.store_at


def vouched(view: View, host: str) -> bool:
    """An operator said that it is off, and it has missed renewals since."""
    counts_at = vouched_from(view, host)
    return counts_at is not None and view.now >= counts_at


def vouched_from(view: View, host: str) -> float | None:
    """From when an operator's word counts that a host is off; None: there is none, or the host has written since.
    Nobody's word is taken against a host that goes on renewing its lease."""
    lease, intent = view.leases.get(host), view.intents.hosts.get(host)
    if lease is None or intent is None or intent.vouched != lease.version:
        return None
    return lease.store_at + MISSED * terms(view, host).renew_s


def is_drained(view: View, host: str) -> bool:
    """A drain with an end is over then by itself."""
    intent = view.intents.hosts.get(host)
    return intent is not None and intent.drained and (intent.until_at is None or view.now < intent.until_at)


def intent_of(view: View, name: str) -> VserverIntent:
    return view.intents.vservers.get(name) or _NO_INTENT


_NO_INTENT = VserverIntent()


def wanted(view: View, vserver: Vserver) -> Want:
    """What the operator wants of it: by command, else by cluster.yaml."""
    intent = intent_of(view, vserver.name)
    return Want.IGNORED if intent.removed else intent.want or vserver.want


def silent(view: View) -> tuple[str, ...]:
    """Live hosts that have not said yet what runs on them, going by the present cluster.yaml."""
    return tuple(host for host in view.cluster.hosts if alive(view, host) and not _has_said(view, host))


def _has_said(view: View, host: str) -> bool:
    report = view.reports.get(host)
    return report is not None and report.cluster_version in (None, view.cluster_version)


def reported(view: View, host: str, vserver: str) -> VserverReport | None:
    report: Report | None = view.reports.get(host)
    return report.vservers.get(vserver) if report else None


def own_report(view: View, word: Assignment) -> VserverReport | None:
    """What the owner says, once it has obeyed the present epoch."""
    report = reported(view, word.owner, word.vserver)
    return report if report is not None and report.epoch == word.epoch else None


def may_follow(view: View, word: Assignment) -> tuple[str, ...]:
    """To whom it may be given without its owner's help; (): to anybody.

    Without ZooKeeper an owner goes by promises of the hosts that it knows of. Once it has obeyed the present epoch it
    knows those of this word; before that it may still go by those of any word since the last one that was obeyed.
    """
    if own_report(view, word) is not None or not word.known_hosts:
        return word.hosts
    return tuple(host for host in word.hosts if host in word.known_hosts)


def hosts_of(vserver: Vserver, owner: str) -> tuple[str, ...]:
    """All that may run it, its present owner among them."""
    return vserver.hosts if owner in vserver.hosts else (*vserver.hosts, owner)


def has_obeyed(view: View, word: Assignment) -> bool:
    """Whether the owner has said anything since it became the owner."""
    report = reported(view, word.owner, word.vserver)
    return report is not None and report.epoch >= word.owner_epoch


def has_begun(view: View, word: Assignment) -> bool:
    """Whether the owner may have written anything. As long as its tree is a replica it has started nothing."""
    return has_obeyed(view, word) and word.vserver not in view.reports[word.owner].replicas


def stays_on_shutdown(vserver: Vserver) -> bool:
    return vserver.on_host_shutdown is not Shutdown.MOVE


def rank(vserver: Vserver) -> tuple[int, str]:
    """Who chooses first: the higher priority, then the name."""
    return -vserver.priority, vserver.name


def _both_ways(cluster: Cluster, rule: str) -> Mapping[str, frozenset[str]]:
    """Rules bind both sides, whichever of them says so."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, vserver in cluster.vservers.items():
        for other in getattr(vserver, rule):
            if other != name and other in cluster.vservers:
                found[name].add(other)
                found[other].add(name)
    return {name: frozenset(others) for name, others in found.items()}


def _groups(cluster: Cluster) -> Mapping[str, tuple[str, ...]]:
    """Per vserver, the others that must be where it is, in their rank."""
    linked = _both_ways(cluster, "together_with")
    found: dict[str, tuple[str, ...]] = {}
    for name in linked:
        group, front = {name}, [name]
        while front:
            front = [other for near in front for other in linked[near] if other not in group]
            group.update(front)
        found[name] = tuple(sorted(group - {name}, key=lambda other: rank(cluster.vservers[other])))
    return found


def in_rank(cluster: Cluster, names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: rank(cluster.vservers[name]))
