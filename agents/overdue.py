"""What has had no word for long since its end: how long this guard has looked on, and its end.

    end ── frozen, the fence closed ── this guard looks on ── after so long: killed ──▶ word: its owner starts it anew

Rule 1: nothing is safer by that, only the host freer. So a kill may come late, but never early: the time counts anew
        for another guard, and when this one has not looked for a while, as when it hung or the machine slept. For then
        a word may be on its way.
Rule 2: why it has ended is written down before: it is no failure of the vserver (agents/failures.py).
Rule 3: it is killed frozen or not. One that is still there after as long again is killed again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from agents.isolation import cgroup, record

AFTER_S = 600.0  # its clients and peers have given it up by then
UNSEEN_S = 5.0  # between two looks, and it was not looked on

log = logging.getLogger("failover.guard")


class Overdue:
    """All times are boot times."""

    def __init__(self, after_s: float = AFTER_S) -> None:
        """0: never."""
        self._after_s = after_s
        self._since: dict[str, float] = {}  # when this guard first saw that the end of something was past
        self._looked_at = float("-inf")

    def heard(self, names: Collection[str]) -> None:
        """A word names these."""
        self._since = {name: since for name, since in self._since.items() if name not in names}

    def look(self, due: Collection[str], now: float) -> list[str]:
        """Those of which the end is past that are to be killed now."""
        anew, self._looked_at = now > self._looked_at + UNSEEN_S, now
        self._since = {name: now if anew else self._since.get(name, now) for name in due}
        lapsed = [name for name, since in self._since.items() if 0 < self._after_s <= now - since]
        self._since |= dict.fromkeys(lapsed, now)
        return lapsed

    def kill(self, name: str) -> None:
        """Raises OSError."""
        group = cgroup.of(name)
        if not cgroup.populated(group):
            return
        why = f"without a word of the lease for {self._after_s:g} s, it was killed by the guard"
        if record.read(record.RUN, name):
            record.ask(record.RUN, name, record.Ended.LAPSED, why)
        cgroup.kill(group)
        log.error("%s: %s", name, why)
