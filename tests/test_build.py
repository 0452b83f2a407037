"""Building trees: by every method, and what is left behind when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from agents.isolation import archive, tools, trees
from agents.isolation.build import Busybox, Say, Tar, build, sweep
from failover.errors import BadInput, FailoverError, Refused, Unsafe

pytestmark = pytest.mark.needs("root", "busybox")

ROOT = Path(__file__).parent.parent


def left(vservers: Path) -> list[str]:
    return sorted(path.name for path in vservers.iterdir()) if vservers.exists() else []


def run(*argv: str | Path) -> str:
    return subprocess.run([*map(str, argv)], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def vservers(tmp_path: Path) -> Path:
    return tmp_path / "vservers"


# --- busybox, names ---------------------------------------------------------------------------------------------------


def test_a_busybox_tree_has_an_init_a_shell_and_its_name(vservers: Path, tmp_path: Path) -> None:
    tree = build("v1", Busybox(), vservers=vservers, cache=tmp_path)
    assert tree == vservers / "v1" and left(vservers) == ["v1"]
    assert run("chroot", tree, "/bin/sh", "-c", "cat /etc/hostname; readlink /sbin/init") == "v1\nbusybox\n"
    assert vservers.stat().st_mode & 0o777 == 0o700 and tree.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "x" * 64])
def test_a_name_that_is_none_is_refused(vservers: Path, name: str) -> None:
    with pytest.raises(BadInput, match="is no name of a vserver"):
        build(name, Busybox(), vservers=vservers)
    assert left(vservers) == []


def test_a_tree_is_never_replaced(vservers: Path) -> None:
    (vservers / "v1").mkdir(parents=True)
    with pytest.raises(Refused, match="exists already"):
        build("v1", Busybox(), vservers=vservers)
    assert left(vservers) == ["v1"] and left(vservers / "v1") == []


# --- archives ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A small system with everything in it that is easily lost on the way."""
    tree = build("system", Busybox(), vservers=tmp_path / "origin", cache=tmp_path)
    odd = tree / "a b -> c"
    odd.write_text("x")
    os.chown(odd, 4711, 4712)
    os.link(odd, tree / "hard link")
    (tree / "new\nline").symlink_to("a b -> c")
    os.setxattr(odd, "user.colour", b"blue")
    run("setfacl", "--modify", "u:1234:rw", odd)
    os.mknod(tree / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    (tree / "bin/busybox").chmod(0o4755)
    return tree


def described(tree: Path) -> str:
    """Everything about a tree that must survive, but times."""
    lines = run("getfacl", "--numeric", "--recursive", "--absolute-names", tree).replace(str(tree), "TREE")
    found = []
    for path in sorted(tree.rglob("*")):
        seen = path.lstat()
        attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in _attributes(path)}
        link = path.readlink() if path.is_symlink() else ""
        size = 0 if path.is_dir() else seen.st_size
        found.append(
            f"{path.relative_to(tree)} {seen.st_mode:o} {seen.st_uid} {seen.st_nlink} {size} {link} {attributes}"
        )
    return lines + "\n".join(found)


