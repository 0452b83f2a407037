"""What this host has promised (agents/promise.py), kept where it outlives the agent: /run/failover/promises.json.

Rule 1: a promise is in the file before it counts, and in the file all at once.
Rule 2: where there is no file, this host was just booted, or somebody has taken it away: promises may have been given
        that nobody remembers. Until the longest of them is over, all is bound, and nothing is promised.
Rule 3: a promise that is over is remembered, too: it says until when its holder may have run by it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from agents.promise import lasting
from agents.steps import Bond
from agents.supervisor import replace_file

BEYOND_S = 60.0  # an end so far ahead is from another boot

log = logging.getLogger("failover.promises")


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Bonds:
    """Not for two threads at once. All times are boot times."""

    def __init__(self, directory: Path, longest_s: float, clock: Callable[[], float] = boot_time) -> None:
        self._file, self._clock = directory / "promises.json", clock
        self._unknown = Bond("", 0, float("-inf"))  # what nobody remembers
        self._bonds: dict[str, Bond] = {}
        if not self._load(clock()):
            self._unknown, self._bonds = Bond("", 0, clock() + longest_s), {}
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._save()

    def of(self, name: str) -> Bond | None:
        found = max(self._unknown, self._bonds.get(name, self._unknown), key=lambda bond: bond.until)
        return found if found.until > float("-inf") else None

    def binds(self, name: str) -> bool:
        bond = self.of(name)
        return bond is not None and self._clock() < bond.until

    def keep(self, name: str, bond: Bond) -> bool:
        """False when it cannot be written down: then it is not kept."""
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
