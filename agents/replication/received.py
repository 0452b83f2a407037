"""When a replica was last known here to be complete: what its host can say of its age without its owner.

    owner                               backup
    state ────────────────────────────▶ notes nothing, and answers with the moment: `heard`
    scan, and what follows
    commit … HEARD, or same … HEARD ──▶ what it has now is what the owner had at `heard` or later

Rule 1: the owner's scan comes after `heard`, so no clock but this host's is needed, and nothing looks too young.
Rule 2: a moment is of this boot. After a boot the age is unknown until the next round.
Rule 3: a tree that was live since is no longer the replica of which it was said.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from agents.replication.record import Place
from failover.boot import boot_time

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOMENT = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")


def moment() -> str:
    """Now, as one word: which boot, and its milliseconds."""
    return f"{_boot()}-{int(boot_time() * 1000)}"


def at(place: Place) -> float | None:
    """The boot time at which the newest round began that the replica has whole, as far as it is known."""
    try:
        return _boot_time((place.home / "received").read_text())
    except (OSError, ValueError):
        return None


def note(place: Place, heard: str) -> None:
    """The replica is complete as of `heard`. The caller holds the lock. What cannot be written stays as it was."""
    new_at, known_at = _boot_time(heard), at(place)
    if new_at is None or (known_at is not None and known_at >= new_at):
        return
    new = place.home / "received.new"
    with suppress(OSError):
        new.write_text(heard)  # not flushed: after a power failure it is of another boot anyway
        new.rename(place.home / "received")


def forget(place: Place) -> None:
    (place.home / "received").unlink(missing_ok=True)


def _boot_time(word: str) -> float | None:
    match = _MOMENT.fullmatch(word)
    if match is None or match[1] != _boot():
        return None
    found = int(match[2]) / 1000
    return found if found <= boot_time() else None


def _boot() -> str:
    return _BOOT_ID.read_text()[:8]
