"""What a tree holds, as data: manifests, what differs between two of them, and the change to the next generation.

Rule 1: a path is bytes, relative to the tree; the tree itself is b".". Sorted, a directory comes before what is in it.
Rule 2: two manifests of one tree are compared by inode and ctime, which no program in the tree can forge (`touched`).
        Manifests of two trees are compared by all that a copy must agree in (`different`).
Rule 3: hard links travel together: if one name of an inode is listed, all of its names are.
Rule 4: a ctime as young as the scan proves nothing, because a second write within one tick of the kernel's clock leaves
        it unchanged. `settled` forgets such times, so that the next round sends these files once more.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from failover.errors import BadInput

ROOT = b"."
DIRECTORY, FILE, LINK = "d", "f", "l"
TICK_NS = 20_000_000  # twice the longest tick of the kernel's coarse clock (100 Hz)


class Entry(NamedTuple):
    """One name in a tree. `xattrs` is a digest of extended attributes and ACLs, empty where nobody asked for it."""

    kind: str  # d f l, p(ipe) s(ocket) c(haracter device) b(lock device)
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    device: int
    link: str
    xattrs: str
    inode: int
    ctime_ns: int
    links: int
    blocks: int


Entries = Mapping[bytes, Entry]


@dataclass(frozen=True)
class Manifest:
    """What the owner knows of one backup: generation, checksum of the change that made it, and the source's entries."""

    generation: int
    epoch: int
    checksum: str
    entries: Entries
    exclude: tuple[str, ...] = ()

    def encode(self) -> bytes:
        return _pack({**_head(self), "entries": _rows(self.entries)})

    @classmethod
    def decode(cls, raw: bytes) -> Manifest:
        data = _unpack(raw)
        try:
            return cls(
                generation=int(data["generation"]),
                epoch=int(data["epoch"]),
                checksum=str(data["checksum"]),
                entries=_entries(data["entries"]),
                exclude=tuple(data["exclude"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput("a manifest cannot be read") from error


@dataclass(frozen=True)
class Change:
    """All that turns one generation of a replica into the next.

    `base` and `base_checksum` name the state of the replica that it was computed against; `origin` is the generation
    from which the sender's tree was once promoted; `still` says that nobody wrote to the source meanwhile.
    """

    base: int
    base_checksum: str
    origin: int
    still: bool
    gone: tuple[bytes, ...] = ()
    changed: Entries = field(default_factory=dict)

    def encode(self) -> bytes:
        head = {"base": self.base, "base_checksum": self.base_checksum, "origin": self.origin, "still": self.still}
        return _pack({**head, "gone": [text(path) for path in self.gone], "changed": _rows(self.changed)})

    @classmethod
    def decode(cls, raw: bytes) -> Change:
        data = _unpack(raw)
        try:
            change = cls(
                base=int(data["base"]),
                base_checksum=str(data["base_checksum"]),
                origin=int(data["origin"]),
                still=bool(data["still"]),
                gone=tuple(path_of(name) for name in data["gone"]),
                changed=_entries(data["changed"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput("a change cannot be read") from error
        for path in (*change.gone, *change.changed):
            check_path(path)
        if ROOT in change.gone:
            raise BadInput("a change would delete the whole tree")
        return change


def checksum(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def touched(before: Entries, now: Entries) -> set[bytes]:
    """The paths of `now` that are new or were written, renamed or changed in any way since `before`: of one tree."""
    found = {path for path, entry in now.items() if path not in before or not _untouched(before[path], entry)}
    return with_aliases(found, now)


def _untouched(before: Entry, now: Entry) -> bool:
    return (before.inode, before.ctime_ns, before.kind, before.mode, before.mtime_ns) == (
        now.inode,
        now.ctime_ns,
        now.kind,
        now.mode,
        now.mtime_ns,
    ) and (now.kind == DIRECTORY or before.size == now.size)


def different(theirs: Entries, mine: Entries) -> set[bytes]:
    """The paths of `mine` that a copy of another tree lacks or has otherwise; content is not compared."""
    found = {path for path, entry in mine.items() if path not in theirs or not _alike(theirs[path], entry)}
    ours, others = _groups(mine), _groups(theirs)
    for path in ours.keys() | others.keys():
        if ours.get(path, frozenset((path,))) != others.get(path, frozenset((path,))):
            found.update(other for other in (ours.get(path) or {path}) if other in mine)
    return with_aliases(found, mine)


def _alike(one: Entry, other: Entry) -> bool:
    if (one.kind, one.mode, one.uid, one.gid, one.mtime_ns) != (
        other.kind,
        other.mode,
        other.uid,
        other.gid,
        other.mtime_ns,
    ):
        return False
    return one[6:9] == other[6:9] and (one.kind != FILE or one.size == other.size)


def gone(theirs: Entries, mine: Entries) -> tuple[bytes, ...]:
    """What they have and I have not, directories before what is in them."""
    return tuple(sorted(path for path in theirs if path not in mine))


def with_aliases(paths: set[bytes], entries: Entries) -> set[bytes]:
    """The paths and every other name of the same files."""
    shared = {entries[path].inode for path in paths if path in entries and _linked(entries[path])}
    if not shared:
        return paths
    return paths | {path for path, entry in entries.items() if _linked(entry) and entry.inode in shared}


def with_parents(paths: Iterable[bytes]) -> list[bytes]:
    """The paths and every directory above them, whose times must be restored once something in them was renamed."""
    wanted = set[bytes]()
    for path in paths:
        while path not in wanted:
            wanted.add(path)
            path = path.rpartition(b"/")[0] or ROOT
    return sorted(wanted)  # the topmost directory's parent is the root, and the root is its own


def settled(entries: Entries, scanned_ns: int) -> dict[bytes, Entry]:
    """The entries as they may be remembered; `scanned_ns` is the wall clock when the scan began."""
    young = scanned_ns - TICK_NS
    return {path: entry if entry.ctime_ns < young else entry._replace(ctime_ns=0) for path, entry in entries.items()}


def without(change: Change, vanished: Iterable[bytes], retyped: Iterable[bytes]) -> Change:
    """The change without what vanished from a running source between the scan and the transfer."""
    lost = set(vanished)
    dropped = lost | set(retyped)
    kept = {path: entry for path, entry in change.changed.items() if path not in dropped}
    return replace(change, gone=tuple(sorted({*change.gone, *lost})), changed=kept)


def check_path(path: bytes) -> None:
    """Raises BadInput unless the path stays inside its tree, whatever it is joined with."""
    if path == ROOT:
        return
    if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise BadInput(f"not a path inside a tree: {path!r}")


def text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def path_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def encode_entries(entries: Entries, doubtful: Iterable[bytes] = ()) -> bytes:
    """A backup's answer to `scan`: what its replica holds, and of which of it the content is not what it seems."""
    return _pack({"entries": _rows(entries), "doubtful": [text(path) for path in doubtful]})


def decode_entries(raw: bytes) -> tuple[dict[bytes, Entry], set[bytes]]:
    data = _unpack(raw)
    try:
        return _entries(data["entries"]), {path_of(name) for name in data["doubtful"]}
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput("the list of a replica cannot be read") from error


def _linked(entry: Entry) -> bool:
    return entry.links > 1 and entry.kind != DIRECTORY


def _groups(entries: Entries) -> dict[bytes, frozenset[bytes]]:
    """Every name of a hard-linked file -> all of its names."""
    names: dict[int, list[bytes]] = {}
    for path, entry in entries.items():
        if _linked(entry):
            names.setdefault(entry.inode, []).append(path)
    return {path: frozenset(group) for group in names.values() for path in group}


def _head(manifest: Manifest) -> dict[str, Any]:
    return {
        "generation": manifest.generation,
        "epoch": manifest.epoch,
        "checksum": manifest.checksum,
        "exclude": list(manifest.exclude),
    }


def _rows(entries: Entries) -> list[list[Any]]:
    return [[text(path), *entry] for path, entry in entries.items()]


def _entries(rows: Iterable[list[Any]]) -> dict[bytes, Entry]:
    return {path_of(row[0]): Entry(*row[1:]) for row in rows}


def _pack(data: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 1)


def _unpack(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(zlib.decompress(raw))
    except (zlib.error, ValueError) as error:
        raise BadInput("a message between hosts is torn") from error
    if not isinstance(data, dict):
        raise BadInput("a message between hosts is not what it should be")
    return data
