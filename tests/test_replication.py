"""Rounds over a real sshd with real rsync: a backup holds one complete generation, and it is exactly the source."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agents.replication import generation, rsync
from agents.replication.channel import Channel
from failover.errors import Denied, FailoverError, Refused, Unreachable, Unsafe
from failover.model import Replica, Sync
from tests.replication_hosts import V1, Hosts, contents, plant, two_hosts

pytestmark = pytest.mark.needs("root", "rsync", "sshd")

FILES = {"etc/passwd": "root", "etc/motd": "hello", "srv/deep/er/data": "one", "bin/tool": "#!", "top": "level"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Hosts]:
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture
def hosts(pair: Hosts) -> Hosts:
    pair.clear()
    plant(pair.a.live, FILES)
    return pair


def same(hosts: Hosts) -> None:
    assert contents(hosts.b.replica) == contents(hosts.a.live)


def _capability(path: Path) -> None:
    value = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep, version 2
    os.setxattr(path, "security.capability", value)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")


def _rewrite(path: Path) -> None:
    """Other content, the same size and times: only the ctime tells."""
    before = path.stat()
    path.write_text("x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _symlink_for_directory(tree: Path) -> None:
    shutil.rmtree(tree / "srv")
    (tree / "srv").symlink_to("/tmp")


def _directory_for_symlink(tree: Path) -> None:
    _symlink_for_directory(tree)
    (tree / "srv").unlink()
    plant(tree, {"srv/deep/er/data": "back"})


def _evil_names(tree: Path) -> None:
    for name in (
        b"new\nline",
        b"\xff\xfe not utf-8",
        b"-rf",
        b"--delete",
        b"#comment",
        b";x",
        b" lead",
        b"*",
        b"a\\b",
        b"'q\"",
    ):
        (tree / os.fsdecode(name)).write_bytes(b"evil")
        (tree / os.fsdecode(name + b".d")).mkdir()
        (tree / os.fsdecode(name + b".d") / os.fsdecode(name)).write_bytes(b"evil")


def _socket(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tree / "socket"))


def _acl(tree: Path) -> None:
    # user::rw- user:1234:r-- group::r-- mask::r-- other::---
    entries = ((1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    packed = b"\x02\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, bits, who in entries
    )
    os.setxattr(tree / "top", "system.posix_acl_access", packed)
    os.setxattr(tree / "srv", "system.posix_acl_default", packed)


# name of the policy -> what happens to the live tree between two rounds
CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file arrives": lambda tree: plant(tree, {"srv/new": "x"}),
    "a changed file arrives": lambda tree: plant(tree, {"top": "other"}),
    "a rewrite with the same size and time arrives": lambda tree: _rewrite(tree / "srv/deep/er/data"),
    "a deleted file is deleted": lambda tree: (tree / "etc/motd").unlink(),
    "a deleted directory is deleted": lambda tree: shutil.rmtree(tree / "srv"),
    "a renamed directory moves": lambda tree: (tree / "srv").rename(tree / "opt"),
    "a swapped pair of files is swapped": lambda tree: (
        (tree / "top").rename(tree / "t"),
        (tree / "bin/tool").rename(tree / "top"),
        (tree / "t").rename(tree / "bin/tool"),
    ),
    "a new mode arrives": lambda tree: (tree / "bin/tool").chmod(0o4755),
    "a new owner of a file arrives": lambda tree: os.chown(tree / "top", 1234, 4321),
    "a new owner of a directory arrives": lambda tree: os.chown(tree / "srv/deep", 1234, 4321),
    "a new time of a directory arrives": lambda tree: os.utime(tree / "srv/deep", ns=(1, 1_234_567_891)),
    "an extended attribute of a file arrives": lambda tree: os.setxattr(tree / "top", "user.colour", b"red"),
    "an extended attribute of a directory arrives": lambda tree: os.setxattr(tree / "srv", "user.colour", b"red"),
    "access control lists arrive": _acl,
    "file capabilities arrive": lambda tree: _capability(tree / "bin/tool"),
    "a hard link stays one file": lambda tree: (tree / "srv/link").hardlink_to(tree / "top"),
    "a sparse file arrives": lambda tree: _sparse(tree / "sparse"),
    "a symlink arrives as a symlink": lambda tree: (tree / "link").symlink_to("/etc/shadow"),
    "a fifo arrives": lambda tree: os.mkfifo(tree / "fifo"),
    "a socket arrives": _socket,
    "devices arrive": lambda tree: (
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3)),
        os.mknod(tree / "disk", 0o60600, os.makedev(7, 1)),
    ),
    "evil names are only names": _evil_names,
    "an empty directory arrives": lambda tree: (tree / "empty/er").mkdir(parents=True),
    "a directory that becomes a file": lambda tree: (shutil.rmtree(tree / "srv"), plant(tree, {"srv": "now a file"})),
    "a file that becomes a directory": lambda tree: ((tree / "top").unlink(), plant(tree, {"top/in": "it"})),
    "a directory that becomes a symlink": _symlink_for_directory,
    "a directory that became a symlink and again one": _directory_for_symlink,
}  # fmt: skip


Contents = dict[bytes, tuple[object, ...]]


@pytest.fixture(scope="module")
def changed(pair: Hosts) -> dict[str, tuple[Contents, Contents, Contents]]:
    """Each policy in a directory of its own, all in one round: before, wanted, arrived."""
    pair.clear()
    places = {policy: f"case{number}" for number, policy in enumerate(CHANGES)}
    for place in places.values():
        plant(pair.a.live / place, FILES)
    pair.ship()
    before = {policy: contents(pair.b.replica / place) for policy, place in places.items()}
    for policy, place in places.items():
        CHANGES[policy](pair.a.live / place)
    done = pair.ship()
    assert generation.replica(V1, pair.b.vservers) == Replica(done.generation, 1)
    same(pair)
    return {
        policy: (before[policy], contents(pair.a.live / place), contents(pair.b.replica / place))
        for policy, place in places.items()
    }


@pytest.mark.parametrize("policy", CHANGES)
def test_a_change(changed: dict[str, tuple[Contents, Contents, Contents]], policy: str) -> None:
    before, wanted, arrived = changed[policy]
    assert before != wanted, "the test changes nothing"
    assert arrived == wanted


def test_the_attributes_of_the_tree_itself_arrive(hosts: Hosts) -> None:
    hosts.ship()
    hosts.a.live.chmod(0o751)
    os.setxattr(hosts.a.live, "user.colour", b"red")
    hosts.ship()
    same(hosts)


def test_all_changes_one_after_the_other_and_at_once(hosts: Hosts) -> None:
    hosts.ship()
    for policy in (
        "a hard link stays one file",
        "evil names are only names",
        "access control lists arrive",
        "devices arrive",
    ):
        CHANGES[policy](hosts.a.live)
    hosts.ship()
    same(hosts)
    (hosts.a.live / "top").write_text("both names")
    (hosts.a.live / "srv/deep").rename(hosts.a.live / "deep")
    hosts.ship()
    same(hosts)
    (hosts.a.live / "srv/link").unlink()
    plant(hosts.a.live, {"srv/link": "alone"})
    hosts.ship()
    same(hosts)


def test_a_round_without_changes_makes_no_generation_but_a_younger_age(hosts: Hosts) -> None:
    first = hosts.ship()
    os.sync()
    second = hosts.ship()  # files as young as the scan are sent once more
    third = hosts.ship()
    assert third.generation == second.generation
    assert third.at > second.at > first.at


def test_a_replica_that_the_owner_does_not_know_is_compared_and_brought_in_step(hosts: Hosts) -> None:
    CHANGES["a hard link stays one file"](hosts.a.live)
    hosts.ship()
    shutil.rmtree(hosts.a.vservers / ".replica" / V1 / "manifests")
    plant(hosts.b.replica, {"etc/foreign": "x", "top": "other"})
    os.setxattr(hosts.b.replica / "bin", "user.foreign", b"x")
    _acl(hosts.a.live)
    hosts.ship()
    same(hosts)


def test_hard_links_are_restored_on_a_replica_that_lost_them(hosts: Hosts) -> None:
    CHANGES["a hard link stays one file"](hosts.a.live)
    hosts.ship()
    shutil.rmtree(hosts.a.vservers / ".replica" / V1 / "manifests")
    link = hosts.b.replica / "srv/link"
    shutil.copy2(link, hosts.b.replica / "copy")
    (hosts.b.replica / "copy").rename(link)
    hosts.ship()
    same(hosts)


def test_excluded_directories_arrive_empty(hosts: Hosts) -> None:
    plant(hosts.a.live, {"tmp/x": "x", "var/cache/y": "y", "var/lib/z.tmp": "z", "var/lib/z": "z"})
    hosts.ship(sync=Sync(exclude=("/tmp", "/var/cache", "*.tmp")))
    assert (hosts.b.replica / "tmp").is_dir()
    assert not list((hosts.b.replica / "tmp").iterdir())
    assert not list((hosts.b.replica / "var/cache").iterdir())
    assert sorted(path.name for path in (hosts.b.replica / "var/lib").iterdir()) == ["z"]


CHURN = """
import os, sys, time
for number in range(10**9):
    new, old = f"{sys.argv[1]}/t{number % 40}", f"{sys.argv[1]}/{number % 30}"
    open(new, "w").write("y" * (number % 9999))
    os.rename(new, old)
    if number % 7 == 0:
        os.unlink(old)
    time.sleep(0.001)
