"""Reading a tree as it stands at one moment, where its file system can do that: from a snapshot of its subvolume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.isolation.trees import is_subvolume, remove_tree
from agents.isolation.trees import snapshot as take_snapshot
from failover.errors import FailoverError, Refused

_TIMEOUT_S = 60.0


@contextmanager
def frozen_source(tree: Path, mode: str, snapshot: Path) -> Iterator[tuple[Path, bool]]:
    """The tree as it stands at this moment, and whether it stands still.

    A snapshot where `mode` is "auto" and the tree is a subvolume, else the tree itself. A snapshot that a dead
    round left behind is removed; the caller makes sure that no other round uses the same name.
    """
    if not tree.is_dir() or tree.is_symlink():
        raise Refused(f"there is no tree at {tree}", hint="the replicas are kept as they are; bring the tree back")
    if mode != "auto" or not is_subvolume(tree):
        yield tree, False
        return
    remove_tree(snapshot)
    snapshot.parent.mkdir(mode=0o700, exist_ok=True)
    take_snapshot(tree, snapshot)
    try:
        yield snapshot, True
    finally:
        _discard(snapshot)


def _discard(snapshot: Path) -> None:
    try:
        remove_tree(snapshot)
    except (FailoverError, OSError):  # the next round tries again
        return
