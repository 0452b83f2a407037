"""One round: make the next generation of the live tree complete on one backup.

    state ─▶ (list of the replica, if it is not what we last knew) ─▶ snapshot and scan ─▶ nothing changed? done
          ─▶ begin ─▶ rsync ─▶ commit, until nothing is missing ─▶ remember the manifest

Rule 1: the age of a generation counts from before the scan that it was made from.
Rule 2: an empty or missing source, or one that cannot be read to its end, never deletes a good copy.
Rule 3: what a running vserver removes while we read is deleted on the backup too; from a source that stands still
        nothing may vanish.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agents.command import CommandFailed
from agents.replication.beneath import Steps, kind_of, opened, scan
from agents.replication.channel import Channel
from agents.replication.manifest import (
    FILE,
    ROOT,
    Change,
    Entries,
    Manifest,
    checksum,
    decode_entries,
    different,
    gone,
    path_of,
    settled,
    text,
    touched,
    with_aliases,
    with_parents,
    without,
)
from agents.replication.record import VSERVERS, Place, holding, plainly, write
from agents.replication.rsync import UNREACHABLE, check_version, path_list
from agents.replication.salvage import acknowledged
from agents.replication.snapshot import frozen_source
from agents.steps import Shipped
from failover.boot import boot_time
from failover.errors import FailoverError, Refused, Unreachable, Unsafe
from failover.model import Host, Vserver

_TRANSFER_S = 24 * 3600.0  # rsync's own time-out, without any traffic, is much shorter
_COMMIT_S = 3600.0
_ATTEMPTS = 3
_BLOCK = 512
_PROOF_S = 60.0  # at most so old, and no older than a quarter of max_data_loss, is what a backup knows of its age


@dataclass(frozen=True)
class _Backup:
    """What the backup says of its replica."""

    generation: int
    epoch: int
    checksum: str
    diverged: bool
    heard: str = ""  # when it was asked, by its own clock; empty: an older failover, which does not say
    received_s: float = float("inf")  # how old the replica is by what it knows itself


@dataclass(frozen=True)
class _Plan:
    """What must be sent, and what the source was when we looked."""

    change: Change
    entries: Entries
    scanned_ns: int

    @property
    def empty(self) -> bool:
        return not self.change.gone and not self.change.changed

    @property
    def need_bytes(self) -> int:
        return sum(entry.blocks for entry in self.change.changed.values() if entry.kind == FILE) * _BLOCK


def ship(
    vserver: Vserver,
    source_tree: Path,
    target: Host,
    epoch: int,
    final: bool,
    *,
    vservers: Path = VSERVERS,
    channel: Channel | None = None,
) -> Shipped:
    """Bring one backup up to date. `final`: the vserver has stopped, so nothing is written any more.

    Raises FailoverError: Unreachable (try later), Refused (no space, no source, not ready), Unsafe (not the owner).
    """
    check_version()
    place = Place(vserver.name, vservers)
    begun = boot_time()
    lock = place.home / f"ship-{target.name}"
    with plainly(f"{vserver.name} cannot be sent to {target.name}; its replicas stay as they are"):
        place.make_home()
        with holding(lock, 0.0, f"{vserver.name} is being synced to {target.name} already"):
            try:
                done = _Round(vserver, place, channel or Channel(target.name, target.address), epoch).run(
                    source_tree, final
                )
            except CommandFailed as error:
                raise _explained(error, vserver.name, target.name) from error
    return Shipped(done, epoch, begun, final=final, tried_at=begun)


class _Round:
    def __init__(self, vserver: Vserver, place: Place, channel: Channel, epoch: int) -> None:
        self._vserver = vserver
        self._place = place
        self._channel = channel
        self._epoch = epoch

    def run(self, tree: Path, final: bool) -> int:
        """The generation that the backup has now."""
        if self._place.load().epoch > self._epoch:
            raise Unsafe(f"epoch {self._epoch} of {self._vserver.name} is over")
        backup = self._state()
        known = acknowledged(self._place, self._channel.host)
        in_step = (
            known is not None
            and not backup.diverged
            and (known.generation, known.checksum) == (backup.generation, backup.checksum)
        )
        snapshot = self._place.vservers / ".snapshot" / f"{self._vserver.name}-{self._channel.host}"
        theirs, doubtful = (known.entries, set[bytes]()) if known and in_step else self._list(backup)
        mode = "off" if final else self._vserver.sync.snapshot  # what stands still needs no snapshot
        with frozen_source(tree, mode, snapshot) as (source, frozen):
            scanned_ns = time.time_ns()
            mine = scan(source, self._vserver.sync.exclude, deep=not in_step)
            if mine.keys() == {ROOT}:
                raise Refused(
                    f"the tree of {self._vserver.name} is empty: {tree}", hint="its replicas stay as they are"
                )
            listed = touched(theirs, mine) if in_step else self._listed(theirs, mine, doubtful, known)
            lost = gone(theirs, mine)
            change = Change(
                base=backup.generation,
                base_checksum=backup.checksum,
                origin=self._place.load().origin,
                still=final or frozen,
                gone=lost,
                changed={path: mine[path] for path in with_parents({*listed, *lost}) if path in mine},
            )
            plan = _Plan(change, mine, scanned_ns)
            if plan.empty and in_step and backup.epoch == self._epoch:
                self._say_same(backup)
                return backup.generation
            return self._ship(source, plan, backup)

    def _list(self, backup: _Backup) -> tuple[Entries, set[bytes]]:
        if backup.generation == 0 and not backup.diverged:
            return {}, set()
        return decode_entries(self._call("scan", timeout_s=600.0))

    def _listed(self, theirs: Entries, mine: Entries, doubtful: set[bytes], known: Manifest | None) -> set[bytes]:
        """What a replica that we do not know exactly must get.

        Content is not compared; so whatever was written since we knew it (or, never having known it, since this tree
        was promoted), or was written there by a former owner, is sent even where size and time agree.
        """
        listed = different(theirs, mine) | with_aliases(doubtful & mine.keys(), mine)
        record = self._place.load()
        if known is not None:
            return listed | touched(known.entries, mine)
        if record.promoted_ns:
            young = {path for path, entry in mine.items() if entry.ctime_ns >= record.promoted_ns}
            return listed | with_aliases(young, mine)
        return listed

    def _ship(self, source: Path, plan: _Plan, backup: _Backup) -> int:
        number = self._next_generation(backup.generation)
        self._call("begin", number, plan.need_bytes)
        try:
            raw, change = self._transfer(source, plan.change, number, backup.heard)
        except FailoverError:
            with suppress(FailoverError):
                self._call("abort", number, timeout_s=5.0)
            raise
        entries = {path: entry for path, entry in plan.entries.items() if path not in plan.change.changed}
        entries.update(change.changed)
        manifest = Manifest(
            number, self._epoch, checksum(raw), settled(entries, plan.scanned_ns), self._vserver.sync.exclude
        )
        self._place.manifests.mkdir(mode=0o700, exist_ok=True)
        write(self._place.manifests / self._channel.host, manifest.encode())
        return number

    def _say_same(self, backup: _Backup) -> None:
        """It is as the tree was when we asked. Not in every round, for each word costs a process there."""
        old_s = min(_PROOF_S, self._vserver.max_data_loss_s / 4)
        if backup.heard and backup.received_s > old_s:
            with suppress(FailoverError):  # the round is complete all the same
                self._call("same", backup.generation, backup.heard)

    def _transfer(self, source: Path, change: Change, number: int, heard: str) -> tuple[bytes, Change]:
        """Send and commit; what a running vserver renamed or removed meanwhile is looked at again."""
        paths = list(change.changed)
        destination = f"{self._vserver.name}/{self._epoch}/{number}"
        for _ in range(_ATTEMPTS):
            if paths:
                self._channel.send(
                    source,
                    destination,
                    path_list(with_parents(paths)),
                    bandwidth_bytes_s=self._vserver.sync.bandwidth_bytes_s,
                    timeout_s=_TRANSFER_S,
                )
            if not change.still:
                change = _without_vanished(source, change)
            raw = change.encode()
            paths = self._commit(number, raw, heard)
            if not paths:
                return raw, change
        raise Refused(
            f"{len(paths)} files of {self._vserver.name} did not arrive on {self._channel.host}, "
            f"the first is {text(next(iter(paths)))!r}",
            hint="the next round tries again",
        )

    def _state(self) -> _Backup:
        said = self._call("state")
        with self._understood(said):
            answer = json.loads(said)
            backup = _Backup(
                int(answer["generation"]), int(answer["epoch"]), str(answer["checksum"]), bool(answer["diverged"])
            )
            received_s = answer.get("received_s")
            known_s = float("inf") if received_s is None else float(received_s)
            return replace(backup, heard=str(answer.get("heard", "")), received_s=known_s)

    def _commit(self, number: int, raw: bytes, heard: str) -> list[bytes]:
        """What the backup misses; nothing when it has the generation."""
        said = self._call("commit", number, *([heard] if heard else []), stdin=raw, timeout_s=_COMMIT_S)
        with self._understood(said):
            return [path_of(name) for name in json.loads(said)["missing"]]

    @contextmanager
    def _understood(self, said: bytes) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FailoverError(
                f"{self._channel.host} answered what we do not understand: {said[:80]!r}",
                hint="has it the same version, and does nothing in its shell's start-up files print?",
            ) from error

    def _next_generation(self, theirs: int) -> int:
        """Numbers never come twice, whichever backup they are for and whoever else has counted."""
        with self._place.locked(timeout_s=30.0):
            record = self._place.load()
            if record.diverged or record.epoch > self._epoch:
                raise Unsafe(f"{self._vserver.name} belongs to another host since epoch {record.epoch}")
            number = max(record.generation, theirs) + 1
            self._place.save(replace(record, generation=number, epoch=self._epoch))
            return number

    def _call(self, verb: str, *words: int | str, stdin: bytes = b"", timeout_s: float = 30.0) -> bytes:
        try:
            return self._channel.call(verb, self._vserver.name, self._epoch, *words, stdin=stdin, timeout_s=timeout_s)
        except FailoverError as error:
            if isinstance(error, Unreachable) or self._channel.host in error.message:
                raise
            raise type(error)(f"{self._channel.host}: {error.message}", hint=error.hint) from error


def _without_vanished(source: Path, change: Change) -> Change:
    vanished, retyped = set(), set()
    with opened(source) as root, Steps(root) as steps:
        for path, entry in change.changed.items():
            status = steps.status(path)
            if status is None:
                vanished.add(path)
            elif kind_of(status) != entry.kind:
                retyped.add(path)
    return without(change, vanished, retyped) if vanished or retyped else change


def _explained(error: CommandFailed, name: str, host: str) -> FailoverError:
    if "No space left on device" in error.stderr or "Disk quota exceeded" in error.stderr:
        return Refused(f"no space left on {host} for {name}", hint=f"make room under /vservers on {host}")
    if error.returncode is None or error.returncode in UNREACHABLE:
        return Unreachable(
            f"the transfer of {name} to {host} broke off ({error.message})", hint="the next round tries again"
        )
    return Refused(f"{name} could not be sent to {host} ({error.message})", hint="the generation before it stays whole")
