"""The receiving end of a round: what an owner begins and commits here, and how it is finished.

    owner                         backup
    begin ──────────────────────▶ empty staging
    rsync ──────────────────────▶ staging fills; the replica is only read
    commit + change ────────────▶ verify, salvage, flush, COMMIT RECORD, move into place, flush, record
                                                                └─ after a crash here: finish() goes on

Rule 1: before the commit record the replica is the old generation, after it the new one; there is no third.
Rule 2: nothing is ever received where a live tree lies, nor from an epoch older than the newest heard of.
Rule 3: one transfer at a time. Its processes hold the lock `transfer`; who must be sure of their end kills them,
        takes that lock, and keeps it for as long as the replica must be still (`quiet`).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agents.command import run
from agents.isolation.trees import subvolume_or_directory
from agents.replication import received, salvage
from agents.replication.apply import apply, missing
from agents.replication.beneath import RESERVED, opened, remove
from agents.replication.manifest import Change, checksum
from agents.replication.record import VSERVERS, Commit, Place, Record, lock_within, write
from failover.errors import FailoverError, Refused, Unsafe

_FLUSH_TIMEOUT_S = 600.0
_TRANSFER_ENDS_S = 5.0


@dataclass(frozen=True)
class Request:
    """What an owner wants to make: this generation, under this epoch. `owner` is known by its key, not by its word."""

    name: str
    owner: str
    epoch: int
    generation: int


# --- receiving --------------------------------------------------------------------------------------------------------


def begin(request: Request, need_bytes: int, vservers: Path = VSERVERS) -> None:
    """Make an empty staging. Raises Unsafe for a live tree or an old epoch, Refused without room."""
    place = Place(request.name, vservers)
    place.make_home()
    with place.locked(timeout_s=10.0):
        record = _receivable(place, request)
        with quiet(place):
            finish(place, record)
            if not place.tree.exists():
                subvolume_or_directory(place.tree)
            drop_staging(place)
            _room(place, need_bytes)
            place.staging(request.epoch, request.generation).mkdir(mode=0o700)


def commit(
    request: Request, raw: bytes, allowed: Callable[[], None], vservers: Path = VSERVERS, *, heard: str = ""
) -> tuple[list[bytes], Path | None]:
    """Make what lies in the staging a generation and move it into place.

    Returns what has not arrived (then nothing has changed) and the directory into which something was salvaged.
    `allowed` is asked under the lock and raises when the caller no longer owns the vserver. `heard`: received.py.
    """
    place = Place(request.name, vservers)
    with place.locked(), quiet(place, patience_s=_TRANSFER_ENDS_S):
        record = finish(place, _receivable(place, request))
        allowed()
        if (record.generation, record.epoch, record.checksum) == (request.generation, request.epoch, checksum(raw)):
            received.note(place, heard)
            return [], None  # committed before; only the answer was lost
        staging = place.staging(request.epoch, request.generation)
        if not staging.is_dir():
            raise Refused(f"generation {request.generation} of {place.name} was not begun here", hint="begin again")
        change = Change.decode(raw)
        if (change.base, change.base_checksum) != (record.generation, record.checksum):
            raise Refused(f"the replica of {place.name} is not at generation {change.base}", hint="begin again")
        with opened(place.tree) as tree, opened(staging) as arrived:
            absent = missing(tree, arrived, change)
        if absent:
            return absent, None
        kept = None
        ahead = record.epoch < request.epoch and record.generation > change.origin > 0
        if record.diverged or ahead:
            kept = salvage.keep(place, request.owner, request.epoch, change, flush)
        write(place.change, raw)
        flush(place.tree)
        record = replace(record, commit=Commit(request.generation, request.epoch, checksum(raw)))
        place.save(record)
        finish(place, record)
        received.note(place, heard)
        return [], kept


def same(request: Request, heard: str, allowed: Callable[[], None], vservers: Path = VSERVERS) -> None:
    """A round has found nothing to send: the generation that is here is complete as of `heard`."""
    place = Place(request.name, vservers)
    with place.locked(timeout_s=10.0):
        record = _receivable(place, request)
        allowed()
        if record.diverged or (record.generation, record.epoch) != (request.generation, request.epoch):
            raise Refused(f"the replica of {place.name} is not at generation {request.generation}", hint="begin again")
        received.note(place, heard)


def abort(request: Request, vservers: Path = VSERVERS) -> None:
    """Drop a staging that will not be committed, so that it takes no room."""
    place = Place(request.name, vservers)
    with place.locked(timeout_s=10.0):
        record = _receivable(place, request)
        if record.commit is None and place.staging(request.epoch, request.generation).is_dir():
            with quiet(place):
                drop_staging(place)


def _receivable(place: Place, request: Request) -> Record:
    record = place.load()
    if place.live.exists():
        raise Unsafe(f"{place.name} has its live tree here: {place.live}", hint="nothing is ever received over it")
    if request.epoch < record.epoch:
        raise Unsafe(f"epoch {request.epoch} of {place.name} is over; epoch {record.epoch} has begun")
    if (request.epoch, request.generation) < (record.epoch, record.generation):
        raise Refused(f"generation {request.generation} of {place.name} is older than the one here", hint="begin again")
    return record


def _room(place: Place, need_bytes: int) -> None:
    disk = os.statvfs(place.tree)
    free = disk.f_bavail * disk.f_frsize
    if need_bytes > free:
        raise Refused(
            f"no space left for {place.name}: the next generation needs {need_bytes / 1e6:.1f} MB, "
            f"{free / 1e6:.1f} MB are free",
            hint=f"make room under {place.vservers}",
        )


# --- the transfer's processes -----------------------------------------------------------------------------------------


def hold_transfer(place: Place) -> None:
    """Make this process, and what it becomes by exec, the one transfer into this replica until it has ended."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    descriptor = os.open(place.transfer, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not lock_within(descriptor, 1.0):
        raise Refused(f"another transfer of {place.name} is under way", hint="try again")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d" % os.getpid(), 0)
    os.set_inheritable(descriptor, True)


