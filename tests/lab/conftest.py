"""Labs for the tests. Each has a name of its own, leaves nothing behind, and is taken down whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from failover.lab import cgroups
from failover.lab.host import loop_devices
from failover.lab.lab import Lab
from failover.lab.place import Place


def left_of(name: str) -> list[str]:
    """Everything on the machine that belongs to a lab."""
    place = Place(name)
    groups = [hierarchy.mount / place.group() for hierarchy in cgroups.of_this_machine()]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place.directory) in line]
    return [
        *(str(path) for path in (place.directory, *groups) if path.exists()),
        *mounts,
        *loop_devices(place.directory),
        *processes_of(place),
    ]


def processes_of(place: Place) -> list[str]:
    """Processes that are in its cgroups or bear its directory in their command line (the dead have neither)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            groups = (process / "cgroup").read_text()
            words = (process / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if words and int(process.name) != os.getpid() and (place.group() in groups or str(place.directory) in words):
            found.append(f"{process.name}: {words}")
    return found


@pytest.fixture
def lab_named() -> Iterator[Callable[[str], Lab]]:
    """Makes labs; takes them down after the test and checks that nothing is left."""
    names: list[str] = []

    def make(name: str) -> Lab:
        names.append(f"t{os.getpid()}-{name}")
        return Lab(names[-1])

    yield make
    for name in names:
        Lab(name).down()
    assert [left for name in names for left in left_of(name)] == []
