"""The rules between the keys of cluster.yaml: what each value alone cannot tell.

Rule 1: a vserver is judged with `defaults` laid under its own keys; a problem is shown where the value is written.
Rule 2: what could never hold is a problem. What is legal and worth a word is a warning (warn.py).
Rule 3: in `defaults` a rule may name any vserver; for that one itself it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Any

from failover.config import words
from failover.config.match import Found, merged
from failover.config.problem import Path, nearest, quoted
from failover.config.terms import timing_of
from failover.errors import Unsafe
from failover.model import SECRET, is_secret

_NO_HOST = ("none", "nobody", "nothing", "no")


@dataclass(frozen=True)
class Said:
    """All that the file says about one vserver."""

    name: str
    values: Mapping[str, Any]
    found: Found

    def at(self, key: str) -> Path:
        """Where the value of a key is written: its own, or that in defaults."""
        own = ("vservers", self.name, key)
        return own if own in self.found.places else ("defaults", key)

    def items(self, key: str) -> Iterator[tuple[Path, Any]]:
        """The values of a list, each with its path."""
        return self.found.items(self.at(key), self.values[key]) if key in self.values else iter(())

    def others(self, key: str) -> tuple[str, ...]:
        """The other vservers that a rule names."""
        return tuple(name for name in self.values.get(key, ()) if name != self.name)

    def given(self, key: str) -> bool:
        return self.at(key) in self.found.places

    @property
    def hosts(self) -> tuple[str, ...]:
        primary = (self.values["primary"],) if "primary" in self.values else ()
        return (*primary, *self.values.get("backups", ()))

    @property
    def certain(self) -> bool:
        """Whether its hosts could be read, so that more can be concluded from them."""
        known = self.found.values.get("hosts", {})
        return "primary" in self.values and "backups" in self.values and all(host in known for host in self.hosts)


def said(found: Found) -> tuple[Said, ...]:
    defaults = found.values.get("defaults", {})
    everyone = []
    for name, own in found.values.get("vservers", {}).items():
        misread = {key for key in defaults if key not in own and ("vservers", name, key) in found.places}
        under = {key: value for key, value in defaults.items() if key not in misread}
        everyone.append(Said(name, merged(under, own), found))
    return tuple(everyone)


def check(found: Found) -> None:
    """Add to `found` every problem between its keys."""
    everyone = said(found)
    _timing(found)
    _hosts(found)
    _fences(found)
    for one in everyone:
        _placing(one)
        _gateway(one)
        _checks(one)
    _names(found)
    _addresses(found, everyone)
    _rules_that_never_hold(everyone)
    _start_order(everyone)


def _hosts(found: Found) -> None:
    seen: set[str] = set()
    if ("hosts",) in found.places and isinstance(found.values.get("hosts"), dict):
        named = any(path[0] == "hosts" for path in found.places if len(path) == 2)
        if not named:
            found.report(("hosts",), "is empty", "name at least one host with its address")
    servers = found.values.get("zookeeper", {}).get("servers", ())
    for path, server in found.items(("zookeeper", "servers"), servers) if servers else ():
        if server in seen:
            found.report(path, f"{server} is there twice", "name each server once")
        seen.add(server)


def _timing(found: Found) -> None:
    try:
        timing_of(found.values.get("timing"))
    except Unsafe as unsafe:
        found.report(("timing",), unsafe.message, unsafe.hint)


def _fences(found: Found) -> None:
    """An option that is read from a file has its place there, and no two hosts hang on one switch."""
    devices: dict[object, str] = {}
    for name, host in found.values.get("hosts", {}).items():
        if "fence" not in host:
            continue
        fence, here = host["fence"], ("hosts", name, "fence")
        options = fence.get("options", {})
        for key, value in options.items():
            plain = key.removesuffix(SECRET)
            if not is_secret(key):
                continue
            if plain in options:
                found.report((*here, "options", key), f"stands beside {plain}", "keep one of the two")
            if not value.startswith("/"):
                found.report((*here, "options", key), f"{quoted(value)} is not a full path", "begin it with /")
        device = (fence.get("agent"), *sorted(options.items()))
        if device in devices:
            message = f"is the very device of {devices[device]}, whose power would be cut in its place"
            found.report(here, message, "give each host its own, as by plug:")
        devices.setdefault(device, name)


def _names(found: Found) -> None:
    """Hosts and vservers that are named somewhere, `defaults` included, must exist."""
    sections: list[tuple[Path, Mapping[str, Any]]] = [(("defaults",), found.values.get("defaults", {}))]
    sections += [(("vservers", name), own) for name, own in found.values.get("vservers", {}).items()]
    for section, values in sections:
        for key, table in REFERS.items():
            path, value = (*section, key), values.get(key, ())
            named = ((path, value),) if isinstance(value, str) else found.items(path, value) if value else ()
            seen: set[str] = set()
            for place, name in named:
                if (table, name) not in found.places:
                    found.report(place, *_unknown(found, table, key, name))
                elif section == (table, name):
                    found.report(place, f"{name} names itself", "name another vserver")
                elif name in seen and table == "vservers":
                    found.report(place, f"{quoted(name)} is there twice", "name it once")
                seen.add(name)


# key of a vserver -> the table whose names it takes
REFERS = {"primary": "hosts", "backups": "hosts"} | dict.fromkeys(
    ("together_with", "apart_from", "prefer_together_with", "prefer_apart_from", "start_after"), "vservers"
)


def _unknown(found: Found, table: str, key: str, name: str) -> tuple[str, str]:
    if key == "backups" and name in _NO_HOST:
        return f"{quoted(name)} is not under hosts", "if nothing shall take over, write backups: []"
    known = tuple(str(path[1]) for path in found.places if len(path) == 2 and path[0] == table)
    return f"{quoted(name)} is not under {table}", nearest(name, known)


def _placing(one: Said) -> None:
    found = one.found
    home: Path = ("vservers", one.name)
    if not one.given("primary"):
        found.report((*home, "primary"), "is missing", "name the host on which it runs normally")
    if not one.given("backups"):
        found.report((*home, "backups"), "is missing", "name a backup or say backups: []")
    seen: set[str] = set()
    for path, name in one.items("backups"):
        if name == one.values.get("primary"):
            hint = "name another host, or if nothing shall take over, write backups: []"
            found.report(path, f"{quoted(name)} is the primary of {one.name} already", hint)
        elif name in seen:
            found.report(path, f"{quoted(name)} is there twice", "name it once")
        seen.add(name)


def _gateway(one: Said) -> None:
    gateway = one.values.get("gateway")
    if gateway is None:
        return
    ip = ip_address(gateway)
    interfaces = [ip_interface(text) for text in one.values.get("addresses", ())]
    family = [interface for interface in interfaces if interface.version == ip.version]
    if not one.given("addresses"):
        one.found.report(one.at("gateway"), f"{one.name} has a gateway but no addresses", "add addresses:")
    elif any(interface.ip == ip for interface in family):
        one.found.report(one.at("gateway"), f"{gateway} is an address of {one.name} itself", "name the router")
    elif interfaces and not any(ip in interface.network for interface in family) and not _on_every_link(ip, family):
        networks = ", ".join(str(interface.network) for interface in family) or f"it has no IPv{ip.version} address"
        one.found.report(one.at("gateway"), f"{gateway} is not in a network of {one.name}", networks)


def _on_every_link(gateway: words.IP, family: Sequence[words.Interface]) -> bool:
    """A router of IPv6 is usually named by its link-local address, which lies in no network of its own."""
    return gateway.version == 6 and gateway.is_link_local and bool(family)


def _addresses(found: Found, everyone: tuple[Said, ...]) -> None:
    """No address has two owners: hosts first, then vservers in the order of the file."""
    owners: dict[str, tuple[str, Path]] = {}
    for name, host in found.values.get("hosts", {}).items():
        if "address" in host:
            _own(found, owners, host["address"], f"host {name}", ("hosts", name, "address"))
    for one in everyone:
        for path, text in one.items("addresses"):
            _own(found, owners, str(ip_interface(text).ip), one.name, path)


def _own(found: Found, owners: dict[str, tuple[str, Path]], ip: str, owner: str, path: Path) -> None:
    if ip not in owners:
        owners[ip] = (owner, path)
        return
    other, place = owners[ip]
    if other == owner:
        found.report(path, f"{ip} is there twice", "name it once")
    else:
        found.report(path, f"{ip} already belongs to {other} ({found.line(place)})", "give each its own")


def together(everyone: tuple[Said, ...]) -> dict[str, frozenset[str]]:
    """The set of each vserver: those that must be with it, itself included. `together_with` binds both sides."""
    sets = {one.name: frozenset((one.name,)) for one in everyone}
    for one in everyone:
        for other in one.others("together_with"):
            if other in sets:
                joined = sets[one.name] | sets[other]
                sets |= dict.fromkeys(joined, joined)
    return sets


def _rules_that_never_hold(everyone: tuple[Said, ...]) -> None:
    by_name = {one.name: one for one in everyone}
    sets = together(everyone)
    for joined in dict.fromkeys(sets.values()):
        members = [by_name[name] for name in sorted(joined)]
        if len(members) > 1 and all(one.certain for one in members) and not common_hosts(members):
            first = next(one for one in everyone if one.name in joined and one.others("together_with"))
            message = f"{listed(joined)} have no host in common, so they can never be together"
            first.found.report(first.at("together_with"), message, "give them a common host, or drop the rule")
    for one in everyone:
        for other in one.others("apart_from"):
            if other in by_name:
                _apart(one, by_name[other], sets, by_name)


def _apart(one: Said, other: Said, sets: Mapping[str, frozenset[str]], by_name: Mapping[str, Said]) -> None:
    """A set that is together has one host, so what holds for one of it holds for all."""
    both = [[by_name[name] for name in sets[side.name]] for side in (one, other)]
    hosts = [common_hosts(members) for members in both]
    if other.name in sets[one.name]:
        message = f"{one.name} must be both together with and apart from {other.name}"
        one.found.report(one.at("apart_from"), message, "drop one of the two rules")
    elif all(hosts) and len(set().union(*hosts)) == 1 and all(member.certain for side in both for member in side):
        message = f"{one.name} and {other.name} can only run on {hosts[0][0]}, so they can never be apart"
        one.found.report(one.at("apart_from"), message, "give one of them another host")


def common_hosts(members: Sequence[Said]) -> tuple[str, ...]:
    """The hosts that may run them all, in the order of preference of the first."""
    return tuple(host for host in members[0].hosts if all(host in one.hosts for one in members))


def listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *most, last = sorted(names)
    return f"{', '.join(most)} and {last}" if most else last


def _checks(one: Said) -> None:
    for path, each in one.items("checks"):
        program = each.get("exec", ())
        if len(program) == 1 and " " in program[0]:
            message = f"{quoted(program[0])} is one word, so it is taken for the name of a program"
            one.found.report((*path, "exec"), message, f"write [{', '.join(program[0].split())}]")


def _start_order(everyone: tuple[Said, ...]) -> None:
    """`start_after` must not come back to where it began; each circle is told once."""
    names = {one.name for one in everyone}
    after = {one.name: [name for name in one.others("start_after") if name in names] for one in everyone}
    told: set[frozenset[str]] = set()
    for one in everyone:
        circle = _way_back(one.name, after)
        if circle and frozenset(circle) not in told:
            told.add(frozenset(circle))
            way = " → ".join((*circle, one.name))
            one.found.report(one.at("start_after"), f"waits for itself: {way}", "take one of them out")


def _way_back(start: str, after: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The shortest circle through `start`, or ()."""
    came_from: dict[str, str] = {}
    reached = [start]
    for name in reached:
        for further in after[name]:
            if further == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return tuple(reversed(way))
            if further not in came_from:
                came_from[further] = name
                reached.append(further)
    return ()
