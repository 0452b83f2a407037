"""What this host has promised (agents/promise.py), kept where it outlives the agent: /run/failover/promises.json.

Rule 1: a promise is in the file before it counts, and in the file all at once.
Rule 2: where there is no file, this host was just booted, or somebody has taken it away: promises may have been given
        that nobody remembers. Until the longest of them is over, all is bound, and nothing is promised. How long that
        is outlives a boot (longest-promise): the terms may have been others before it.
Rule 3: a promise that is over is remembered, too: it says until when its holder may have run by it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from agents.promise import lasting
from agents.steps import Bond
from agents.supervisor import replace_file
from failover.boot import boot_time

BEYOND_S = 60.0  # an end so far ahead is from another boot

log = logging.getLogger("failover.promises")


class Bonds:
    """Not for two threads at once. All times are boot times."""

    def __init__(
        self, directory: Path, longest_s: float, clock: Callable[[], float] = boot_time, disk: Path | None = None
    ) -> None:
        """`longest_s`: of the promises to come; `disk`: what outlives a boot."""
        self._file, self._clock = directory / "promises.json", clock
        self._longest = Longest((disk or directory) / "longest-promise", longest_s)
        self._unknown = Bond("", 0, float("-inf"))  # what nobody remembers
        self._bonds: dict[str, Bond] = {}
        if not self._load(clock()):
            self._unknown, self._bonds = Bond("", 0, clock() + self._longest.known_s), {}
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._save()
        bonds = (self._unknown, *self._bonds.values())
        self._longest.note(over=all(bond.until <= clock() for bond in bonds))

    def of(self, name: str) -> Bond | None:
        found = max(self._unknown, self._bonds.get(name, self._unknown), key=lambda bond: bond.until)
        return found if found.until > float("-inf") else None

    def binds(self, name: str) -> bool:
        bond = self.of(name)
        return bond is not None and self._clock() < bond.until

    def keep(self, name: str, bond: Bond) -> bool:
        """False when it cannot be written down: then it is not kept."""
        if not self._longest.note(over=False):
            return False
        before = self._bonds
        self._bonds = before | {name: lasting(before.get(name), bond)}
        try:
            self._save()
        except OSError as error:
            log.error("nothing can be promised: %s", error)
            self._bonds = before
            return False
        return True

    def _save(self) -> None:
        said = {"unknown": asdict(self._unknown), "bonds": {name: asdict(bond) for name, bond in self._bonds.items()}}
        replace_file(self._file, json.dumps(said))

    def _load(self, now: float) -> bool:
        try:
            said = json.loads(self._file.read_text())
            self._unknown = Bond(**said["unknown"])
            self._bonds = {name: Bond(**bond) for name, bond in said["bonds"].items()}
            latest = max(bond.until for bond in (self._unknown, *self._bonds.values()))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("%s cannot be read, so all counts as promised for a while: %s", self._file, error)
            return False
        return latest <= now + BEYOND_S


class Longest:
    """How long promises of this host may be that nobody remembers, on disk. `known_s`: by what is there, and by what is
    to come."""

    def __init__(self, file: Path, own_s: float) -> None:
        self._file, self._own_s = file, own_s
        self._noted_s = self._read()
        self.known_s = max(own_s, self._noted_s)

    def note(self, *, over: bool) -> bool:
        """Before anything is promised; `over`: no promise from before still binds. False: it cannot be written down."""
        wanted_s = self._own_s if over else max(self._own_s, self._noted_s)
        if wanted_s == self._noted_s:
            return True
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._file, f"{wanted_s}\n")
        except OSError as error:
            log.error("nothing can be promised: %s", error)
            return False
        self._noted_s = wanted_s
        return True

    def _read(self) -> float:
        try:
            found_s = float(self._file.read_text())
            return found_s if 0 < found_s <= BEYOND_S else BEYOND_S
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError) as error:
            log.error("%s cannot be read, so promises may have been as long as they can be: %s", self._file, error)
            return BEYOND_S


def _write(file: Path, text: str) -> None:
    """All of it or nothing, also for who boots after a power cut."""
    young = file.with_name(file.name + ".new")
    with young.open("w") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    young.replace(file)
    place = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
