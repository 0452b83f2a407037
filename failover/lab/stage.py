"""A lab for one story: its hosts, an ensemble apart from them, a quick tree of each vserver, and its cluster applied.

    law        the story's `cluster:` with what a lab gives: the name, the store, the hosts' addresses and network, the
               vservers' addresses and the timing where the story leaves them out
    0 s        what is wanted started runs, and every backup that is on has a complete replica

Rule: a lab that is up and has the same hosts is used again: they begin anew, with empty disks; only the ensemble stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agents.supervisor import replace_file
from failover.config.read import Items, Node, Pairs, Scalar
from failover.errors import FailoverError
from failover.lab.identity import SERVERS
from failover.lab.lab import NETWORK, Lab
from failover.lab.outlet import AGENT
from failover.lab.place import ETC, STORES
from failover.lab.sample import await_
from failover.model import Cluster, Vserver, Want
from failover.stories.reading import Opened

DISK = "1G"
BEGIN_S = 90.0
HELD_S = 10.0  # what is held for longer than that is not waited for
_LAW, _NEXT = "cluster.yaml", "next.yaml"

Plain = dict[str, Any]


class Stage:
    """`cluster`: a name for it that no story before it had in this lab. `apart`: whether the ensemble is; if not it is
    on the first three hosts, and the lab must be down."""

    def __init__(self, opened: Opened, lab: Lab, cluster: str, timing: str, *, apart: bool = True) -> None:
        self.lab, self._name, self._timing, self._apart = lab, cluster, timing, apart
        self._opened, self._story, self._applied_at = opened, opened.story, 0.0
        clusters = [self._story.cluster, *(e.cluster for e in self._story.events or () if e.cluster is not None)]
        hosts = dict.fromkeys(host for cluster in clusters for host in cluster.hosts)
        self.hosts = {host: f"{NETWORK}.0.{number}" for number, host in enumerate(hosts, start=1)}
        self.vservers: dict[str, Vserver] = {v.name: v for cluster in clusters for v in cluster.vservers.values()}
        self.addresses = {
            name: vserver.addresses or (f"{NETWORK}.1.{number}/16",)
            for number, (name, vserver) in enumerate(self.vservers.items(), start=1)
        }

    # --- before 0 s ---------------------------------------------------------------------------------------------------

    def set_up(self, say: Callable[[str], None]) -> None:
        lab, cluster = self.lab, self._story.cluster
        if lab.is_up and lab.real_hosts != list(self.hosts):
            lab.down()
        if lab.is_up:
            lab.renew(list(cluster.hosts), json.dumps(self.law(self._opened.law), indent=1))
        else:
            where = "three others" if self._apart else "the first three"
            say(f"a lab of {len(self.hosts)} hosts, and ZooKeeper on {where}")
            self._raise()
        self._build(cluster.vservers.values())
        for host in self.hosts:
            if lab.host(host).powered and not self._is_on(host):
                lab.power_off(host)
        self._apply(_LAW)
        self._applied_at = time.monotonic()
        say("waiting until all that is wanted started runs and is complete")
        await_("beginning", self._begun, timeout_s=BEGIN_S)

    def _raise(self) -> None:
        with TemporaryDirectory() as directory:
            config = Path(directory) / _LAW
            config.write_text(json.dumps(self._framed({"hosts": {host: {} for host in self.hosts}, "vservers": {}})))
            self.lab.up(config=config, disk=DISK, apart=self._apart)
        self._write(_LAW, self.law(self._opened.law))

    def _is_on(self, host: str) -> bool:
        return host in self._story.cluster.hosts and self._story.initial.power.get(host, True)

    def _begun(self) -> bool:
        found = self.status()
        held = {hold["subject"] for hold in found["holds"] if _for_good(hold["because"])}
        if time.monotonic() < self._applied_at + HELD_S:
            held = set()
        off = {host for host in self.hosts if not self._is_on(host)}
        for name, vserver in self._story.cluster.vservers.items():
            said = found["vservers"][name]
            waits = vserver.primary in off or name in held
            if vserver.want is Want.STARTED and said["state"] != "running" and not waits:
                return False
            backups = said["backups"].items() if said["owner"] else ()
            if any(copy["age_s"] is None for host, copy in backups if host not in off):
                return False
        return bool(found["leader"]) or len(off) == len(self.hosts)

    # --- the cluster file ---------------------------------------------------------------------------------------------

    def law(self, tree: Pairs) -> Plain:
        return self._framed(_plain(tree))

    def _framed(self, law: Plain) -> Plain:
        carriers = STORES if self._apart else dict(list(self.hosts.items())[:SERVERS])
        servers = [f"{address}:2181" for address in carriers.values()]
        hosts = {
            host: {**(said or {}), **_outlet(host, said), "address": self.hosts[host], "network": {"device": "eth0"}}
            for host, said in law["hosts"].items()
        }
        shared = law.get("defaults") or {}
        vservers = {
            name: said if "addresses" in {**shared, **said} else {**said, "addresses": list(self.addresses[name])}
            for name, said in (law.get("vservers") or {}).items()
        }
        store: Plain = {"cluster": self._name, "zookeeper": {"servers": servers}}
        return {"timing": self._timing, **law, **store, "hosts": hosts, "vservers": vservers}

    def _write(self, file: str, law: Plain) -> None:
        for host in (*(STORES if self._apart else ()), *self.hosts):
            replace_file(self.lab.place.host(host) / "etc" / file, json.dumps(law, indent=1))

    def _apply(self, file: str) -> None:
        self.failover("apply", f"{ETC}/{file}")

    def change(self, number: int, cluster: Cluster) -> None:
        """Apply the law from event `number` on; what it brings comes. Raises when it is refused."""
        law = self.law(self._opened.laws[number])
        self._write(_NEXT, law)
        self._apply(_NEXT)
        self._write(_LAW, law)
        for host in cluster.hosts:
            if host not in self._story.cluster.hosts and not self.lab.host(host).powered:
                self.lab.power_on(host)
        vservers = cluster.vservers.values()
        self._build(v for v in vservers if not any(self._has_tree(host, v.name) for host in self.hosts))

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _build(self, vservers: Iterable[Vserver]) -> None:
        """A quick tree on the primary of each."""
        building = []
        for vserver in vservers:
            command = self.lab.host(vserver.primary).command(["vserver", vserver.name, "build", "-m", "busybox"])
            building.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        for process in building:
            _, said = process.communicate(timeout=60)
            if process.returncode:
                raise FailoverError(f"a tree cannot be built: {said.decode().strip()}")

    def _has_tree(self, host: str, name: str) -> bool:
        there = ["sh", "-c", 'ls -d /vservers/"$0" /vservers/.*/"$0" 2>/dev/null | grep -q .', name]
        return self.lab.host(host).powered and self.lab.exec(host, there, expect=(0, 1)).returncode == 0

    def failover(self, *words: str) -> str:
        """What a command says, run where it reaches the store. Raises CommandFailed with its exit code."""
        argv = [sys.executable, "-m", "failover", *words]
        return self.lab.exec(self.lab.operator, argv, timeout_s=60).stdout.decode()

    def status(self) -> Plain:
        found: Plain = json.loads(self.failover("status", "--json"))
        return found

    def history(self) -> list[Mapping[str, Any]]:
        return [json.loads(line) for line in self.failover("history", "--json", "--limit", "1000").splitlines()]


def _outlet(host: str, said: Plain | None) -> Plain:
    """A device that cuts a host's power is one of the lab's."""
    return {"fence": {"agent": AGENT, "options": {"plug": host}}} if "fence" in (said or {}) else {}


def _plain(node: Node) -> Any:
    """The tree as data; what has no value stays so."""
    if isinstance(node, Scalar):
        return None if node.nothing else node.text
    if isinstance(node, Items):
        return [_plain(item) for item in node.items]
    return {key.text: _plain(value) for key, value in node.pairs}


def _for_good(because: str) -> bool:
    """Every tree is there: a hold for want of one ends by itself, or something is wrong."""
    return "has its tree" not in because
