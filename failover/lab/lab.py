"""Several real hosts on one machine: up, down, and the hosts between.

    up      directory and lock ─▶ what the hosts are given ─▶ switch ─▶ hosts ─▶ services, a quorum ─▶ `ready`
    down    kill by cgroup ─▶ unmount ─▶ loop devices ─▶ cgroups ─▶ directory

Rule 1: `down` takes away what exists, whoever left it and however far `up` got; it needs no memory but the lab's name.
Rule 2: one `up` or `down` of a lab at a time: its directory is locked, and who is being started still holds the lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agents.command import CommandFailed, Done, run
from agents.supervisor import replace_file
from failover.errors import BadInput, FailoverError, Refused, Unreachable
from failover.lab import cgroups, identity, network, outlet, services
from failover.lab.cgroups import Group
from failover.lab.host import Host, Machine, detach
from failover.lab.network import STORE, Switch
from failover.lab.place import BASE, CLIENT, STORES, Place

NETWORK = "10.77"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOCK_S = 30.0


class Lab:
    """A lab by its name, whether it is up or not. `hosts` is empty while it is down."""

    def __init__(self, name: str = "lab", base: Path = BASE) -> None:
        self.place = Place(name, base)
        self.switch = Switch(self.place.switch)
        self.hosts: dict[str, Host] = {}
        self.servers: list[str] = []  # the hosts that carry a ZooKeeper server
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # not described: it has no hosts
            self._know(json.loads(self.place.description.read_text()))

    @property
    def is_up(self) -> bool:
        return self.place.ready.exists() and self.switch.exists

    # --- up and down

    def up(
        self,
        hosts: int = 3,
        *,
        config: Path | None = None,
        services: Sequence[str] = services.ALL,
        fs: str = "btrfs",
        disk: str = "4G",
        apart: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        """Returns when every service runs and ZooKeeper has a quorum; who waits in vain finds the hosts as they are.

        `config`: a cluster.yaml whose hosts the lab shall have, instead of `hosts` hosts without vservers.
        `apart`: ZooKeeper has hosts of its own (place.STORES), so that what becomes of a host is no fault of the store.
        """
        text, addresses = _cluster(self.place.name, hosts, config)
        wanted = _description(addresses, services, fs, disk, apart=apart)
        with self._locked(make=True) as lock:
            if self.is_up:
                raise Refused(f"lab {self.place.name} is up", hint=f"failover lab down --name {self.place.name}")
            self._clear()
            try:
                replace_file(self.place.description, json.dumps(wanted, indent=2))
                self._know(wanted)
                self._found(text, {**addresses, **(STORES if apart else {})})
                self._boot(lock)
            except BaseException:
                self._vanish()
                raise
            self.await_services(timeout_s)
            if "zookeeper" in services:
                self.await_store(timeout_s)
            self.place.ready.touch()

    def renew(self, hosts: Sequence[str], text: str, timeout_s: float = 60.0) -> None:
        """Every host of the cluster loses its power, its disk and its faults; `hosts` boot anew with another cluster
        file. For a lab whose store is apart: that stays as it is, so the cluster needs another name."""
        for name in self.real_hosts:
            host = self.host(name)
            if host.powered:
                self.power_off(name)
            host.renew()
            replace_file(host.directory / "etc/cluster.yaml", text)
        for source, target in self.switch.cuts():
            self.switch.mend(source, target)
        for server in self.servers:
            self.host(server).hold("zookeeper", down=False)
            replace_file(self.host(server).directory / "etc/cluster.yaml", text)
        with self._locked(fcntl.LOCK_SH) as lock:
            booting = [(self.host(name), self.host(name).power_on(lock, set())) for name in hosts]
            for host, process in booting:
                host.booted(process)
        self.await_services(timeout_s)
        self.await_store(timeout_s)

    def down(self) -> None:
        """Take away all that exists of it; harmless when nothing does."""
        if not self.place.directory.exists() and not self._remains():
            return
        with self._locked(make=True):
            self._vanish()

    def _boot(self, lock: int) -> None:
        self.switch.make()
        group = Group(self.place.group())
        group.make()
        group.delegate()
        booting = [(host, host.power_on(lock, set())) for host in self.hosts.values()]
        for host, process in booting:
            host.booted(process)

    def _vanish(self) -> None:
        self._clear()
        shutil.rmtree(self.place.directory)
        with suppress(OSError):  # not empty: other labs
            self.place.base.rmdir()
        self.hosts = {}

    def _clear(self) -> None:
        """Everything but the empty directory, which bears the lock."""
        self.place.ready.unlink(missing_ok=True)
        group = Group(self.place.group())
        group.kill()
        group.await_empty()
        _unmount(self.place.directory)
        detach(self.place.directory)
        group.remove()
        for entry in self.place.directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _remains(self) -> bool:
        group = Group(self.place.group())
        return any(directory.exists() for directory in (group.unified, *group.others))

    # --- hosts

    def host(self, name: str) -> Host:
        if not self.hosts:
            raise Refused(f"lab {self.place.name} is not up", hint="failover lab up")
        if name not in self.hosts:
            raise BadInput(f"the lab has no host '{name}'", hint=f"one of {', '.join(self.hosts)}")
        return self.hosts[name]

    @property
    def real_hosts(self) -> list[str]:
        """Those of the cluster: without the client, and without ZooKeeper's own."""
        return [name for name in self.hosts if name != CLIENT and name not in STORES]

    @property
    def operator(self) -> str:
        """The host on which an operator's commands run: one that reaches the store, if there is any."""
        powered = [name for name in (*self.servers, *self.real_hosts) if self.hosts[name].powered]
        if not powered:
            raise Refused("no host has power")
        ports = self.switch.ports()
        well = [name for name in powered if ports.get(name) and not self.hosts[name].group.frozen]
        return next((name for name in well if not any(name in cut for cut in self.switch.cuts())), (well or powered)[0])

    def power_off(self, name: str) -> float:
        """Cut a host's power; returns the moment (CLOCK_MONOTONIC)."""
        host = self.host(name)
        if not host.powered:
            raise Refused(f"{name} has no power already", hint=f"failover lab power-on {name}")
        return host.power_off(self.switch)

    def power_on(self, name: str) -> None:
        """Returns when the host has booted; its services are then starting."""
        host = self.host(name)
        with self._locked(fcntl.LOCK_SH) as lock:
            host.booted(host.power_on(lock, self.switch.cuts()))

    def shut_down(self, name: str, timeout_s: float = 30.0) -> None:
        """In order: its first process is asked to stop, and the power goes when it has."""
        host = self.host(name)
        os.kill(host.pid, signal.SIGTERM)
        with suppress(FailoverError):
            host.group.await_empty(timeout_s)
        host.power_off(self.switch)

    def isolate(self, name: str) -> float:
        """Pull the cable of a host, which stays out over its boots; returns the moment."""
        host = self.host(name)
        host.unplugged.touch()
        at = time.monotonic()
        if host.powered:
            self.switch.set_port(name, up=False)
        return at

    def join(self, name: str) -> None:
        """Plug the cable in again, and mend every link of the host."""
        host = self.host(name)
        host.unplugged.unlink(missing_ok=True)
        for source, target in self.switch.cuts():
            if name in (source, target):
                self.mend(source, target)
        if host.powered:
            self.switch.set_port(name, up=True)

    def cut(self, source: str, target: str) -> None:
        """Drop what goes from one end to the other. The ends are hosts; one of them may be "store"."""
        self.switch.cut(source, target)
        self._tell_store_cuts(source, target)

    def mend(self, source: str, target: str) -> None:
        self.switch.mend(source, target)
        self._tell_store_cuts(source, target)

    def exec(self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, expect: Sequence[int] = (0,)) -> Done:
        """Run a program in a host to its end; raises CommandFailed when its exit code is not expected."""
        return self.host(name).exec(argv, timeout_s=timeout_s, expect=expect)

    def status(self) -> dict[str, object]:
        ports = self.switch.ports() if self.switch.exists else {}
        hosts = {
            name: {
                "power": "on" if host.powered else "off",
                "link": "up" if ports.get(name) else "down",
                "stalled": host.group.frozen,
                "addresses": list(host.addresses),
            }
            for name, host in self.hosts.items()
        }
        cuts = sorted(f"{source} -> {target}" for source, target in self.switch.cuts()) if self.switch.exists else []
        return {"name": self.place.name, "up": self.is_up, "hosts": hosts, "cuts": cuts}

    def await_services(self, timeout_s: float) -> None:
        """Wait until every service of every host that has power has a process; the guard's agent counts as one."""
        deadline = time.monotonic() + timeout_s
        powered = [host for host in self.hosts.values() if host.powered]
        while missing := [f"{name} of {host.name}" for host in powered for name in host.missing()]:
            if time.monotonic() > deadline:
                logs = self.place.directory / "hosts/*/log"
                raise Unreachable(f"not started after {timeout_s:g} s: {', '.join(missing)}", hint=f"see {logs}")
            time.sleep(0.05)

    def await_store(self, timeout_s: float) -> None:
        """Wait until some ZooKeeper server leads a quorum."""
        deadline = time.monotonic() + timeout_s
        ask = [sys.executable, "-m", "failover.lab.quorum", *self._store_addresses()]
        while self.exec(CLIENT, ask, expect=(0, 1)).returncode:
            if time.monotonic() > deadline:
                log = self.place.host(self.real_hosts[0]) / "log/zookeeper.log"
                raise Unreachable(f"ZooKeeper has no quorum after {timeout_s:g} s", hint=f"see {log}")
            time.sleep(0.1)

    # --- details

    def _tell_store_cuts(self, *ends: str) -> None:
        for name in ends if STORE in ends else ():
            if name != STORE and self.host(name).powered:
                rules = network.store_rules(self.switch.cuts(), name)
                run(self.host(name).command(["nft", "-f", "-"]), timeout_s=10, stdin=rules.encode())

    def _store_addresses(self) -> list[str]:
        return [self.hosts[name].addresses[0].partition("/")[0] for name in self.servers]

    def _know(self, wanted: dict[str, Any]) -> None:
        """`wanted`: see _description."""
        machine = Machine(self.place, sys.executable, wanted["disk"], wanted["fs"], cgroups.of_this_machine())
        hosts = {}
        for name, own in wanted["hosts"].items():
            chosen = [] if name == CLIENT else ["zookeeper"] if name in STORES else wanted["services"]
            runs = services.of_host(chosen, name, sys.executable, store=name in wanted["servers"])
            hosts[name] = Host(machine, name, tuple(own), runs)
        self.hosts, self.servers = hosts, list(wanted["servers"])

    def _found(self, text: str, addresses: dict[str, str]) -> None:
        names = "127.0.0.1 localhost\n" + "".join(f"{address} {host}\n" for host, address in addresses.items())
        for name, host in self.hosts.items():
            host.found()
            etc = host.directory / "system/upper/etc"
            etc.mkdir()
            (etc / "hosts").write_text(names)
            (etc / "hostname").write_text(f"{name}\n")
            (etc / "passwd").write_text(_with_plain_root(Path("/etc/passwd").read_text()))
            outlet.install(host.directory / "system/upper")
        real = {name: host for name, host in self.hosts.items() if name != CLIENT}
        identity.found({name: host.directory / "etc" for name, host in real.items()}, addresses, text, sys.executable)
        for name, host in real.items():
            if "zookeeper" in host.runs:
                servers = {server: addresses[server] for server in self.servers}
                identity.prepare_zookeeper(host.directory / "state", servers, name)

    @contextmanager
    def _locked(self, kind: int = fcntl.LOCK_EX, *, make: bool = False) -> Iterator[int]:
        deadline = time.monotonic() + _LOCK_S
        while (lock := self._lock(kind, make=make)) is None:
            if time.monotonic() > deadline:
                raise Refused(f"lab {self.place.name} is being brought up or down", hint="wait until that is done")
            time.sleep(0.02)
        try:
            yield lock
        finally:
            os.close(lock)

    def _lock(self, kind: int, *, make: bool) -> int | None:
        """The open, locked directory; None when another has it, or took it away meanwhile."""
        try:
            if make:
                self.place.directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), self.place.directory.stat()):
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(lock)
        return None


