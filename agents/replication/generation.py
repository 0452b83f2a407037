"""A vserver's tree on one host: recovered after a crash, promoted from replica to live tree, demoted from it.

Rule 1: promotion ends every transfer first, waits until its processes are gone, and lets no other begin until the tree
        is renamed.
Rule 2: a committed generation is finished before anything else; what was not committed is dropped.
Rule 3: a diverged tree is never promoted without an operator's word.
Rule 4: every step may be repeated: the rename between replica and live tree comes last, and the record before it.
Rule 5: nothing but a FailoverError is raised.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agents.replication import received, salvage
from agents.replication.beneath import RESERVED, Steps, copy_attributes, descend, foreign, opened, remove
from agents.replication.incoming import drop_staging, finish, quiet
from agents.replication.record import VSERVERS, Busy, Place, Record, flush_directory, holding, plainly
from failover.errors import FailoverError, Refused, Unsafe
from failover.model import Replica


def recover(name: str, vservers: Path = VSERVERS) -> None:
    """After a crash: finish the generation that is committed, drop the one that is not.

    It waits for nobody: who works on the replica, or sends to it, at this moment finishes or drops it himself.
    """
    place = Place(name, vservers)
    with plainly(f"the replica of {name} cannot be put in order"):
        if not place.home.is_dir() or place.live.exists():
            return
        with suppress(Busy), place.locked(0.0), holding(place.transfer, 0.0, f"{name} is being received"):
            if not place.live.exists():
                finish(place, place.load())
                drop_staging(place)


def promote(name: str, epoch: int, vservers: Path = VSERVERS, *, anyway: bool = False) -> int:
    """Make the replica the live tree; returns its generation. `anyway`: an operator accepts a diverged one.

    Idempotent. Raises Unsafe for an old epoch and a diverged replica, Refused without a complete one.
    """
    place = Place(name, vservers)
    with plainly(f"the replica of {name} cannot become the live tree"):
        place.make_home()
        with place.locked():
            return _promote(place, epoch, anyway)


def _promote(place: Place, epoch: int, anyway: bool) -> int:
    record, name = place.load(), place.name
    if epoch < record.epoch:
        raise Unsafe(f"epoch {epoch} of {name} is over; epoch {record.epoch} has begun")
    if place.live.exists():
        if record.epoch < epoch or record.diverged:
            place.save(replace(record, epoch=epoch, diverged=False))
        return record.generation
    with quiet(place):
        record = finish(place, record)
        if not place.tree.is_dir() or (record.generation == 0 and not record.diverged):
            raise Refused(f"there is no complete replica of {name} here", hint="sync it from the owner first")
        if record.diverged and not anyway:
            raise Unsafe(
                f"the tree of {name} here was left by a former owner and does not follow the present one",
                hint="let it sync first, or accept the loss of what the present owner has",
            )
        with opened(place.tree) as tree:
            before = os.fstat(tree)
            remove(tree, RESERVED)
            os.utime(tree, ns=(before.st_atime_ns, before.st_mtime_ns))
        live = Record(record.generation, epoch, origin=record.generation, promoted_ns=time.time_ns())
        shutil.rmtree(place.manifests, ignore_errors=True)
        received.forget(place)
        place.save(live)
        _rename(place.tree, place.live)
        return record.generation


def demote(name: str, epoch: int, vservers: Path = VSERVERS, *, whole: int | None = None) -> None:
    """Set the live tree of a former owner aside, as a replica that will follow the new owner. Idempotent.

    `whole`: the generation that the new owner has of exactly this tree. Without one the tree has diverged.
    """
    place = Place(name, vservers)
    with plainly(f"the live tree of {name} cannot be set aside"):
        if not place.live.exists():
            return
        place.make_home()
        with place.locked():
            _demote(place, epoch, whole)


def _demote(place: Place, epoch: int, whole: int | None) -> None:
    record = place.load()
    if not place.live.exists():
        return
    _take_out(place, epoch)
    received.forget(place)
    if place.tree.exists():  # a replica beside a live tree: not ours to judge, and not ours to delete
        place.salvage.mkdir(mode=0o700, exist_ok=True)
        _rename(place.tree, place.salvage / f"{epoch}-replica-{time.time_ns()}")
    kept = whole or record.generation
    place.save(Record(kept, max(epoch, record.epoch), diverged=not whole))
    _rename(place.live, place.tree)
    if os.path.lexists(place.inside):  # the vserver's own; as an ordinary name it is salvaged with the rest
        place.inside.rename(place.tree / f"{RESERVED.decode()}-{time.time_ns()}")
    drop_staging(place)


def _take_out(place: Place, epoch: int) -> None:
    """Set subvolumes inside the live tree aside, like all that only a former owner has.

    Nothing can be renamed into one, so with it the tree could not follow the new owner. A directory takes its place.
    """
    aside = place.salvage / f"{epoch}-subvolumes-{time.time_ns()}"
    with opened(place.live) as root, Steps(root) as steps:
        for path in foreign(root):
            inside = place.live / os.fsdecode(path)
            with opened(inside) as source:
                try:
                    inside.rmdir()  # so goes an empty one, and what a snapshot has in the place of a subvolume
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        raise Refused(
                            f"{inside} is a mount: it cannot be set aside", hint=f"umount {inside}"
                        ) from error
                    kept = aside / os.fsdecode(path)
                    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    _rename(inside, kept)
                parent, name = steps.parent(path)
                os.mkdir(name, dir_fd=parent)
                below = descend(parent, name)
                try:
                    copy_attributes(source, below)
                finally:
                    os.close(below)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise FailoverError(f"{source} cannot be renamed to {target} ({error.strerror})") from error
    flush_directory(source.parent)
    flush_directory(target.parent)


# --- looking ----------------------------------------------------------------------------------------------------------


def replica(name: str, vservers: Path = VSERVERS) -> Replica | None:
    """The complete copy on this host; None while there is none. A former owner's diverged tree counts as one."""
    place = Place(name, vservers)
    with plainly(f"the replica of {name} cannot be looked at"):
        if place.live.exists() or not place.tree.is_dir():
            return None
        record = place.load()
        if record.generation == 0 and not record.diverged:
            return None
        return Replica(record.generation, record.epoch, record.diverged, salvage.salvaged(place))
