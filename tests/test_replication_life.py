"""The life of a replica: crashes at every step, promotion in the middle of a transfer, demotion, salvage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from agents.replication import generation, incoming
from agents.replication.beneath import scan
from agents.replication.incoming import Request
from agents.replication.manifest import Change, different, gone, with_parents
from agents.replication.record import Busy, Place, Record, holding
from agents.replication.rsync import path_list
from failover.errors import FailoverError, Refused, Unsafe
from failover.model import Replica, Sync
from tests.replication_hosts import V1, Hosts, contents, plant, two_hosts

pytestmark = pytest.mark.needs("root", "rsync", "sshd")

FILES = {"etc/passwd": "root", "etc/motd": "hello", "srv/deep/er/data": "one", "bin/tool": "#!tool", "top": "level"}
SLOW = Sync(bandwidth_bytes_s=200_000)


@pytest.fixture(scope="module")
def pair() -> Iterator[Hosts]:
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture
def hosts(pair: Hosts) -> Hosts:
    pair.clear()
    plant(pair.a.live, FILES)
    return pair


# --- a crash at every step --------------------------------------------------------------------------------------------

EFFECTS = ("rename", "unlink", "rmdir", "mkdir", "fchown", "fchmod", "utime", "fsync", "setxattr", "removexattr")


def _dies_at(count: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed before its `count`-th effect on the disk; whether it was."""
    child = os.fork()
    if child == 0:
        left = count

        def deadly(effect: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*args: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return effect(*args, **named)

            return wrapped

        for name in EFFECTS:
            setattr(os, name, deadly(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"exit status {status}"
    return status != 0


def _stage(vservers: Path, source: Path, request: Request) -> bytes:
    """Begin a generation and fill its staging, as a round does; returns the change."""
    place = Place(V1, vservers)
    incoming.begin(request, 0, vservers)
    theirs, mine = scan(place.tree, deep=True), scan(source, deep=True)
    lost = gone(theirs, mine)
    paths = with_parents({*different(theirs, mine), *lost})
    record = place.load()
    change = Change(
        record.generation, record.checksum, 0, True, lost, {path: mine[path] for path in paths if path in mine}
    )
    staging = place.staging(request.epoch, request.generation)
    argv = ["rsync", "-aHAXSI", "--modify-window=-1", "--from0", "--files-from=-", f"{source}/", staging]
    subprocess.run(argv, input=path_list(change.changed), check=True)
    return change.encode()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["rsync", "-aHAX", "--modify-window=-1", f"{source}/", target], check=True)


def _change_much(tree: Path) -> None:
    plant(tree, {"top": "other", "new/dir/file": "x", "etc/passwd": "longer than before"})
    shutil.rmtree(tree / "srv")
    (tree / "srv").write_text("a file now")
    (tree / "etc/motd").unlink()
    (tree / "etc/motd").mkdir()
    (tree / "link").symlink_to("/etc")
    (tree / "alias").hardlink_to(tree / "top")
    (tree / "bin").chmod(0o700)
    os.setxattr(tree / "bin", "user.x", b"y")


def test_killed_at_any_step_of_commit_it_is_the_old_generation_or_the_new_one(tmp_path: Path) -> None:
    source, vservers, saved = tmp_path / "source", tmp_path / "vservers", tmp_path / "saved"
    plant(source, FILES)
    vservers.mkdir()
    first, second = Request(V1, "hostA", 1, 1), Request(V1, "hostA", 1, 2)
    incoming.commit(first, _stage(vservers, source, first), lambda: None, vservers)
    old = contents(source)
    assert contents(vservers / ".replica" / V1 / "tree") == old
    _change_much(source)
    new = contents(source)
    raw = _stage(vservers, source, second)
    _copy(vservers, saved)
    seen, count = [], 0
    while True:
        count += 1
        shutil.rmtree(vservers)
        _copy(saved, vservers)
        killed = _dies_at(count, lambda: incoming.commit(second, raw, lambda: None, vservers))
        generation.recover(V1, vservers)
        replica = generation.replica(V1, vservers)
        assert replica is not None
        assert contents(vservers / ".replica" / V1 / "tree") == (new if replica.generation == 2 else old), count
        seen.append(replica.generation)
        if not killed:
            break
    assert seen == sorted(seen), "once committed, always committed"
    assert set(seen) == {1, 2}
    assert seen.count(2) > 20, "the kills did not reach into the renames"


def test_killed_while_recovering_it_recovers_the_next_time(tmp_path: Path) -> None:
    source, vservers = tmp_path / "source", tmp_path / "vservers"
    plant(source, FILES)
    vservers.mkdir()
    first, second = Request(V1, "hostA", 1, 1), Request(V1, "hostA", 1, 2)
    incoming.commit(first, _stage(vservers, source, first), lambda: None, vservers)
    _change_much(source)
    raw = _stage(vservers, source, second)
    step = 12
    assert _dies_at(step, lambda: incoming.commit(second, raw, lambda: None, vservers))
    while _dies_at(step, lambda: generation.recover(V1, vservers)):
        step += 2
    assert generation.replica(V1, vservers) == Replica(2, 1)
    assert contents(vservers / ".replica" / V1 / "tree") == contents(source)


def _but_for_the_root(tree: Path) -> dict[bytes, tuple[object, ...]]:
    """A crash may cost the time of the tree's own directory, in which .failover comes and goes."""
    return {path: found for path, found in contents(tree).items() if path != b"."}


@pytest.mark.parametrize("work", ["promote", "demote"])
def test_killed_at_any_step_of_a_role_change_it_is_done_the_next_time(tmp_path: Path, work: str) -> None:
    source, vservers = tmp_path / "source", tmp_path / "vservers"
    plant(source, FILES)
    old, count, killed = _but_for_the_root(source), 0, True
    request = Request(V1, "hostA", 1, 1)
    while killed:
        count += 1
        shutil.rmtree(vservers, ignore_errors=True)
        vservers.mkdir()
        incoming.commit(request, _stage(vservers, source, request), lambda: None, vservers)
        if work == "promote":
            killed = _dies_at(count, lambda: generation.promote(V1, 2, vservers))
            assert generation.promote(V1, 2, vservers) == 1
            assert _but_for_the_root(vservers / V1) == old
            assert not (vservers / V1 / ".failover").exists()
        else:
            generation.promote(V1, 2, vservers)
            killed = _dies_at(count, lambda: generation.demote(V1, 3, vservers))
            generation.demote(V1, 3, vservers)
            generation.recover(V1, vservers)
            assert generation.replica(V1, vservers) == Replica(1, 3, diverged=True)
            assert _but_for_the_root(vservers / ".replica" / V1 / "tree") == old
    assert count > 4


def _transfer_pid(hosts: Hosts) -> int:
    """The rsync server of a transfer that has begun to write."""
    place = Place(V1, hosts.b.vservers)
    for _ in range(600):
        if place.transfer.exists() and any(place.inside.glob("*/.big.*")):
            return int(place.transfer.read_text())
        time.sleep(0.05)
    raise TimeoutError("the transfer does not begin")


def _shipping(hosts: Hosts, caught: list[FailoverError]) -> threading.Thread:
    def work() -> None:
        try:
            hosts.ship(sync=SLOW)
        except FailoverError as error:
            caught.append(error)

    (hosts.a.live / "big").write_bytes(os.urandom(20 << 20))
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_killed_transfer_leaves_the_last_generation_and_the_next_round_succeeds(hosts: Hosts) -> None:
    hosts.ship()
    before, caught = contents(hosts.b.replica), list[FailoverError]()
    thread = _shipping(hosts, caught)
    os.killpg(_transfer_pid(hosts), signal.SIGKILL)
    thread.join()
    assert len(caught) == 1
    assert contents(hosts.b.replica) == before
    hosts.ship()
    assert contents(hosts.b.replica) == contents(hosts.a.live)


def test_a_promotion_ends_the_transfer_and_nothing_is_written_after_it(hosts: Hosts) -> None:
    hosts.ship()
    before, caught = contents(hosts.b.replica), list[FailoverError]()
    thread = _shipping(hosts, caught)
    _transfer_pid(hosts)
    hosts.tell("hostB", 2)
    assert generation.promote(V1, 2, hosts.b.vservers) == 1
    with holding(Place(V1, hosts.b.vservers).transfer, 0.0, "its processes are not gone"):
        pass
    assert contents(hosts.b.live) == before
    thread.join()
    assert len(caught) == 1
    assert not hosts.b.replica.exists()
    with pytest.raises(Unsafe, match="epoch 1 of v1 is over"):
        hosts.ship()
    assert contents(hosts.b.live) == before
    assert generation.promote(V1, 2, hosts.b.vservers) == 1, "promotion is idempotent"


def test_a_dead_owner_leaves_nothing_that_disturbs_a_promotion(hosts: Hosts) -> None:
    request = Request(V1, "hostA", 1, 1)
    incoming.begin(request, 0, hosts.b.vservers)
    assert generation.replica(V1, hosts.b.vservers) is None, "what was only begun is no replica"
    with pytest.raises(Refused, match="no complete replica"):
        generation.promote(V1, 2, hosts.b.vservers)


# --- a former owner ---------------------------------------------------------------------------------------------------


def _take_over(hosts: Hosts) -> None:
    """hostA ships, goes on writing, is lost; hostB takes over and writes too; hostA comes back."""
    hosts.ship()
    a, b = hosts.a.live, hosts.b.live
    plant(a, {"top": "only A", "srv/new/file": "only A"})
    os.chown(a / "srv/new/file", 1234, 4321)
    (a / "srv/new/file").chmod(0o640)
    tool = (a / "bin/tool").stat()
    (a / "bin/tool").write_text("#!evil")
    os.utime(a / "bin/tool", ns=(tool.st_atime_ns, tool.st_mtime_ns))
    (a / "etc/motd").unlink()
    hosts.tell("hostB", 2)
    generation.promote(V1, 2, hosts.b.vservers)
    plant(b, {"top": "B", "etc/passwd": "B too"})
    generation.demote(V1, 2, hosts.a.vservers)


def test_a_former_owner_follows_and_only_what_it_had_alone_is_salvaged(hosts: Hosts) -> None:
    _take_over(hosts)
    assert generation.replica(V1, hosts.a.vservers) == Replica(1, 2, diverged=True)
    with pytest.raises(Unsafe, match="left by a former owner"):
        generation.promote(V1, 3, hosts.a.vservers)
    done = hosts.ship(2, source=hosts.b, target=hosts.a)
    assert contents(hosts.a.replica) == contents(hosts.b.live)
    replica = generation.replica(V1, hosts.a.vservers)
    assert replica is not None
    assert (replica.generation, replica.epoch, replica.diverged) == (done.generation, 2, False)
    assert len(replica.salvaged) == 1
    kept = Path(replica.salvaged[0])
    listing = json.loads(kept.with_name(kept.name + ".json").read_text())["items"]
    assert {(item["path"], item["kind"]) for item in listing} == {
        ("top", "f"), ("srv/new", "d"), ("srv/new/file", "f"), ("bin/tool", "f"), ("etc/motd", "deleted"),
    }  # fmt: skip
    assert (kept / "top").read_text() == "only A"
    assert (kept / "bin/tool").read_text() == "#!evil"
    status = (kept / "srv/new/file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o640)
    hosts.ship(2, source=hosts.b, target=hosts.a)
    again = generation.replica(V1, hosts.a.vservers)
    assert again is not None
    assert again.salvaged == replica.salvaged, "salvaged once, and never removed"


def test_without_the_last_manifest_all_that_differs_is_salvaged(hosts: Hosts) -> None:
    _take_over(hosts)
    shutil.rmtree(hosts.a.vservers / ".replica" / V1 / "manifests")
    hosts.ship(2, source=hosts.b, target=hosts.a)
    replica = generation.replica(V1, hosts.a.vservers)
    assert replica is not None
    kept = Path(replica.salvaged[0])
    assert (kept / "etc/passwd").read_text() == "root"
    assert (kept / "top").read_text() == "only A"


def test_a_planned_handover_salvages_nothing_and_goes_back_and_forth(hosts: Hosts) -> None:
    source, target = hosts.a, hosts.b
    for epoch in range(2, 6):
        plant(source.live, {f"from/{source.name}": str(epoch)})
        done = hosts.ship(epoch - 1, source=source, target=target)
        hosts.tell(target.name, epoch)
        before = contents(source.live)
        generation.demote(V1, epoch, source.vservers, whole=done.generation)
        assert generation.promote(V1, epoch, target.vservers) == done.generation
        assert contents(target.live) == before
        source, target = target, source
    hosts.ship(5, source=source, target=target)
    assert contents(target.replica) == contents(source.live)
    replica = generation.replica(V1, target.vservers)
    assert replica is not None
    assert (replica.diverged, replica.salvaged) == (False, ())


def test_a_replica_ahead_of_the_generation_that_was_promoted_keeps_what_is_lost(hosts: Hosts) -> None:
    hosts.ship()
    plant(hosts.a.live, {"top": "second"})
    hosts.ship()
    plant(hosts.a.live, {"top": "another line"})
    Place(V1, hosts.a.vservers).save(Record(1, 2, origin=1, promoted_ns=1))
    hosts.tell("hostA", 2)
    hosts.ship(2)
    replica = generation.replica(V1, hosts.b.vservers)
    assert replica is not None
    assert (Path(replica.salvaged[0]) / "top").read_text() == "second"


def test_a_mount_inside_a_live_tree_is_not_set_aside_with_it(hosts: Hosts) -> None:
    hosts.ship()
    inside = hosts.a.live / "srv/deep"
    subprocess.run(["mount", "-t", "tmpfs", "none", inside], check=True)
    try:
        with pytest.raises(Refused, match="/srv/deep is a mount: it cannot be set aside"):
            generation.demote(V1, 2, hosts.a.vservers)
    finally:
        subprocess.run(["umount", "--lazy", inside], check=True)
    generation.demote(V1, 2, hosts.a.vservers)
    assert (hosts.a.replica / "srv/deep/er/data").read_text() == "one"


def test_a_vservers_own_dot_failover_is_an_ordinary_name_after_demotion(hosts: Hosts) -> None:
    hosts.ship()
    (hosts.a.live / ".failover").symlink_to("/etc")
    generation.demote(V1, 2, hosts.a.vservers)
    inside = hosts.a.replica / ".failover"
    assert inside.is_dir()
    assert not inside.is_symlink()


def test_no_transfer_begins_before_a_promotion_has_renamed_the_replica(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.ship()
    place, rename, tried = Place(V1, hosts.b.vservers), Path.rename, list[Path]()

    def try_and_rename(source: Path, target: Path) -> Path:
        if source == place.tree:
            tried.append(source)
            with pytest.raises(Busy), holding(place.transfer, 0.0, "busy"):
                pass
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", try_and_rename)
    generation.promote(V1, 2, hosts.b.vservers)
    assert tried == [place.tree]


# --- what an agent does at its start, and whenever it looks -----------------------------------------------------------


@pytest.mark.parametrize("lock", ["lock", "transfer"])
def test_recovery_leaves_alone_what_somebody_is_working_on(hosts: Hosts, lock: str) -> None:
    hosts.ship()
    place = Place(V1, hosts.b.vservers)
    staging = place.staging(1, 7)
    staging.mkdir()
    with holding(place.home / lock, 0.0, "busy"):
        generation.recover(V1, hosts.b.vservers)
        assert staging.is_dir()
    generation.recover(V1, hosts.b.vservers)
    assert not staging.exists()


def test_a_disk_that_is_full_while_recovering_is_one_clear_line(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=20", "small", tmp_path], check=True)
    try:
        place = Place(V1, tmp_path)
        place.make_home()
        place.tree.mkdir()
        with suppress(OSError):
            for number in range(20):
                (tmp_path / str(number)).touch()
        with pytest.raises(Refused, match=r"the replica of v1 cannot be put in order \(No space left on device"):
            generation.recover(V1, tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


WHOLE = asdict(Record(1, 1))
DAMAGED = {
    "no JSON": b"\0\0\0\0",
    "not even text": b"\xff\xfe",
    "no record": b"[1, 2]",
    "a field less": b'{"generation": 1}',
    "a field more, of a newer version": json.dumps({**WHOLE, "shards": 3}).encode(),
    "a number that is a word": json.dumps({**WHOLE, "generation": "one"}).encode(),
    "a commit that is none": json.dumps({**WHOLE, "commit": {"generation": [], "epoch": 1, "checksum": ""}}).encode(),
    "no end of brackets": b"[" * 100_000,
}


@pytest.mark.parametrize("policy", DAMAGED)
def test_a_record_that_cannot_be_read_is_one_clear_line(tmp_path: Path, policy: str) -> None:
    place = Place(V1, tmp_path)
    place.tree.mkdir(parents=True)
    (place.home / "record.json").write_bytes(DAMAGED[policy])
    for look in (generation.replica, generation.recover):
        with pytest.raises(FailoverError, match=r"record\.json is damaged, or written by a newer version"):
            look(V1, tmp_path)