"""


def test_a_running_vserver_may_remove_files_while_they_are_read(hosts: Hosts) -> None:
    for number in range(30):
        plant(hosts.a.live, {f"churn/{number}": "x" * 10_000})
    churn = subprocess.Popen([sys.executable, "-c", CHURN, hosts.a.live / "churn"])
    try:
        for _ in range(3):
            try:
                hosts.ship(final=False)
            except Refused as error:  # on a busy machine a file may be another one at each of the attempts
                assert "the next round tries again" in str(error)
    finally:
        churn.kill()
        churn.wait()
    hosts.ship()
    same(hosts)


# --- what is refused --------------------------------------------------------------------------------------------------


def _not_told(hosts: Hosts) -> None:
    hosts.b.told_file.unlink()


def _lose_tree(hosts: Hosts) -> None:
    shutil.rmtree(hosts.a.live)


def _mount(hosts: Hosts) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", hosts.a.live / "srv/deep"], check=True)


def _empty_tree(hosts: Hosts) -> None:
    _lose_tree(hosts)
    hosts.a.live.mkdir()


REFUSED: dict[str, tuple[Callable[[Hosts], object], int, type[FailoverError], str]] = {
    "a host that does not own it": (lambda hosts: hosts.b.told("hostC", 1), 1, Unsafe, "v1 belongs to hostC"),
    "an epoch that is over": (lambda hosts: hosts.b.told("hostA", 9), 1, Unsafe, "epoch 1 of v1 is over"),
    "an epoch that this host has not heard of": (lambda hosts: None, 2, Refused, "not yet been told of epoch 2"),
    "a host that was told nothing": (_not_told, 1, Refused, "not yet been told"),
    "a backup that has the live tree": (lambda hosts: hosts.b.live.mkdir(), 1, Unsafe, "has its live tree here"),
    "a tree with a mount in it": (_mount, 1, Refused, "/srv/deep is a subvolume or mount of its own: it is not repl"),
    "a source that vanished": (_lose_tree, 1, Refused, "there is no tree at"),
    "a source that is empty": (_empty_tree, 1, Refused, "the tree of v1 is empty"),
}


@pytest.mark.parametrize("policy", REFUSED)
def test_refused(hosts: Hosts, policy: str) -> None:
    hosts.ship()
    before, whole = contents(hosts.b.replica), generation.replica(V1, hosts.b.vservers)
    spoil, epoch, error, words = REFUSED[policy]
    plant(hosts.a.live, {"top": "next"})
    spoil(hosts)
    try:
        with pytest.raises(error, match=words):
            hosts.ship(epoch)
    finally:
        if (hosts.a.live / "srv/deep").is_mount():
            subprocess.run(["umount", "--lazy", hosts.a.live / "srv/deep"], check=True)
    if not hosts.b.live.exists():
        assert generation.replica(V1, hosts.b.vservers) == whole
        assert contents(hosts.b.replica) == before


SERVER = "rsync --server -lHogDtpAXIRSe.LsfxCIvu --timeout=20 -@-1 --numeric-ids"
COMMANDS = {
    "no command": "",
    "a shell": "bash -i",
    "a command": "id; touch {base}/pwned",
    "a verb with more": "state v1 1; touch {base}/pwned",
    "a name that is a path": "state ../../etc 1",
    "a scan of another place": "scan .. 1",
    "a sending rsync": "rsync --server --sender -lHogDtpAXIRSe.LsfxCIvu --timeout=20 -@-1 --numeric-ids . v1/1/1/",
    "another destination": SERVER + " . {base}/",
    "a destination that climbs": SERVER + " . v1/1/1/../../..",
    "a staging that was not begun": SERVER + " . v1/1/7/",
    "more options": SERVER + " --log-file={base}/p . v1/1/1/",
    "a deleting rsync": "rsync --server -lHogDtprAXIRSe.LsfxCIvu --delete --timeout=20 -@-1 --numeric-ids . v1/1/1/",
    "an unfinished quote": "state 'v1",
}


@pytest.fixture(scope="module")
def shipped(pair: Hosts) -> Hosts:
    pair.clear()
    plant(pair.a.live, FILES)
    pair.ship()
    return pair


@pytest.mark.parametrize("policy", COMMANDS)
def test_the_forced_command_refuses(shipped: Hosts, policy: str) -> None:
    hosts, before = shipped, contents(shipped.b.replica)
    done = hosts.ssh(hosts.a, hosts.b, COMMANDS[policy].format(base=hosts.base))
    assert done.returncode in {error.exit_code for error in (FailoverError, Denied, Refused, Unsafe)} | {2}
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not any((hosts.base / name).exists() for name in ("p", "pwned"))
    assert contents(hosts.b.replica) == before


def test_a_key_opens_no_forwarding(shipped: Hosts) -> None:
    done = shipped.ssh(shipped.a, shipped.b, "state v1 1", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22")
    assert done.returncode == 255


def test_a_directory_exchanged_for_a_symlink_while_it_is_read_gives_nothing_of_the_host_away(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = hosts.base / "secret"
    plant(secret, {"data": "the host's own"})
    plant(hosts.a.live, {"trap/data": "x"})
    send = Channel.send

    def exchange_and_send(*args: Any, **named: Any) -> Any:
        shutil.rmtree(hosts.a.live / "trap")
        (hosts.a.live / "trap").symlink_to(secret)
        monkeypatch.undo()
        return send(*args, **named)

    monkeypatch.setattr(Channel, "send", exchange_and_send)
    with suppress(FailoverError):
        hosts.ship(final=False)
    found = [path for path in hosts.b.vservers.rglob("data") if "the host's own" in path.read_text()]
    assert not found
    hosts.ship()
    same(hosts)


# --- the backup's troubles --------------------------------------------------------------------------------------------


def test_a_backup_without_sshd_is_one_clear_line(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "port", 1)
    with pytest.raises(Unreachable, match=r"hostB cannot be reached .*Connection refused"):
        hosts.ship()


def test_a_dead_shared_connection_is_replaced(hosts: Hosts) -> None:
    hosts.ship()
    channel = hosts.channel(hosts.a, hosts.b)
    said = subprocess.run(
        [*channel.ssh(), "-O", "check", channel.destination], capture_output=True, text=True, check=True
    )
    master = int(said.stderr.partition("pid=")[2].partition(")")[0])
    os.kill(master, 9)
    plant(hosts.a.live, {"top": "next"})
    hosts.ship()
    same(hosts)


def test_no_space_on_the_backup_leaves_the_last_generation_whole(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", tmp_path], check=True)
    try:
        with two_hosts(backup_vservers=tmp_path) as hosts:
            hosts.a.live.mkdir()
            plant(hosts.a.live, FILES)
            hosts.ship()
            before = contents(hosts.b.replica)
            (hosts.a.live / "big").write_bytes(os.urandom(4 << 20))
            with pytest.raises(Refused, match=r"hostB: no space left for v1: .* needs 4\.\d MB"):
                hosts.ship()
            (hosts.a.live / "big").unlink()
            _sparse(hosts.a.live / "sparse")  # needs little to begin with, and grows while it is sent
            (hosts.a.live / "sparse").write_bytes(os.urandom(1 << 20))
            filler = tmp_path / "filler"
            filler.write_bytes(b"x" * (1 << 19))
            plant(hosts.a.live, {f"many/{number}": "x" for number in range(1500)})
            with pytest.raises(Refused, match="no space left"):
                hosts.ship()
            assert contents(hosts.b.replica) == before
            filler.unlink()
            shutil.rmtree(hosts.a.live / "many")
            hosts.ship()
            same(hosts)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_an_answer_that_is_none_is_one_clear_line(hosts: Hosts) -> None:
    """As a shell's start-up files or a sshd of somebody else's would give it."""
    authorized = hosts.base / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(re.sub(r'command=".*?",', 'command="echo welcome",', before))
    try:
        hosts.channel(hosts.a, hosts.b).reset()
        with pytest.raises(FailoverError, match=r"hostB answered what we do not understand: b'welcome"):
            hosts.ship()
    finally:
        authorized.write_text(before)
        hosts.channel(hosts.a, hosts.b).reset()


def test_a_read_only_disk_of_the_owner_is_one_clear_line(hosts: Hosts) -> None:
    subprocess.run(["mount", "--bind", hosts.a.vservers, hosts.a.vservers], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", hosts.a.vservers], check=True)
        with pytest.raises(FailoverError, match=r"v1 cannot be sent to hostB; .* \(Read-only file system"):
            hosts.ship()
    finally:
        subprocess.run(["umount", "--lazy", hosts.a.vservers], check=True)


VERSIONS = {"3.2.7": False, "3.4.1": False, "v3.5.0": True, "3.5.0pre1": True, "3.10.2": True, "4.0.0": True}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_rsync_that_does_not_confine_its_sender_is_refused(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (tmp_path / "rsync").write_text(f"#!/bin/sh\necho 'rsync  version {version}  protocol version 32'\n")
    (tmp_path / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    rsync.check_version.cache_clear()
    try:
        if VERSIONS[version]:
            rsync.check_version()
        else:
            with pytest.raises(Refused, match=rf"rsync {version} is too old: 3\.5 is needed"):
                hosts.ship()
            assert not hosts.b.replica.exists()
    finally:
        rsync.check_version.cache_clear()
