"""Moving a complete generation from its staging into the replica.

    1  remove what is gone, from the replica and (vanished while it was read) from the staging
    2  rename, parents first: a new directory moves whole; what stands in the way is removed
    3  of the directories, take over owner, mode and xattrs from the staging, and the times from the change: every
       rename has changed the times of the parents, in the staging too

Rule 1: every step may be repeated: what is no longer in the staging has been moved already. So after a crash the same
        change is applied again from the start, and leads to the same tree.
Rule 2: names are walked as agents/replication/beneath.py says, so no symlink leads out of the replica.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from agents.replication.beneath import Steps, copy_attributes, descend, kind_of, remove
from agents.replication.manifest import DIRECTORY, FILE, ROOT, Change, Entries, Entry, text

_NOT_THERE = (FileNotFoundError, NotADirectoryError)


def missing(tree: int, staging: int, change: Change) -> list[bytes]:
    """What the change speaks of and is neither in the staging nor, being no file, already like that in the replica."""
    found = []
    with Steps(staging) as staged, Steps(tree) as present:
        for path, entry in sorted(change.changed.items()):
            status = staged.status(path)
            if status is not None and _arrived(status, entry, change.still):
                continue
            there = present.status(path)
            if entry.kind == FILE or there is None or not _is_like(there, present, path, entry):
                found.append(path)
    return found


def _arrived(status: os.stat_result, entry: Entry, still: bool) -> bool:
    if kind_of(status) != entry.kind:
        return False
    return not still or entry.kind != FILE or (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)


def _is_like(status: os.stat_result, steps: Steps, path: bytes, entry: Entry) -> bool:
    """rsync does not stage a symlink or a device that the replica already has exactly like that."""
    if kind_of(status) != entry.kind or (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        return False
    if entry.kind == "l":
        parent, name = steps.parent(path)
        return text(os.readlink(name, dir_fd=parent)) == entry.link
    return (status.st_mode & 0o7777) == entry.mode and (entry.kind not in "cb" or status.st_rdev == entry.device)


def apply(tree: int, staging: int, change: Change) -> None:
    """Make the replica what the change says; `tree` and `staging` are directory descriptors."""
    for root in (staging, tree):
        _remove(root, reversed(change.gone))
    _move(tree, staging, sorted(change.changed))
    _settle(tree, staging, change.changed)


def _remove(root: int, paths: Iterable[bytes]) -> None:
    with Steps(root) as steps:
        for path in paths:
            try:
                parent, name = steps.parent(path)
            except _NOT_THERE:
                continue
            remove(parent, name)


def _move(tree: int, staging: int, paths: Iterable[bytes]) -> None:
    with Steps(staging) as staged, Steps(tree) as present:
        for path in paths:
            arrived = staged.status(path)
            if path == ROOT or arrived is None:
                continue
            there = present.status(path)
            if there is not None and kind_of(there) == DIRECTORY == kind_of(arrived):
                continue
            source, name = staged.parent(path)
            target, _ = present.parent(path)
            if there is not None and DIRECTORY in (kind_of(there), kind_of(arrived)):
                remove(target, name)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _settle(tree: int, staging: int, changed: Entries) -> None:
    for path in sorted((path for path, entry in changed.items() if entry.kind == DIRECTORY), key=_depth, reverse=True):
        try:
            target = descend(tree, path)
        except _NOT_THERE:  # it became something else while it was read; the next round brings that
            continue
        try:
            with suppress(*_NOT_THERE):
                source = descend(staging, path)
                try:
                    copy_attributes(source, target)
                finally:
                    os.close(source)
            os.utime(target, ns=(changed[path].mtime_ns, changed[path].mtime_ns))
        finally:
            os.close(target)


def _depth(path: bytes) -> int:
    return 0 if path == ROOT else path.count(b"/") + 1
