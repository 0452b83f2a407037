"""A host of its own in the test's process: what is called on it sees its own /vservers, /run, network and cgroups only.

Its mounts and its network are those of one thread, and of the threads and processes that this one starts.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from agents.bonds import Bonds
from agents.isolation import record, syscalls
from agents.machine import RUN, VSERVERS, RealMachine
from agents.peers import UdpPeers
from agents.replication.channel import Channel
from agents.replication.receive import authorized_line
from failover.lab.cgroups import Group, of_this_machine
from failover.model import Cluster, Host
from failover.seal import Seal
from tests import sshd, trees
from tests.trees import unique, wait_until
from tests.wires import Wires

CLUSTER = "test"
ETC = Path("/etc/failover")
OWN = (Path("/run"), VSERVERS, ETC)  # file systems of the host's own
T = TypeVar("T")


class RealHost:
    """`spawner`, `guard`: its processes; `peers`: through which its agents speak with other hosts."""

    def __init__(self, name: str, netns: Path, address: str) -> None:
        self.name, self.address = name, address
        self._netns = netns
        self._cgroups = Group(unique(name))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._stack = ExitStack()
        self.spawner: subprocess.Popen[bytes]
        self.guard: subprocess.Popen[bytes]
        self.peers: UdpPeers
        self._changed: Callable[[], None] = lambda: None
        self._cgroups.make()
        try:
            self(self._begin)
        except BaseException:
            self.close()
            raise

    def __call__(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def machine(self, changed: Callable[[], None] = lambda: None) -> RealMachine:
        """For the next agent. To be called on the host, as all of its calls."""
        self._changed = changed
        return RealMachine(self.name, changed, Bonds(RUN, longest_s=0.0), self.peers, Seal(b"a key"))

    def close(self) -> None:
        self(self._stack.close)
        self._thread.shutdown()
        self._cgroups.kill()
        self._cgroups.await_empty()
        self._cgroups.remove()

    def _begin(self) -> None:
        with self._netns.open() as netns:
            syscalls.setns(netns.fileno(), syscalls.CLONE_NEWNET)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.set_mount(syscalls.AT_FDCWD, path="/", propagation=syscalls.MS_SLAVE, recursive=True)
        for place in OWN:
            syscalls.mount("tmpfs", place, "tmpfs", 0)
        for hierarchy, own in zip(_unified_first(), (self._cgroups.unified, *self._cgroups.others), strict=True):
            syscalls.mount(str(own), hierarchy, None, syscalls.MS_BIND)
        self.spawner = self._stack.enter_context(trees.spawner(record.RUN))
        self.start_guard()
        self._stack.callback(self.end_guard)
        cluster = Cluster(CLUSTER, {self.name: Host(self.name, self.address)}, {})
        self.peers = UdpPeers(self.name, cluster, "user:secret", lambda: self._changed())
        self._stack.callback(self.peers.close)
        wait_until((RUN / "guard.sock").exists, "the guard listens")

    def new_guard(self, *arguments: str) -> None:
        """Another one takes the place of the one that is at work."""
        self(self.end_guard)
        self(lambda: self.start_guard(*arguments))

    def start_guard(self, *arguments: str) -> None:
        argv = [sys.executable, "-m", "agents.guard", "--directory", str(RUN), *arguments]
        self.guard = subprocess.Popen(argv)

    def end_guard(self) -> None:
        self.guard.send_signal(signal.SIGUSR1)
        self.guard.wait()

    # --- receiving what other hosts send ------------------------------------------------------------------------------

    def make_keys(self) -> tuple[str, str]:
        """Its own public key as a client and as a server."""
        return self(lambda: (sshd.make_key(ETC / "id_ed25519"), sshd.make_key(ETC / "host_key")))

    def serve(self, others: Mapping[str, tuple[str, str, str]]) -> None:
        """An sshd for the other hosts: name -> (address, key as a client, key as a server)."""
        self(lambda: self._serve(others))

    def _serve(self, others: Mapping[str, tuple[str, str, str]]) -> None:
        allowed = [authorized_line(name, key, sys.executable) for name, (_, key, _) in others.items()]
        (ETC / "known_hosts").write_text("".join(f"{address} {key}\n" for address, _, key in others.values()))
        process = sshd.start(ETC, self.address, 22, allowed)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        for name, (address, _, _) in others.items():
            self._stack.callback(Channel(name, address).reset)


def _unified_first() -> tuple[Path, ...]:
    """The mounts of the cgroup hierarchies, in the order of a Group's directories."""
    machine = of_this_machine()
    return tuple(hierarchy.mount for hierarchy in sorted(machine, key=lambda hierarchy: not hierarchy.unified))


@contextmanager
def real_hosts(*names: str, wires: Wires | None = None) -> Iterator[dict[str, RealHost]]:
    """alpha is 10.0.0.1, the next 10.0.0.2; and each can send replicas to the others."""
    with mount_points(), ExitStack() as stack:
        if wires is None:
            wires = Wires()
            stack.callback(wires.close)
        hosts = {}
        for number, name in enumerate(names, 1):
            address = f"10.0.0.{number}"
            hosts[name] = RealHost(name, wires.host(name, f"{address}/24"), address)
            stack.callback(hosts[name].close)
        if len(names) > 1:
            keys = {name: (host.address, *host.make_keys()) for name, host in hosts.items()}
            for name, host in hosts.items():
                host.serve({other: known for other, known in keys.items() if other != name})
        yield hosts


@contextmanager
def mount_points() -> Iterator[None]:
    """Where a host's own file systems are mounted there must be a directory."""
    missing = [place for place in OWN if not place.exists()]
    for place in missing:
        place.mkdir()
    try:
        yield
    finally:
        for place in missing:
            place.rmdir()
