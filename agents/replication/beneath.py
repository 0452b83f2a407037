"""Walking in a tree whose names an enemy may have chosen.

Rule 1: every component is opened by the descriptor of its parent, and no symlink is ever followed. So no name and no
        symlink, however quickly exchanged, leads out of the tree.
Rule 2: nothing here decides; it opens, lists, removes and copies attributes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from agents.replication.manifest import DIRECTORY, FILE, LINK, ROOT, Entry, text
from failover.errors import Refused

RESERVED = b".failover"  # at the top of a replica: the staging. A vserver's own file of this name is not replicated.
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (FileNotFoundError, NotADirectoryError)
_DEEPEST, _LONGEST = 400, 4000  # rsync and the kernel take paths of up to 4096 bytes
_KINDS = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFREG: FILE,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}
_DIGESTED = ("user.", "trusted.", "security.capability", "system.posix_acl_")


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a directory of ours."""
    descriptor = os.open(path, _DIRECTORY_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def descend(root: int, path: bytes) -> int:
    """A new descriptor of a directory in the tree. Raises OSError; a symlink on the way is NotADirectoryError."""
    here = os.dup(root)
    if path in (ROOT, b""):
        return here
    for part in path.split(b"/"):
        try:
            below = os.open(part, _DIRECTORY_FLAGS, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


class Steps:
    """The parents of many paths, one after the other; neighbours in a sorted list share a descriptor."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path: bytes | None = None
        self._descriptor = -1

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            os.close(self._descriptor)
            self._path = None

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """The descriptor of the parent directory (valid until the next call) and the last component."""
        above, _, name = path.rpartition(b"/")
        if self._path != above:
            self.__exit__()
            self._descriptor = descend(self._root, above)
            self._path = above
        return self._descriptor, name

    def status(self, path: bytes) -> os.stat_result | None:
        """lstat, or None where there is no such path."""
        try:
            parent, name = self.parent(path)
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except _GONE:
            return None


def kind_of(status: os.stat_result) -> str:
    return _KINDS[stat.S_IFMT(status.st_mode)]


def scan(tree: Path, exclude: tuple[str, ...] = (), *, deep: bool = False) -> dict[bytes, Entry]:
    """All that is in a tree, parents first. `deep` adds the digest of xattrs and ACLs.

    Excluded directories are listed but not entered. `/tmp` in `exclude` names one path, `*.log` a name anywhere. What
    vanishes while we look is left out; everything else that cannot be read is an error, because what is left out here
    is deleted on the backups. A subvolume or mount is an error too: it can be neither snapshotted nor renamed into.
    """
    excluded = _Excluded(exclude)
    with opened(tree) as root:
        status = os.fstat(root)
        found = {ROOT: _entry(status, root, b".", deep)}
        pending = [b""]
        while pending:
            above = pending.pop()
            try:
                here = descend(root, above)
            except _GONE:
                continue
            try:
                pending.extend(_list(here, above, status.st_dev, excluded, deep, found))
            finally:
                os.close(here)
    return found


def _list(
    here: int, above: bytes, device: int, excluded: _Excluded, deep: bool, found: dict[bytes, Entry]
) -> Iterator[bytes]:
    """Add what is in one directory to `found`; yields the directories to be entered."""
    with os.scandir(here) as listing:
        for item in listing:
            name = os.fsencode(item.name)
            path = above + b"/" + name if above else name
            if path == RESERVED:
                continue
            try:
                status = item.stat(follow_symlinks=False)
                hidden = excluded(path) if excluded else False
                if hidden and not stat.S_ISDIR(status.st_mode):
                    continue
                found[path] = _entry(status, here, name, deep)
            except _GONE:
                continue
            if stat.S_ISDIR(status.st_mode) and not hidden:
                if status.st_dev != device:
                    raise Refused(
                        f"/{text(path)} is a subvolume or mount of its own: it is not replicated",
                        hint="replace it by a directory, or exclude it",
                    )
                if len(path) > _LONGEST or path.count(b"/") > _DEEPEST:
                    raise Refused(f"a path is nested too deeply to be replicated: {text(path[:60])!r}…")
                yield path


def _entry(status: os.stat_result, parent: int, name: bytes, deep: bool) -> Entry:
    kind = kind_of(status)
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        device=status.st_rdev if kind in "cb" else 0,
        link=text(os.readlink(name, dir_fd=parent)) if kind == LINK else "",
        xattrs=_digest(parent, name) if deep else "",
        inode=status.st_ino,
        ctime_ns=status.st_ctime_ns,
        links=status.st_nlink,
        blocks=status.st_blocks,
    )


def _digest(parent: int, name: bytes) -> str:
    path = b"/proc/self/fd/%d/%s" % (parent, name)
    names = sorted(key for key in os.listxattr(path, follow_symlinks=False) if key.startswith(_DIGESTED))
    if not names:
        return ""
    digest = hashlib.sha256()
    for key in names:
        value = os.getxattr(path, key, follow_symlinks=False)
        digest.update(b"%s\0%d\0%s" % (os.fsencode(key), len(value), value))
    return digest.hexdigest()[:32]


def foreign(root: int) -> list[bytes]:
    """The subvolumes and mounts inside a tree, and not what is in them; in a snapshot, what stands for a subvolume."""
    device, found, pending = os.fstat(root).st_dev, list[bytes](), [b""]
    while pending:
        above = pending.pop()
        here = descend(root, above)
        try:
            with os.scandir(here) as listing:
                for item in listing:
                    if item.is_dir(follow_symlinks=False):
                        path = os.path.join(above, os.fsencode(item.name))  # noqa: PTH118
                        ours = item.stat(follow_symlinks=False).st_dev == device
                        (pending if ours else found).append(path)
        finally:
            os.close(here)
    return sorted(found)


class _Excluded:
    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._whole = tuple(pattern.strip("/") for pattern in patterns if pattern.startswith("/"))
        self._names = tuple(pattern.strip("/") for pattern in patterns if not pattern.startswith("/"))

    def __bool__(self) -> bool:
        return bool(self._whole or self._names)

    def __call__(self, path: bytes) -> bool:
        whole = text(path)
        name = whole.rpartition("/")[2]
        return any(fnmatchcase(whole, pattern) for pattern in self._whole) or any(
            fnmatchcase(name, pattern) for pattern in self._names
        )


def remove(parent: int, name: bytes) -> None:
    """Remove one name and all that is in it; nothing to remove is fine."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def copy_attributes(source: int, target: int) -> None:
    """Owner, xattrs with ACLs, and mode of one directory to another; in the order that keeps them."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    wanted = {key: os.getxattr(source, key) for key in os.listxattr(source)}
    for key in set(os.listxattr(target)) - wanted.keys():
        os.removexattr(target, key)
    for key, value in wanted.items():
        os.setxattr(target, key, value)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