@contextmanager
def quiet(place: Place, patience_s: float = 0.0) -> Iterator[None]:
    """No transfer writes into the replica: it is waited for, then killed, and none begins until this ends."""
    descriptor = os.open(place.transfer, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock_within(descriptor, patience_s):
            _end_transfer(place, descriptor)
        os.ftruncate(descriptor, 0)  # a number that is over may be given to others
        yield
    finally:
        os.close(descriptor)


def _end_transfer(place: Place, descriptor: int) -> None:
    """Kill the transfer's process group; return with its lock, when every one of its processes is gone."""
    end = time.monotonic() + _TRANSFER_ENDS_S
    while time.monotonic() < end:
        group = os.pread(descriptor, 32, 0)
        if group.isdigit() and int(group) > 1:
            with suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)
        if lock_within(descriptor, 0.2):
            return
    raise Refused(f"a transfer into the replica of {place.name} cannot be ended", hint="look at its rsync processes")


# --- finishing --------------------------------------------------------------------------------------------------------


def finish(place: Place, record: Record) -> Record:
    """Move the committed generation into place, if there is one."""
    done = record.commit
    if done is None:
        return record
    raw = place.change.read_bytes()
    staging = place.staging(done.epoch, done.generation)
    if checksum(raw) != done.checksum or not staging.is_dir():
        raise FailoverError(
            f"generation {done.generation} of {place.name} is damaged and cannot be finished",
            hint=f"remove {place.home} to have the replica made anew",
        )
    with opened(place.tree) as tree, opened(staging) as arrived:
        apply(tree, arrived, Change.decode(raw))
    flush(place.tree)
    new = Record(generation=done.generation, epoch=done.epoch, checksum=done.checksum)
    place.save(new)
    drop_staging(place)
    place.change.unlink(missing_ok=True)
    shutil.rmtree(place.manifests, ignore_errors=True)
    return new


def drop_staging(place: Place) -> None:
    """Leave an empty .failover in the replica."""
    if not place.tree.is_dir():
        return
    with opened(place.tree) as tree:
        before = os.fstat(tree)
        if place.inside.is_dir() and not place.inside.is_symlink():
            with opened(place.inside) as inside:
                for name in place.inside.iterdir():
                    remove(inside, os.fsencode(name.name))
            return
        remove(tree, RESERVED)
        os.mkdir(RESERVED, 0o700, dir_fd=tree)
        os.utime(tree, ns=(before.st_atime_ns, before.st_mtime_ns))


def flush(path: Path) -> None:
    """syncfs: all that was written to the file system of `path` is on the disk."""
    run(["sync", "--file-system", path], timeout_s=_FLUSH_TIMEOUT_S)
