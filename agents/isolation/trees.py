"""Directory trees of vservers: btrfs subvolumes where that can be, plain directories elsewhere.

Rule: nothing is ever removed through a mount.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agents.command import CommandFailed, run
from failover.errors import Refused

_SUBVOLUME_INODE = 256  # the root of every btrfs subvolume (BTRFS_FIRST_FREE_OBJECTID)
_TOOL_S = 60.0


def file_system(path: Path) -> str:
    """The type of the file system that holds an existing path: ext2/ext3, btrfs, xfs, tmpfs, …"""
    return run(["stat", "--file-system", "--format=%T", path], timeout_s=_TOOL_S).stdout.decode().strip()


def is_subvolume(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return found.st_ino == _SUBVOLUME_INODE and path.is_dir() and file_system(path) == "btrfs"


def subvolume_or_directory(path: Path) -> None:
    """Make an empty tree root, 0755: a subvolume, so that it can be snapshot, if its parent lies on btrfs."""
    if file_system(path.parent) == "btrfs" and shutil.which("btrfs"):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists already")
        run(["btrfs", "subvolume", "create", path], timeout_s=_TOOL_S)
    else:
        path.mkdir()
    path.chmod(0o755)


def snapshot(tree: Path, to: Path) -> None:
    """A read-only snapshot of a subvolume, at once; subvolumes in it are empty directories there."""
    run(["btrfs", "subvolume", "snapshot", "-r", tree, to], timeout_s=_TOOL_S)


def remove_tree(path: Path) -> None:
    """Remove a tree, subvolumes below it included; one that is not there is fine.

    Raises Refused if something is mounted below it, OSError if the kernel will not have it (immutable files, EBUSY).
    """
    below = mounts_below(path)
    if below:
        raise Refused(f"{path} is not removed: {below[0]} is a mount", hint=f"umount {below[0]}")
    if is_subvolume(path):
        try:
            run(["btrfs", "subvolume", "delete", path], timeout_s=_TOOL_S)
            return
        except CommandFailed:
            pass  # subvolumes below it: rmdir takes an empty one, so file by file does as well
    if os.path.lexists(path):
        shutil.rmtree(path)


def empty_tree(path: Path) -> None:
    """Remove what is in a tree, but not its root."""
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            remove_tree(child)
        else:
            child.unlink()


def mounts_below(path: Path) -> tuple[str, ...]:
    """Every mount at or under `path` that this process sees."""
    root = str(path.parent.resolve() / path.name)
    with Path("/proc/self/mountinfo").open() as lines:
        points = [_unquoted(line.split(" ")[4]) for line in lines]
    return tuple(point for point in points if point == root or point.startswith(root + "/"))


def _unquoted(word: str) -> str:
    """mountinfo writes blanks and backslashes as octal (proc(5))."""
    for octal, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(octal, letter)
    return word
