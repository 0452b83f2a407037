"""Trees on btrfs: snapshots of a running source, and subvolumes where there should be directories."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation.trees import is_subvolume
from agents.replication import generation, snapshot
from failover.errors import Refused
from failover.model import Replica, Sync
from tests.replication_hosts import V1, Hosts, contents, plant, two_hosts

pytestmark = pytest.mark.needs("root", "rsync", "sshd", "btrfs")

FILES = {"etc/passwd": "root", "etc/motd": "hello", "srv/deep/er/data": "one", "top": "level"}


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)  # the loop device goes with the mount
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)


@pytest.fixture
def hosts(btrfs: Path) -> Iterator[Hosts]:
    (btrfs / "A").mkdir()
    (btrfs / "B").mkdir()
    with two_hosts(btrfs / "B", btrfs / "A") as hosts:
        _subvolume(hosts.a.live)
        plant(hosts.a.live, FILES)
        yield hosts


def _subvolume(path: Path) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)


def test_a_running_source_is_snapshotted_and_every_tree_is_a_subvolume(hosts: Hosts) -> None:
    dead = hosts.a.vservers / ".snapshot" / f"{V1}-hostB"
    dead.parent.mkdir()
    subprocess.run(["btrfs", "-q", "subvolume", "snapshot", hosts.a.live, dead], check=True)
    hosts.ship(final=False)
    assert contents(hosts.b.replica) == contents(hosts.a.live)
    plant(hosts.a.live, {"top": "other", "new/dir/file": "x"})
    (hosts.a.live / "etc/motd").unlink()
    hosts.ship(final=False)
    assert contents(hosts.b.replica) == contents(hosts.a.live)
    assert not any(dead.parent.iterdir())
    hosts.tell("hostB", 2)
    generation.promote(V1, 2, hosts.b.vservers)
    assert is_subvolume(hosts.b.live)
    generation.demote(V1, 2, hosts.a.vservers)
    plant(hosts.b.live, {"top": "B"})
    hosts.ship(2, source=hosts.b, target=hosts.a, final=False)
    assert is_subvolume(hosts.a.replica)
    assert contents(hosts.a.replica) == contents(hosts.b.live)


def test_what_has_stopped_is_read_without_a_snapshot(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, take = list[Path](), snapshot.take_snapshot

    def count_and_take(tree: Path, to: Path) -> None:
        taken.append(to)
        take(tree, to)

    monkeypatch.setattr(snapshot, "take_snapshot", count_and_take)
    hosts.ship(final=False)
    assert len(taken) == 1
    plant(hosts.a.live, {"top": "last words"})
    hosts.ship(final=True)
    assert len(taken) == 1
    assert contents(hosts.b.replica) == contents(hosts.a.live)


@pytest.mark.parametrize("final", [True, False], ids=["stopped", "running"])
def test_a_subvolume_inside_is_never_left_out_in_silence(hosts: Hosts, final: bool) -> None:
    hosts.ship(final=final)
    before = contents(hosts.b.replica)
    _subvolume(hosts.a.live / "srv/data")
    plant(hosts.a.live, {"srv/data/precious": "x"})
    with pytest.raises(Refused, match="/srv/data is a subvolume or mount of its own: it is not replicated"):
        hosts.ship(final=final)
    assert contents(hosts.b.replica) == before
    hosts.ship(final=final, sync=Sync(exclude=("/srv/data",)))
    assert (hosts.b.replica / "srv/data").is_dir()


def test_a_former_owner_sets_its_subvolumes_aside_and_follows(hosts: Hosts) -> None:
    hosts.ship()
    _subvolume(hosts.a.live / "srv/data")
    _subvolume(hosts.a.live / "srv/data/inner")
    _subvolume(hosts.a.live / "new")
    plant(hosts.a.live, {"srv/data/precious": "x", "srv/data/inner/too": "y", "new/file": "z"})
    os.chown(hosts.a.live / "srv/data", 1234, 1234)
    hosts.tell("hostB", 2)
    generation.promote(V1, 2, hosts.b.vservers)
    generation.demote(V1, 2, hosts.a.vservers)
    assert generation.replica(V1, hosts.a.vservers) is not None
    assert (hosts.a.replica / "srv/data").stat().st_uid == 1234
    plant(hosts.b.live, {"srv/data/precious": "B", "new": "a file"})
    done = hosts.ship(2, source=hosts.b, target=hosts.a)
    assert contents(hosts.a.replica) == contents(hosts.b.live)
    replica = generation.replica(V1, hosts.a.vservers)
    assert replica is not None
    assert replica == Replica(done.generation, 2, False, replica.salvaged)
    kept = Path(next(path for path in replica.salvaged if "subvolumes" in path))
    assert [(kept / name).read_text() for name in ("srv/data/precious", "srv/data/inner/too", "new/file")] == [*"xyz"]


def test_a_tree_that_is_a_snapshot_with_holes_follows_too(hosts: Hosts) -> None:
    """A snapshot has, where its source has a subvolume, an empty directory into which nothing can be put."""
    _subvolume(hosts.a.live / "srv/data")
    whole = hosts.a.live.with_name("whole")
    hosts.a.live.rename(whole)
    subprocess.run(["btrfs", "-q", "subvolume", "snapshot", whole, hosts.a.live], check=True)
    with pytest.raises(Refused, match="/srv/data is a subvolume"):
        hosts.ship()
    hosts.ship(sync=Sync(exclude=("/srv/data",)))
    hosts.tell("hostB", 2)
    generation.promote(V1, 2, hosts.b.vservers)
    generation.demote(V1, 2, hosts.a.vservers)
    plant(hosts.b.live, {"srv/data/precious": "B"})
    hosts.ship(2, source=hosts.b, target=hosts.a)
    assert contents(hosts.a.replica) == contents(hosts.b.live)
