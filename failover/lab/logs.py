"""What a lab's daemons have written since a moment: which steps the agents took, and what the leader held back.

…/log/guard.log    the guard and its agent: "vA: start took 0.41 s", "vA: stop failed: …"
…/log/leader.log   "vA waits: …"
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from failover.lab.lab import Lab

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) (failover\.\w+) (?:INFO|WARNING|ERROR) (.*)")
_STEP = re.compile(r"(\S+): (start|stop) (?:took|failed)")
_WORTH = {
    "failover.machine": re.compile(r"\S+: \S+"),
    "failover.leader": re.compile(r"\S+ waits: |leading|not leading"),
}


@dataclass(frozen=True)
class Heard:
    """`lines`: with their moment, seconds since 1970. `started`, `stopped`: (vserver, host)."""

    lines: tuple[tuple[float, str], ...]
    started: frozenset[tuple[str, str]]
    stopped: frozenset[tuple[str, str]]


class Logs:
    def __init__(self, lab: Lab) -> None:
        directories = {host: lab.place.host(host) / "log" for host in lab.real_hosts}
        self._files = {
            (host, name): directory / f"{name}.log"
            for host, directory in directories.items()
            for name in ("guard", "leader")
        }
        self._began = {key: _length(path) for key, path in self._files.items()}

    def since_began(self) -> Heard:
        lines: list[tuple[float, str]] = []
        steps: dict[str, set[tuple[str, str]]] = {"start": set(), "stop": set()}
        for (host, name), path in self._files.items():
            for at, logger, text in _read(path, self._began[host, name]):
                if _WORTH[logger].match(text):
                    lines.append((at, f"{host}: {text}" if name == "guard" else text))
                if logger == "failover.machine" and (found := _STEP.match(text)):
                    steps[found[2]].add((found[1], host))
        return Heard(tuple(sorted(lines)), frozenset(steps["start"]), frozenset(steps["stop"]))

    def errors(self) -> Iterator[str]:
        """Every error that a daemon has written with its traceback: its last line."""
        for (host, name), path in self._files.items():
            traced = False
            for line in _lines(path, self._began[host, name]):
                if traced and line[:1] not in ("", " "):
                    yield f"{host}, {name}.log: {line}"
                    traced = False
                traced = traced or line.startswith("Traceback ")


def _read(path: Path, offset: int) -> Iterator[tuple[float, str, str]]:
    for line in _lines(path, offset):
        found = _LINE.match(line)
        if found and found[3] in _WORTH:
            at = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[2]) / 1000
            yield at, found[3], found[4]


def _lines(path: Path, offset: int) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", "replace").splitlines()


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