def _attributes(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


@pytest.mark.parametrize(("kind", "option"), [("tar", ""), ("gz", "--gzip"), ("xz", "--xz"), ("zst", "--zstd")])
def test_a_tar_comes_out_as_it_went_in(system: Path, vservers: Path, tmp_path: Path, kind: str, option: str) -> None:
    made = tmp_path / f"system.{kind}"
    options = ["--numeric-owner", "--xattrs", "--acls", *([option] if option else [])]
    run("tar", "--create", *options, "--file", made, "--directory", system, ".")
    tree = build("v1", Tar(made), vservers=vservers, cache=tmp_path)
    assert described(tree) == described(system)


def test_what_is_packed_is_unpacked_the_same(system: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    archive.pack(system, tmp_path / "packed.tar.zst")
    archive.unpack(tmp_path / "packed.tar.zst", copy)
    assert described(copy) == described(system)
    assert not list(tmp_path.glob("*.partial"))


@dataclass(frozen=True)
class Entry:
    name: str
    kind: bytes = tarfile.REGTYPE
    to: str = ""


EVIL = {
    "an absolute name": ([Entry("/etc/evil")], "/etc/evil would leave the tree"),
    "a name with ..": ([Entry("etc/../../evil")], "etc/../../evil would leave the tree"),
    "a hard link to a file of the host": ([Entry("x", tarfile.LNKTYPE, "/etc/shadow")], "/etc/shadow would leave"),
    "a hard link upward": ([Entry("x", tarfile.LNKTYPE, "../../etc/shadow")], "would leave the tree"),
    "a file behind a link to the host": (
        [Entry("out", tarfile.SYMTYPE, "/tmp"), Entry("out/evil")],
        "out/evil goes through the symbolic link out",
    ),
    "a file behind a link upward": (
        [Entry("./a/out", tarfile.SYMTYPE, "../../.."), Entry("a/out/b/evil")],
        "a/out/b/evil goes through the symbolic link a/out",
    ),
    "a link that comes later": (
        [Entry("out/evil"), Entry("out", tarfile.SYMTYPE, "/tmp")],
        "goes through the symbolic link out",
    ),
}


def packed(path: Path, entries: list[Entry]) -> Path:
    with tarfile.open(path, "w") as out:
        for entry in [Entry("bin/sh"), *entries]:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.size = entry.kind, entry.to, 4 if entry.kind == tarfile.REGTYPE else 0
            out.addfile(info, BytesIO(b"evil"))
    return path


@pytest.mark.parametrize("case", EVIL)
def test_an_archive_that_leads_out_of_the_tree_is_refused(vservers: Path, tmp_path: Path, case: str) -> None:
    entries, says = EVIL[case]
    evil = packed(tmp_path / "evil.tar", entries)
    with pytest.raises(Unsafe) as refused:
        build("v1", Tar(evil), vservers=vservers, cache=tmp_path)
    assert says in refused.value.message and refused.value.hint
    assert left(vservers) == []


@pytest.mark.parametrize("case", EVIL)
def test_even_unchecked_it_does_not_get_out(tmp_path: Path, case: str) -> None:
    cage = tmp_path / "a/b/c"
    cage.mkdir(parents=True)
    evil = packed(tmp_path / "evil.tar", EVIL[case][0])
    with suppress(archive.BrokenArchive):
        archive.unpack(evil, cage)
    outside = [path for path in tmp_path.rglob("evil*") if not path.is_relative_to(cage) and path != evil]
    assert outside == [] and not Path("/tmp/evil").exists() and not Path("/etc/evil").exists()


def test_links_that_point_anywhere_are_kept_as_they_are(vservers: Path, tmp_path: Path) -> None:
    good = packed(tmp_path / "good.tar", [Entry("etc/mtab", tarfile.SYMTYPE, "/proc/mounts")])
    tree = build("v1", Tar(good), vservers=vservers, cache=tmp_path)
    assert (tree / "etc/mtab").readlink() == Path("/proc/mounts")


def torn(system: Path, tmp_path: Path) -> Path:
    whole = tmp_path / "whole.tar.gz"
    run("tar", "--create", "--gzip", "--file", whole, "--directory", system, ".")
    part = tmp_path / "torn.tar.gz"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return part


def no_tar(system: Path, tmp_path: Path) -> Path:
    path = tmp_path / "no.tar"
    path.write_bytes(b"hello" * 1000)
    return path


BAD: dict[str, tuple[Callable[[Path, Path], Path], type[FailoverError], str]] = {
    "one that is not there": (lambda system, tmp_path: tmp_path / "none.tar", BadInput, "none.tar is not there"),
    "a directory": (lambda system, tmp_path: system, BadInput, "is no file"),
    "a torn one": (torn, archive.BrokenArchive, "torn.tar.gz is no complete tar archive"),
    "what is no archive": (no_tar, archive.BrokenArchive, "no.tar is no complete tar archive"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_is_said_in_one_line(system: Path, vservers: Path, tmp_path: Path, case: str) -> None:
    make, error, says = BAD[case]
    with pytest.raises(error) as refused:
        build("v1", Tar(make(system, tmp_path)), vservers=vservers, cache=tmp_path)
    assert says in refused.value.message and "\n" not in refused.value.message
    assert left(vservers) == []


def test_an_archive_of_something_else_is_no_vserver(vservers: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    run("tar", "--create", "--file", other, "--directory", ROOT, "pyproject.toml")
    with pytest.raises(BadInput, match="no root file system"):
        build("v1", Tar(other), vservers=vservers, cache=tmp_path)
    assert left(vservers) == []


# --- no space ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=6m", "none", disk)
    yield disk
    run("umount", disk)


def test_too_little_room_is_said_before_anything_is_made(small_disk: Path) -> None:
    with pytest.raises(Refused, match="MB free, and about"):
        build("v1", Busybox(), vservers=small_disk)
    assert left(small_disk) == []


def test_a_disk_that_gets_full_meanwhile_is_said_and_left_clean(small_disk: Path, tmp_path: Path) -> None:
    crumbs = packed(tmp_path / "crumbs.tar", [Entry(f"crumb{i}") for i in range(3000)])  # a page each on the disk
    with pytest.raises(Refused, match="no space left") as refused:
        build("v1", Tar(crumbs), vservers=small_disk)
    assert refused.value.hint and left(small_disk) == []


# --- killed in the middle ---------------------------------------------------------------------------------------------

SLOW = """
import sys
from dataclasses import dataclass
from pathlib import Path
from agents.isolation import tools
from agents.isolation.build import build

class Slow:
    def room_bytes(self, cache):
        return 0
    def make(self, tree, name, cache, say):
        (tree / "half").write_text("half")
        tools.run(["sh", "-c", 'exec 9> "$0"; while :; do sleep 0.1; done', sys.argv[2]])

build("slow", Slow(), vservers=Path(sys.argv[1]))
"""


@dataclass
class Building:
    """A build in another process, whose tool holds a pipe open: at the pipe's end, the tool is dead."""

    process: subprocess.Popen[bytes]
    pipe: BytesIO

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.pipe.read() == b""  # waits for the tool's end


@pytest.fixture
def building(vservers: Path, tmp_path: Path) -> Iterator[Building]:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(vservers), str(fifo)], cwd=ROOT)
    with fifo.open("rb") as pipe:  # waits for the tool to open it
        yield Building(process, pipe)  # type: ignore[arg-type]
        process.kill()
        process.wait()


def test_what_a_kill_leaves_behind_goes_with_the_next_build(vservers: Path, building: Building) -> None:
    building.kill()
    (half,) = left(vservers)
    assert half.startswith(".building-slow-") and (vservers / half / "half").exists()
    build("v1", Busybox(), vservers=vservers)
    assert left(vservers) == ["v1"]


def test_what_is_being_built_is_left_alone(vservers: Path, building: Building) -> None:
    build("v1", Busybox(), vservers=vservers)
    half, whole = left(vservers)
    assert half.startswith(".building-slow-") and whole == "v1"
    building.kill()
    sweep(vservers)
    assert left(vservers) == ["v1"]


# --- subvolumes and removal -------------------------------------------------------------------------------------------


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    image, disk = tmp_path / "image", tmp_path / "btrfs"
    with image.open("wb") as file:
        file.truncate(160 << 20)
    run("mkfs.btrfs", "--quiet", image)
    disk.mkdir()
    run("mount", "-o", "loop", image, disk)
    yield disk
    run("umount", disk)


@pytest.mark.needs("btrfs")
def test_on_btrfs_a_tree_is_a_subvolume(btrfs: Path) -> None:
    tree = build("v1", Busybox(), vservers=btrfs / "vservers")
    assert trees.is_subvolume(tree) and not trees.is_subvolume(tree / "etc")
    assert left(btrfs / "vservers") == ["v1"]


@pytest.mark.needs("btrfs")
def test_a_failed_build_leaves_no_subvolume(btrfs: Path, tmp_path: Path) -> None:
    with pytest.raises(FailoverError):
        build("v1", Busy("false"), vservers=btrfs)
    assert "path" not in run("btrfs", "subvolume", "list", btrfs)


@pytest.mark.needs("btrfs")
def test_a_tree_is_removed_with_the_subvolumes_in_it(btrfs: Path) -> None:
    tree = build("v1", Busybox(), vservers=btrfs)
    trees.subvolume_or_directory(tree / "machines")
    (tree / "machines/file").write_text("x")
    trees.remove_tree(tree)
    assert left(btrfs) == [] and "path" not in run("btrfs", "subvolume", "list", btrfs)


@pytest.mark.needs("btrfs")
def test_a_snapshot_stands_still_and_can_be_removed(btrfs: Path) -> None:
    tree, still = btrfs / "v1", btrfs / "still"
    trees.subvolume_or_directory(tree)
    (tree / "file").write_text("then")
    trees.snapshot(tree, still)
    (tree / "file").write_text("now")
    assert (still / "file").read_text() == "then"
    with pytest.raises(OSError, match="Read-only"):
        (still / "file").write_text("x")
    trees.remove_tree(still)
    assert left(btrfs) == ["v1"]


def test_elsewhere_it_is_a_directory(tmp_path: Path) -> None:
    trees.subvolume_or_directory(tmp_path / "v1")
    assert (tmp_path / "v1").is_dir() and not trees.is_subvolume(tmp_path / "v1")
    trees.remove_tree(tmp_path / "v1")
    trees.remove_tree(tmp_path / "v1")  # done already
    assert not (tmp_path / "v1").exists()


def test_nothing_is_removed_through_a_mount(tmp_path: Path) -> None:
    tree, precious = tmp_path / "my tree", tmp_path / "precious"
    (tree / "in").mkdir(parents=True)
    precious.mkdir()
    (precious / "data").write_text("x")
    run("mount", "--bind", precious, tree / "in")
    try:
        with pytest.raises(Refused, match="is a mount"):
            trees.remove_tree(tree)
    finally:
        run("umount", tree / "in")
    assert (precious / "data").exists()
    trees.remove_tree(tree)
    assert (precious / "data").exists() and not tree.exists()


# --- tools ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Busy:
    """A method that is one program."""

    program: str

    def room_bytes(self, cache: Path) -> int:
        return 0

    def make(self, tree: Path, name: str, cache: Path, say: Say) -> None:
        tools.run([self.program])


def test_a_tool_that_fails_is_named(vservers: Path) -> None:
    with pytest.raises(FailoverError, match=r"^false ended with 1$"):
        build("v1", Busy("false"), vservers=vservers)
    assert left(vservers) == []


def test_a_tool_sees_the_name_that_it_is_given_and_its_mounts_die_with_it(tmp_path: Path) -> None:
    before = os.uname().nodename
    done = tools.run(["sh", "-c", f"mount -t tmpfs none {tmp_path}; uname -n"], hostname="v1")
    assert done.stdout == b"v1\n" and os.uname().nodename == before
    assert trees.mounts_below(tmp_path) == ()
