"""Where a vserver's replication lies on a host's disk, and the record that says what it is worth.

    /vservers/NAME                      the live tree
    /vservers/.replica/NAME/tree        or the replica; promotion and demotion are one rename between the two
    /vservers/.replica/NAME/tree/.failover/EPOCH-GENERATION    what has arrived of the next generation
    /vservers/.replica/NAME/record.json, change, received, manifests/HOST, salvage/, lock, …

The staging lies inside the replica because only within one btrfs subvolume can files be renamed into place, and the
replica must be a subvolume of its own, so that the live tree it becomes can be snapshotted.

Rule 1: the record is written whole, flushed, and renamed into place; whoever changes it holds `lock`.
Rule 2: `epoch` never falls. What a sender with an older epoch says is refused, also after a demotion.
Rule 3: a record with `commit` is a generation that is complete but not yet moved into place; moving goes on from there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from failover.errors import BadInput, FailoverError, Refused

VSERVERS = Path("/vservers")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_POLL_S = 0.02
_UNTIL_IT_CAN = "nothing is done with this replica until it can be read"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TYPES = {"int": int, "str": str, "bool": bool}


class Busy(Refused):
    """Somebody else holds the lock."""


@dataclass(frozen=True)
class Commit:
    """The commit record: a complete generation whose change lies, flushed, in the file `change`."""

    generation: int
    epoch: int
    checksum: str


@dataclass(frozen=True)
class Record:
    generation: int = 0  # of the tree; for a live tree the newest that was begun from it, or that it was promoted from
    epoch: int = 0
    checksum: str = ""  # of the change that made this generation of a replica
    diverged: bool = False
    origin: int = 0  # of a live tree: the generation it was promoted from
    promoted_ns: int = 0  # of a live tree: when, on the clock of its file times
    commit: Commit | None = None


_T = TypeVar("_T", Commit, Record)


@dataclass(frozen=True)
class Place:
    """The paths of one vserver's replication on this host."""

    name: str
    vservers: Path = VSERVERS

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def live(self) -> Path:
        return self.vservers / self.name

    @property
    def home(self) -> Path:
        return self.vservers / ".replica" / self.name

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    @property
    def inside(self) -> Path:
        return self.tree / ".failover"

    def staging(self, epoch: int, generation: int) -> Path:
        return self.inside / f"{epoch}-{generation}"

    @property
    def change(self) -> Path:
        return self.home / "change"

    @property
    def salvage(self) -> Path:
        return self.home / "salvage"

    @property
    def manifests(self) -> Path:
        return self.home / "manifests"

    @property
    def transfer(self) -> Path:
        return self.home / "transfer"

    def load(self) -> Record:
        """The record; an empty one when there is none yet. Raises FailoverError when it cannot be read."""
        path = self.home / "record.json"
        try:
            data = json.loads(path.read_bytes())
            commit = data.pop("commit")
            record = Record(**data, commit=_typed(Commit(**commit)) if commit else None)
            return _typed(record)
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise FailoverError(f"{path} cannot be read ({error.strerror})", hint=_UNTIL_IT_CAN) from error
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise FailoverError(
                f"{path} is damaged, or written by a newer version ({error})", hint=_UNTIL_IT_CAN
            ) from error

    def save(self, record: Record) -> None:
        write(self.home / "record.json", json.dumps(asdict(record)).encode())

    def make_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home.parent.chmod(0o700)

    @contextmanager
    def locked(self, timeout_s: float = 600.0) -> Iterator[None]:
        """Alone with this vserver's replication on this host; between processes and between threads."""
        with holding(self.home / "lock", timeout_s, f"the replica of {self.name} is being worked on"):
            yield


def _typed(record: _T) -> _T:
    """JSON knows no types: raises TypeError for a field that is not what it should be."""
    for field in fields(record):
        value, kind = getattr(record, field.name), str(field.type)
        if kind in _TYPES and type(value) is not _TYPES[kind]:
            raise TypeError(f"{field.name} is {value!r}")
    return record


@contextmanager
def plainly(doing: str) -> Iterator[None]:
    """What the disk refuses, as one line: Refused where there is no room, else FailoverError."""
    try:
        yield
    except OSError as error:
        where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        message = f"{doing} ({error.strerror or error}{where})"
        if error.errno in _FULL:
            raise Refused(message, hint="make room there") from error
        raise FailoverError(message) from error


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    if not is_name(name):
        raise BadInput(f"not a name: {name!r}")


def write(path: Path, content: bytes) -> None:
    """Write a file whole: after a crash it is the old one or the new one."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(path)
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def holding(path: Path, timeout_s: float, busy: str) -> Iterator[int]:
    """Hold the lock of a file (made if need be). Raises Busy with `busy` when it stays taken for so long."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock_within(descriptor, timeout_s):
            raise Busy(busy, hint="try again")
        yield descriptor
    finally:
        os.close(descriptor)


def lock_within(descriptor: int, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
