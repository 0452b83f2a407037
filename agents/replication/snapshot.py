"""btrfs subvolumes, where the file system has them: such a tree can be snapshotted; elsewhere it is a directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.command import run
from failover.errors import FailoverError, Refused

_TIMEOUT_S = 60.0
_SUBVOLUME_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: the root of every subvolume


def on_btrfs(path: Path) -> bool:
    done = run(["stat", "--file-system", "--format=%T", path], timeout_s=_TIMEOUT_S)
    return done.stdout.strip() == b"btrfs"


def is_subvolume(path: Path) -> bool:
    try:
        return path.lstat().st_ino == _SUBVOLUME_INODE and path.is_dir() and on_btrfs(path)
    except FileNotFoundError:
        return False


def make_tree(path: Path) -> None:
    """A new, empty tree: a subvolume on btrfs, else a directory."""
    if on_btrfs(path.parent):
        run(["btrfs", "subvolume", "create", path], timeout_s=_TIMEOUT_S)
    else:
        path.mkdir(mode=0o755)


def remove_tree(path: Path) -> None:
    if is_subvolume(path):
        run(["btrfs", "subvolume", "delete", path], timeout_s=_TIMEOUT_S)
    elif path.exists():
        shutil.rmtree(path)


@contextmanager
def frozen_source(tree: Path, mode: str, snapshot: Path) -> Iterator[tuple[Path, bool]]:
    """The tree as it stands at this moment, and whether it stands still.

    A snapshot where `mode` is "auto" and the tree is a subvolume, else the live tree itself. A snapshot that a dead
    round left behind is removed; the caller makes sure that no other round uses the same name.
    """
    if not tree.is_dir() or tree.is_symlink():
        raise Refused(f"there is no tree at {tree}", hint="the replicas are kept as they are; bring the tree back")
    if mode != "auto" or not is_subvolume(tree):
        yield tree, False
        return
    remove_tree(snapshot)
    snapshot.parent.mkdir(mode=0o700, exist_ok=True)
    run(["btrfs", "subvolume", "snapshot", "-r", tree, snapshot], timeout_s=_TIMEOUT_S)
    try:
        yield snapshot, True
    finally:
        _discard(snapshot)


def _discard(snapshot: Path) -> None:
    try:
        remove_tree(snapshot)
    except FailoverError:  # the next round tries again
        return
