"""Two hosts' worth of directories on one machine, joined by a real sshd of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agents.replication import ship
from agents.replication.channel import Channel
from agents.replication.receive import authorized_line
from agents.steps import Shipped
from failover.model import Host, Sync, Vserver
from tests import sshd

V1 = "v1"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Side:
    """One host: its vservers directory, what it has been told, and the way other hosts reach it."""

    name: str
    home: Path
    vservers: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def told_file(self) -> Path:
        return self.home / "told.json"

    def told(self, owner: str, epoch: int) -> None:
        self.told_file.write_text(
            json.dumps({"host": self.name, "assignments": {V1: {"owner": owner, "epoch": epoch}}})
        )

    @property
    def live(self) -> Path:
        return self.vservers / V1

    @property
    def replica(self) -> Path:
        return self.vservers / ".replica" / V1 / "tree"


@dataclass
class Hosts:
    """Told that hostA owns v1 at epoch 1."""

    base: Path
    port: int
    a: Side
    b: Side

    def clear(self) -> None:
        """Both hosts as on the first day, under the same sshd."""
        for side in (self.a, self.b):
            shutil.rmtree(side.vservers)
            side.vservers.mkdir()
        self.tell("hostA", 1)

    def tell(self, owner: str, epoch: int) -> None:
        self.a.told(owner, epoch)
        self.b.told(owner, epoch)

    def channel(self, source: Side, target: Side) -> Channel:
        return Channel(
            target.name,
            "127.0.0.1",
            self.port,
            self.base / f"{source.name}-to-{target.name}",
            self.base / "known_hosts",
            self.base / f"s{source.name[-1]}",
        )

    def ship(
        self,
        epoch: int = 1,
        *,
        source: Side | None = None,
        target: Side | None = None,
        final: bool = True,
        sync: Sync | None = None,
    ) -> Shipped:
        here, there = source or self.a, target or self.b
        vserver = Vserver(V1, here.name, (there.name,), sync=sync or Sync())
        return ship.ship(
            vserver,
            here.live,
            Host(there.name, "127.0.0.1"),
            epoch,
            final,
            vservers=here.vservers,
            channel=self.channel(here, there),
        )

    def ssh(self, source: Side, target: Side, command: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        """What somebody with that host's key can do."""
        channel = self.channel(source, target)
        argv = [*channel.ssh(), "-o", "ControlPath=none", *options, channel.destination, command]
        return subprocess.run(argv, capture_output=True, timeout=30, stdin=subprocess.DEVNULL, check=False)


@contextmanager
def two_hosts(backup_vservers: Path | None = None, source_vservers: Path | None = None) -> Iterator[Hosts]:
    """hostA and hostB, each reachable from the other."""
    base = Path(tempfile.mkdtemp(prefix="rep-", dir="/tmp"))  # short: the path of a socket has 108 bytes
    process = None
    hosts = None
    try:
        a = Side("hostA", base / "A", source_vservers or base / "A" / "vservers")
        b = Side("hostB", base / "B", backup_vservers or base / "B" / "vservers")
        for side in (a, b):
            side.home.mkdir()
            side.vservers.mkdir(exist_ok=True, parents=True)
        hosts = Hosts(base, _free_port(), a, b)
        lines = []
        for source, target in ((a, b), (b, a)):
            key = sshd.make_key(base / f"{source.name}-to-{target.name}")
            lines.append(
                authorized_line(source.name, key, sys.executable, vservers=target.vservers, told=target.told_file)
            )
        host_key = sshd.make_key(base / "host_key")
        (base / "known_hosts").write_text(f"[127.0.0.1]:{hosts.port} {host_key}\n")
        process = sshd.start(base, "127.0.0.1", hosts.port, lines)
        hosts.tell("hostA", 1)
        yield hosts
    finally:
        if process is not None:
            process.kill()
            process.wait()
        if hosts is not None:
            for source, target in ((hosts.a, hosts.b), (hosts.b, hosts.a)):
                hosts.channel(source, target).reset()
        shutil.rmtree(base, ignore_errors=True)


def contents(tree: Path) -> dict[bytes, tuple[object, ...]]:
    """All that two equal trees agree in, with hard links as groups. Deliberately not the code under test."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, list[bytes]] = {}
    root = os.fsencode(tree)
    for above, directories, files in os.walk(root):
        for path in [above] * (above == root) + [os.path.join(above, name) for name in directories + files]:  # noqa: PTH118
            status = os.lstat(path)
            name = os.path.relpath(path, root)
            if name.split(b"/")[0] == b".failover":
                continue
            body: bytes | str = ""
            if stat.S_ISREG(status.st_mode):
                body = Path(os.fsdecode(path)).read_bytes()
                inodes.setdefault(status.st_ino, []).append(name)
            elif stat.S_ISLNK(status.st_mode):
                body = os.fsencode(Path(os.fsdecode(path)).readlink())
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)}
            device = status.st_rdev if stat.S_IFMT(status.st_mode) in (stat.S_IFCHR, stat.S_IFBLK) else 0
            owner = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
            found[name] = (*owner, device, body, tuple(sorted(xattrs.items())))
        directories[:] = [name for name in directories if os.path.join(above, name) != root + b"/.failover"]  # noqa: PTH118
    for names in inodes.values():
        for name in names:
            found[name] = (*found[name], tuple(sorted(names)))
    return found


def _xattrs(path: bytes) -> list[str]:
    return [key for key in os.listxattr(path, follow_symlinks=False) if not key.startswith("btrfs.")]


def plant(tree: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
