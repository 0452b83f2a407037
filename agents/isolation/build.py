"""Building the tree of a new vserver: under a passing name, then flushed, then renamed.

    /vservers/.building-v1-8e2c01aa   locked by its builder ── make ── flush ── rename ──▶ /vservers/v1

Rule 1: what bears a vserver's name is complete. Whatever fails, nothing is left behind; what a kill left behind is
        removed by the next build of anything, because nobody holds its lock.
Rule 2: what can be known before is checked before: the name, the room, the archive.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agents.isolation import archive, tools, trees
from agents.isolation.busybox import Busybox
from agents.isolation.debian import Debian, Say
from agents.isolation.record import check_name
from failover.errors import Refused

VSERVERS = Path("/vservers")
CACHE = Path("/var/cache/failover")

_BUILDING = ".building-"


class Method(Protocol):
    """How a tree comes about."""

    def room_bytes(self, cache: Path) -> int:
        """Roughly what it will take on the disk. Raises if it is clear already that it cannot be made."""
        ...

    def make(self, tree: Path, name: str, cache: Path, say: Say) -> None:
        """Fill an empty directory."""
        ...


@dataclass(frozen=True)
class Tar:
    """An archive of a whole system: .tar, plain or compressed by gzip, bzip2, xz or zstd."""

    path: Path

    def room_bytes(self, cache: Path) -> int:
        del cache
        members = archive.members(self.path)
        archive.check(members, self.path)
        return sum(member.bytes for member in members)

    def make(self, tree: Path, name: str, cache: Path, say: Say) -> None:
        del name, cache
        say(f"unpacking {self.path}")
        archive.unpack(self.path, tree)


def build(
    name: str, method: Method, *, vservers: Path = VSERVERS, cache: Path = CACHE, say: Say = lambda line: None
) -> Path:
    """Make /vservers/NAME and return it. Raises FailoverError, and then nothing is left behind."""
    target = vservers / check_name(name)
    with tools.in_words(f"{target} cannot be built"):
        vservers.mkdir(mode=0o700, parents=True, exist_ok=True)
        vservers.chmod(0o700)  # a setuid file of a vserver is nobody's on the host
        if os.path.lexists(target):
            raise Refused(f"{target} exists already", hint="choose another name, or move it away first")
        sweep(vservers)
        _check_room(vservers, method.room_bytes(cache))
        with _unfinished(vservers, name) as tree:
            method.make(tree, name, cache, say)
            tools.run(["sync", "--file-system", tree])
            tree.rename(target)
            _flush(vservers)
    say(f"{target} is ready")
    return target


def sweep(vservers: Path = VSERVERS) -> None:
    """Remove what killed builds have left behind, and leave alone what is being built."""
    for leftover in vservers.glob(f"{_BUILDING}*"):
        lock = _locked(leftover, wait=False)
        if lock is not None:
            try:
                trees.remove_tree(leftover)
            finally:
                os.close(lock)


@contextmanager
def _unfinished(vservers: Path, name: str) -> Iterator[Path]:
    """A new directory, locked; removed at the end unless it has got its final name."""
    lock = None
    while lock is None:  # another build may sweep it away before it is locked
        tree = vservers / f"{_BUILDING}{name}-{secrets.token_hex(4)}"
        trees.subvolume_or_directory(tree)
        lock = _locked(tree, wait=True)
    try:
        yield tree
    finally:
        trees.remove_tree(tree)
        os.close(lock)


def _locked(directory: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock; None if somebody else holds it, or the directory is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if directory.exists() and os.path.samestat(directory.stat(), os.fstat(descriptor)):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _check_room(vservers: Path, needed: int) -> None:
    free = shutil.disk_usage(vservers).free
    if free < needed:
        raise Refused(
            f"{vservers} has {free >> 20} MB free, and about {needed >> 20} MB are needed",
            hint="make room there, then build again",
        )


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["CACHE", "VSERVERS", "Busybox", "Debian", "Method", "Say", "Tar", "build", "sweep"]
