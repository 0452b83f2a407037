"""What the hosts' own disks say, looked at every 10 ms from outside: what a backup says that it has whole, and what was
in a tree when it was started.

    whole    /vservers/.replica/NAME/received: the moment of which the replica there is complete (agents/replication/
             received.py); what the owner had acknowledged before it must be in what is started there
    start    a vserver's first process has appeared on a host: the rows (load.py) that its tree has then

Moments are CLOCK_MONOTONIC; that file has the boot time in milliseconds, and a power cut of the lab is no boot.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from failover.errors import FailoverError
from failover.lab.lab import Lab
from failover.lab.load import ROWS
from failover.lab.observer import PERIOD_S, Observer, say


@dataclass(frozen=True)
class Whole:
    """`host` has said that it has whole what was acknowledged before `of`."""

    at: float
    vserver: str
    host: str
    of: float


@dataclass(frozen=True)
class Start:
    at: float
    vserver: str
    host: str
    rows: frozenset[int]


class Witness(Observer):
    """`seen`: in the order of time."""

    def __init__(self, lab: Lab, vservers: Sequence[str]) -> None:
        super().__init__([sys.executable, "-m", "failover.lab.witness", lab.place.name, str(lab.place.base), *vservers])
        self.seen: list[Whole | Start] = []

    def see(self, said: dict[str, Any]) -> None:
        where = said["at"], said["vserver"], said["host"]
        if "rows" in said:
            self.seen.append(
                Start(*where, frozenset(n for first, last in said["rows"] for n in range(first, last + 1)))
            )
        else:
            self.seen.append(Whole(*where, said["of"]))

    def of(self, vserver: str) -> list[Whole | Start]:
        with self.watching():
            return [one for one in self.seen if one.vserver == vserver]


def rows_of(text: str) -> set[int]:
    """What a tree's file of rows has; a line that is no number is none of ours."""
    return {int(line) for line in text.splitlines() if line.isdecimal()}


# --- the process outside the hosts


class _Looker:
    def __init__(self, lab: Lab, vservers: Sequence[str]) -> None:
        self._lab, self._vservers = lab, vservers
        self._inits: dict[str, int] = {}  # host -> its first process
        self._received: dict[tuple[str, str], str] = {}
        self._running: dict[tuple[str, str], int] = {}
        self._boot_ahead_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

    def look(self) -> Iterator[dict[str, Any]]:
        for host in self._lab.real_hosts:
            for vserver in self._vservers:
                yield from self._started(host, vserver)
                root = self._root(host)
                yield from self._whole(host, vserver, root) if root else ()

    def _root(self, host: str) -> Path | None:
        """The host's root as seen from outside; None while it has no power."""
        for _ in range(2):
            if host in self._inits:
                root = Path(f"/proc/{self._inits[host]}/root")
                if (root / "vservers").is_dir():
                    return root
                del self._inits[host]
            with suppress(FailoverError):
                self._inits[host] = self._lab.host(host).pid
        return None

    def _whole(self, host: str, vserver: str, root: Path) -> Iterator[dict[str, Any]]:
        try:
            text = (root / "vservers/.replica" / vserver / "received").read_text()
        except OSError:
            return
        if self._received.get((host, vserver)) == text:
            return
        self._received[host, vserver] = text
        _, dash, milliseconds = text.partition("-")
        if dash and milliseconds.isdecimal():
            of = int(milliseconds) / 1000 - self._boot_ahead_s
            yield {"at": time.monotonic(), "vserver": vserver, "host": host, "of": of}

    def _started(self, host: str, vserver: str) -> Iterator[dict[str, Any]]:
        pid = self._lab.host(host).vserver(vserver)
        before = self._running.pop((host, vserver), None)
        if pid is None:
            return
        self._running[host, vserver] = pid
        root = self._root(host)
        if pid != before and root:
            try:
                rows = rows_of((root / "vservers" / vserver / ROWS).read_text())
            except OSError:
                self._running.pop((host, vserver))  # it has just gone, or comes: the next look will tell
                return
            yield {"at": time.monotonic(), "vserver": vserver, "host": host, "rows": list(_ranges(rows))}


def _ranges(numbers: set[int]) -> Iterator[tuple[int, int]]:
    """(1, 3) for 1, 2, 3."""
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        yield found[0], found[-1]


def _observe(looker: _Looker) -> None:
    say({})
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        due = max(due + PERIOD_S, time.monotonic())
        for said in looker.look():
            say(said)


if __name__ == "__main__":
    _observe(_Looker(Lab(sys.argv[1], Path(sys.argv[2])), sys.argv[3:]))
