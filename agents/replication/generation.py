"""A vserver's tree on one host: recovered after a crash, promoted from replica to live tree, demoted from it.

Rule 1: promotion ends every transfer first and waits until its processes are gone; only then is the tree renamed.
Rule 2: a committed generation is finished before anything else; what was not committed is dropped.
Rule 3: a diverged tree is never promoted without an operator's word.
Rule 4: every step may be repeated: the rename between replica and live tree comes last, and the record before it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agents.replication import salvage
from agents.replication.beneath import RESERVED, opened, remove
from agents.replication.incoming import drop_staging, end_transfer, finish, transferring
from agents.replication.record import VSERVERS, Place, Record, flush_directory, is_name
from agents.replication.snapshot import remove_tree
from agents.steps import Tree
from failover.errors import FailoverError, Refused, Unsafe
from failover.model import Replica


def recover(name: str, vservers: Path = VSERVERS) -> None:
    """After a crash: finish the generation that is committed, drop the one that is not."""
    place = Place(name, vservers)
    if not place.home.is_dir():
        return
    with place.locked():
        if not place.live.exists():
            finish(place, place.load())
            if not transferring(place):
                drop_staging(place)


def promote(name: str, epoch: int, vservers: Path = VSERVERS, *, anyway: bool = False) -> int:
    """Make the replica the live tree; returns its generation. `anyway`: an operator accepts a diverged one.

    Idempotent. Raises Unsafe for an old epoch and a diverged replica, Refused without a complete one.
    """
    place = Place(name, vservers)
    place.make_home()
    with place.locked():
        record = place.load()
        if epoch < record.epoch:
            raise Unsafe(f"epoch {epoch} of {name} is over; epoch {record.epoch} has begun")
        if place.live.exists():
            if record.epoch < epoch or record.diverged:
                place.save(replace(record, epoch=epoch, diverged=False))
            return record.generation
        end_transfer(place)
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
        place.save(live)
        _rename(place.tree, place.live)
        return record.generation


def demote(name: str, epoch: int, vservers: Path = VSERVERS, *, whole: int | None = None) -> None:
    """Set the live tree of a former owner aside, as a replica that will follow the new owner. Idempotent.

    `whole`: the generation that the new owner has of exactly this tree. Without one the tree has diverged.
    """
    place = Place(name, vservers)
    if not place.live.exists():
        return
    place.make_home()
    with place.locked():
        record = place.load()
        if not place.live.exists():
            return
        if place.tree.exists():  # a replica beside a live tree: not ours to judge, and not ours to delete
            place.salvage.mkdir(mode=0o700, exist_ok=True)
            _rename(place.tree, place.salvage / f"{epoch}-replica-{time.time_ns()}")
        kept = whole or record.generation
        place.save(Record(kept, max(epoch, record.epoch), diverged=not whole))
        _rename(place.live, place.tree)
        if os.path.lexists(place.inside):  # the vserver's own; as an ordinary name it is salvaged with the rest
            place.inside.rename(place.tree / f"{RESERVED.decode()}-{time.time_ns()}")
        drop_staging(place)


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
    if place.live.exists() or not place.tree.is_dir():
        return None
    record = place.load()
    if record.generation == 0 and not record.diverged:
        return None
    return Replica(record.generation, record.epoch, record.diverged, salvage.salvaged(place))


def trees(vservers: Path = VSERVERS) -> Mapping[str, Tree]:
    """Which vservers have a tree on this host, and which kind."""
    found: dict[str, Tree] = {}
    with suppress(FileNotFoundError):
        for home in (vservers / ".replica").iterdir():
            if is_name(home.name) and replica(home.name, vservers) is not None:
                found[home.name] = Tree.REPLICA
    with suppress(FileNotFoundError):
        for live in vservers.iterdir():
            if live.is_dir() and is_name(live.name):
                found[live.name] = Tree.LIVE
    return found


def forget(name: str, vservers: Path = VSERVERS) -> None:
    """Remove the replica of a vserver, but not what was salvaged from it."""
    place = Place(name, vservers)
    if not place.home.is_dir():
        return
    with place.locked():
        end_transfer(place)
        remove_tree(place.tree)
        for path in (place.change, place.home / "record.json"):
            path.unlink(missing_ok=True)
        shutil.rmtree(place.manifests, ignore_errors=True)