def _cluster(name: str, count: int, config: Path | None) -> tuple[str, dict[str, str]]:
    """The text of the cluster file, and each host's address."""
    if config is not None:
        from failover.config import load

        cluster = load(config)
        addresses = {host.name: host.address for host in cluster.hosts.values()}
        text = config.read_text()
    else:
        if not 1 <= count <= len(_LETTERS):
            raise BadInput(f"a lab has 1 to {len(_LETTERS)} hosts, not {count}")
        letters = enumerate(_LETTERS[:count], start=1)
        addresses = {f"host{letter}": f"{NETWORK}.0.{number}" for number, letter in letters}
        text = identity.cluster_text(name, addresses)
    for host, address in addresses.items():
        if not address.startswith(f"{NETWORK}."):
            raise BadInput(f"{host} has the address {address}", hint=f"in a lab it must be in {NETWORK}.0.0/16")
        if not may_be_called(host):
            raise BadInput(
                f"a host of a lab cannot be called '{host}'", hint="up to 15 letters, not 'client' or 'store'"
            )
    return text, addresses


def may_be_called(host: str) -> bool:
    return host not in (CLIENT, STORE, *STORES) and len(host) <= 15


def _with_plain_root(passwd: str) -> str:
    """Root's shell reads no start-up files of this machine: they would run before every sync."""
    lines = [f"{line.rpartition(':')[0]}:/bin/sh" if line.startswith("root:") else line for line in passwd.splitlines()]
    return "\n".join(lines) + "\n"


