"""What is legal in cluster.yaml and worth a word: a vserver that is left unprotected, or a wish that cannot come true.

Rule: only what has passed every check comes here, so nothing is missing and every name is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from failover.config.check import Said, common_hosts, listed, said, together
from failover.config.match import Found
from failover.config.problem import Path, Problem, dotted
from failover.config.units import spoken_size
from failover.model import Sync, Vserver, Want


def warnings(found: Found) -> Iterator[Problem]:
    everyone = said(found)
    if not everyone:
        yield _warning(found, ("vservers",), "there are no vservers", "add one under vservers:")
    servers = found.values.get("zookeeper", {}).get("servers", ())
    if len(servers) in (1, 2):
        message = f"{'one ZooKeeper server' if len(servers) == 1 else 'two ZooKeeper servers'}: none of them may fail"
        yield _warning(found, ("zookeeper", "servers"), message, "name three")
    yield from _open_secrets(found)
    for one in everyone:
        yield from _unprotected(found, one)
        yield from _nobody_to_ask(found, one)
    sets = together(everyone)
    apart = _apart(everyone)
    for one in everyone:
        yield from _vain_wishes(found, one, sets[one.name], apart)
    yield from _too_little_room(found, everyone, sets)
    yield from _too_many_apart(found, everyone, apart)


def _warning(found: Found, path: Path, message: str, hint: str) -> Problem:
    return Problem(message, hint, dotted(path), found.places.get(path))


def _unprotected(found: Found, one: Said) -> Iterator[Problem]:
    if not one.values["backups"]:
        message = f"{one.name} has no backups: nothing can take over"
        yield _warning(found, one.at("backups"), message, "name a host in backups")
    every_s = one.values.get("sync", {}).get("every", Sync.every_s)
    loss_s = one.values.get("max_data_loss", Vserver.max_data_loss_s)
    if one.values["backups"] and loss_s < every_s:
        message = f"the replicas of {one.name} are mostly older than its max_data_loss of {loss_s:g} s"
        yield _warning(found, one.at("max_data_loss"), message, f"sync every {loss_s / 2:g}s, or allow more")


def _open_secrets(found: Found) -> Iterator[Problem]:
    for name, host in found.values.get("hosts", {}).items():
        for key in host.get("fence", {}).get("options", {}):
            if key in ("password", "passwd", "snmp_priv_passwd", "token"):
                message = f"everybody who can read this file, or ZooKeeper, learns how to cut the power of {name}"
                path = ("hosts", name, "fence", "options", key)
                yield _warning(found, path, message, f"put it into a file, and name that: {key}_file")


def _nobody_to_ask(found: Found, one: Said) -> Iterator[Problem]:
    for path, each in one.items("checks"):
        if "tcp" in each and not one.values.get("addresses"):
            message = f"{one.name} has no addresses on which its port {each['tcp']} could answer"
            yield _warning(found, path, message, "add addresses:, or check with exec and inside: true")


def _vain_wishes(found: Found, one: Said, joined: frozenset[str], apart: Mapping[str, set[str]]) -> Iterator[Problem]:
    wished_together, wished_apart = (one.others(f"prefer_{key}") for key in ("together_with", "apart_from"))
    vain = (
        ("prefer_apart_from", wished_apart, joined, "must be together with"),
        ("prefer_together_with", wished_together, apart[one.name], "must be apart from"),
        ("prefer_together_with", wished_together, set(wished_apart), "prefers also to be apart from"),
    )
    for key, wished, against, told in vain:
        for other in sorted(set(wished) & set(against)):
            message = f"{one.name} {told} {other}, so this has no effect"
            yield _warning(found, one.at(key), message, "drop one of the two")


def _too_little_room(found: Found, everyone: Sequence[Said], sets: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    """Only hosts that declare their capacity are judged; what is together must fit together."""
    by_name = {one.name: one for one in everyone}
    for joined in dict.fromkeys(sets.values()):
        members = [by_name[name] for name in sorted(joined)]
        needy = next((one for one in members if one.given("needs")), None)
        if needy is None:
            continue
        names, verb, their = listed(joined), *(("fits", "its") if len(members) == 1 else ("fit", "their"))
        needs = [one.values.get("needs", {}) for one in members]
        hosts = common_hosts(members)
        lacks = {host: _lacks(found.values["hosts"][host].get("capacity", {}), needs) for host in hosts}
        small = {host: lack for host, lack in lacks.items() if lack}
        if len(small) == len(hosts):
            everywhere = ", ".join(f"{host} has {lack}" for host, lack in small.items())
            message = f"{names} {verb} on none of {their} hosts and will wait ({everywhere})"
            yield _warning(found, needy.at("needs"), message, "lower the needs, or raise a capacity")
            continue
        for host, lack in small.items():
            message = f"{names} never {verb} on {host}, which has {lack}"
            yield _warning(found, needy.at("needs"), message, "lower the needs, or raise its capacity")


def _lacks(capacity: Mapping[str, Any], needs: Sequence[Mapping[str, Any]]) -> str:
    """What a host has too little of: `1 of 2 cpus`; empty when there is room."""
    memory, cpus = (sum(need.get(key, 0) for need in needs) for key in ("memory", "cpus"))
    lacks = []
    if memory > capacity.get("memory", memory):
        lacks.append(f"{spoken_size(capacity['memory'])} of {spoken_size(memory)} memory")
    if cpus > capacity.get("cpus", cpus):
        lacks.append(f"{capacity['cpus']:g} of {cpus:g} cpus")
    return " and ".join(lacks)


def _apart(everyone: Sequence[Said]) -> dict[str, set[str]]:
    """`apart_from` binds both sides."""
    apart: dict[str, set[str]] = {one.name: set() for one in everyone}
    for one in everyone:
        for other in one.others("apart_from"):
            apart[one.name].add(other)
            apart[other].add(one.name)
    return apart


def _too_many_apart(found: Found, everyone: Sequence[Said], apart: Mapping[str, set[str]]) -> Iterator[Problem]:
    """Vservers that must all be apart from each other, and are more than the hosts on which they can be."""
    ruled = [one for one in everyone if apart[one.name]]
    wanted = [one for one in ruled if one.values.get("want", Want.STARTED) == Want.STARTED]
    told: set[frozenset[str]] = set()
    for one in wanted:
        crowd = [one]
        for other in wanted:
            if all(other.name in apart[member.name] for member in crowd) and set(other.hosts) <= set(one.hosts):
                crowd.append(other)
        names = frozenset(member.name for member in crowd)
        if len(crowd) > len(one.hosts) and names not in told:
            told.add(names)
            message = f"{listed(names)} must be apart and have only {listed(one.hosts)}: not all of them can run"
            first = next(member for member in crowd if member.given("apart_from"))
            yield _warning(found, first.at("apart_from"), message, "give one of them another host")
