"""What only a former owner had, kept aside before its tree follows the new owner.

    salvage/EPOCH-TIME/        copies with their paths, owners, modes, ACLs
    salvage/EPOCH-TIME.json    the list: path, kind, size, mtime

Rule 1: it is complete and flushed before the commit record is written, that is before anything is overwritten.
Rule 2: it takes what the new generation replaces or deletes and what was changed here since the last generation that
        the new owner had acknowledged. Where that generation's manifest is not at hand, it takes all that is replaced.
Rule 3: a salvage is never deleted by us, and never replicated.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agents.command import run
from agents.replication import rsync
from agents.replication.beneath import scan
from agents.replication.manifest import DIRECTORY, ROOT, Change, Entries, Entry, Manifest, text, touched
from agents.replication.record import Place, flush_directory, write

_COPY_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Unshipped:
    """What a tree had of its own when its host lost it: paths that were written, and paths that were deleted."""

    entries: Entries
    written: frozenset[bytes]
    deleted: frozenset[bytes]


def unshipped(place: Place, owner: str) -> Unshipped:
    """Compare a diverged tree with the last manifest that `owner` has acknowledged to this host."""
    known = acknowledged(place, owner)
    if known is None:
        here = scan(place.tree)
        return Unshipped(here, frozenset(here), frozenset())
    here = scan(place.tree, known.exclude)
    written = {path for path in touched(known.entries, here) if _is_news(known.entries.get(path), here[path])}
    return Unshipped(here, frozenset(written), frozenset(path for path in known.entries if path not in here))


def acknowledged(place: Place, owner: str) -> Manifest | None:
    try:
        return Manifest.decode((place.manifests / owner).read_bytes())
    except FileNotFoundError:
        return None


def _is_news(before: Entry | None, now: Entry) -> bool:
    """A directory is not news because something in it is."""
    if before is None or now.kind != DIRECTORY or before.kind != DIRECTORY:
        return True
    return (before.mode, before.uid, before.gid) != (now.mode, now.uid, now.gid)


def keep(place: Place, owner: str, epoch: int, change: Change, flush: Callable[[Path], None]) -> Path | None:
    """Keep aside what the change would replace or delete; the directory, or None when there is nothing to keep."""
    own = unshipped(place, owner)
    lost = set(change.gone) | change.changed.keys()
    written = sorted(path for path in own.written & lost if path != ROOT)
    deleted = sorted(own.deleted & change.changed.keys())
    if not written and not deleted:
        return None
    name = f"{epoch}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    partial, whole = place.salvage / f"{name}.partial", place.salvage / name
    place.salvage.mkdir(mode=0o700, exist_ok=True)
    for leftover in place.salvage.glob("*.partial"):
        shutil.rmtree(leftover)
    partial.mkdir(mode=0o700)
    run(rsync.copy(place.tree, partial), timeout_s=_COPY_TIMEOUT_S, stdin=rsync.path_list(written))
    flush(partial)
    items = [_item(path, own.entries[path], own.entries[path].kind) for path in written]
    items += [_item(path, change.changed[path], "deleted") for path in deleted]
    listing = {"vserver": place.name, "owner": owner, "epoch": epoch, "items": items}
    write(place.salvage / f"{name}.json", json.dumps(listing, indent=1).encode())
    partial.rename(whole)
    flush_directory(place.salvage)
    return whole


def salvaged(place: Place) -> tuple[str, ...]:
    """The directories in which something is kept, oldest first."""
    try:
        return tuple(sorted(str(path) for path in place.salvage.iterdir() if path.is_dir() and not path.suffix))
    except FileNotFoundError:
        return ()


def _item(path: bytes, entry: Entry, kind: str) -> dict[str, str | int | float]:
    return {"path": text(path), "kind": kind, "size": entry.size, "mtime": entry.mtime_ns / 1e9}