def _description(
    addresses: dict[str, str], chosen: Sequence[str], fs: str, disk: str, *, apart: bool
) -> dict[str, Any]:
    if fs not in ("btrfs", "ext4", "xfs"):
        raise BadInput(f"'{fs}' is no file system for a lab", hint="btrfs, ext4 or xfs")
    if not (disk[:-1].isdigit() and disk[-1:] in tuple("MGT")):
        raise BadInput(f"'{disk}' is no size of a disk", hint="such as 4G")
    every = {**addresses, **(STORES if apart else {}), CLIENT: f"{NETWORK}.0.250"}
    both = {host: [f"{address}/16", f"fd77::{address.rpartition('.')[2]}/64"] for host, address in every.items()}
    servers = list(STORES) if apart else list(addresses)[: identity.SERVERS]
    return {"hosts": both, "servers": servers, "services": list(services.known(chosen)), "fs": fs, "disk": disk}


def _unmount(below: Path, timeout_s: float = 10.0) -> None:
    """Every mount below a directory, the innermost first."""
    deadline = time.monotonic() + timeout_s
    while mounts := _mounts(below):
        for mount in reversed(mounts):
            with suppress(CommandFailed):
                run(["umount", mount], timeout_s=30)
        if time.monotonic() > deadline:
            raise FailoverError(f"{', '.join(mounts)} cannot be unmounted", hint="a process still uses it")


def _mounts(below: Path) -> list[str]:
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{below}/")]
