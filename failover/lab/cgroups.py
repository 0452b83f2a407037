"""The cgroups of a lab: one directory of the same name in every hierarchy that the machine has mounted.

cgroup2 freezes, kills and tells when nobody is left, also where the controllers are those of version 1 ("hybrid").

Rule 1: only directories named by the caller are touched, never the hierarchies' own roots or mounts.
Rule 2: a version 1 cpuset takes nobody before its cpus and mems are filled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from failover.errors import FailoverError, Refused

_MOUNT_FLAGS = {"rw", "ro", "xattr", "nsdelegate", "memory_recursiveprot", "favordynmods", "noprefix"}


@dataclass(frozen=True)
class Hierarchy:
    mount: Path
    unified: bool  # cgroup2
    options: str  # with which a version 1 hierarchy is mounted once more: "cpu,cpuacct" or "none,name=systemd"


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """Every cgroup hierarchy in the text of /proc/self/mountinfo, once."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, flags = right.split(" ", 2)
        if fstype not in ("cgroup", "cgroup2"):
            continue
        names = [flag for flag in flags.split(",") if flag not in _MOUNT_FLAGS and not flag.startswith("release_agent")]
        if names and all(name.startswith("name=") for name in names):
            names.insert(0, "none")
        key = "unified" if fstype == "cgroup2" else ",".join(names)
        found.setdefault(key, Hierarchy(Path(left.split(" ")[4]), fstype == "cgroup2", ",".join(names)))
    return tuple(found.values())


def of_this_machine() -> tuple[Hierarchy, ...]:
    return hierarchies(Path("/proc/self/mountinfo").read_text())


class Group:
    """One cgroup path in all hierarchies."""

    def __init__(self, path: str, machine: tuple[Hierarchy, ...] | None = None) -> None:
        machine = of_this_machine() if machine is None else machine
        unified = [hierarchy for hierarchy in machine if hierarchy.unified]
        if not unified:
            raise Refused("this machine has no cgroup2 mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
        self.unified = unified[0].mount / path
        self.others = tuple(hierarchy.mount / path for hierarchy in machine if not hierarchy.unified)

    def make(self) -> None:
        for directory in (self.unified, *self.others):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in self.others:
            _fill_cpuset(directory)

    def doors(self, leaf: str = "") -> tuple[Path, ...]:
        """The files into which a process writes its id to come in; `leaf` is a cgroup below, in cgroup2 only."""
        return tuple(directory / "cgroup.procs" for directory in (self.unified / leaf, *self.others))

    def settle(self, pid: int, leaf: str) -> None:
        """Move a process into a leaf, so that controllers can be handed on to the cgroups beside it."""
        (self.unified / leaf / "cgroup.procs").write_text(str(pid))
        self.delegate()

    def delegate(self) -> None:
        """Hand every controller that it has on to the cgroups below it."""
        for controller in (self.unified / "cgroup.controllers").read_text().split():
            with suppress(OSError):  # some can only be handed on by the root: then there are no such limits
                (self.unified / "cgroup.subtree_control").write_text(f"+{controller}")

    def pids(self, leaf: str = "") -> list[int]:
        """The processes in one cgroup, not in those below it."""
        try:
            return [int(pid) for pid in (self.unified / leaf / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    @property
    def populated(self) -> bool:
        return events(self.unified).get("populated") == 1

    @property
    def frozen(self) -> bool:
        """Whether it is to be frozen: who comes in now stops, also while the others are still on their way there."""
        try:
            return (self.unified / "cgroup.freeze").read_text().strip() == "1"
        except OSError:
            return False

    def freeze(self, on: bool = True) -> None:
        (self.unified / "cgroup.freeze").write_text("1" if on else "0")

    def kill(self) -> None:
        """Kill every process in it and below at once; harmless where there is nothing."""
        with suppress(FileNotFoundError):
            (self.unified / "cgroup.kill").write_text("1")

    def await_empty(self, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while self.populated:
            if time.monotonic() > deadline:
                raise FailoverError(f"processes in {self.unified} outlive their kill", hint="see their /proc/PID/stack")
            time.sleep(0.002)

    def remove(self, timeout_s: float = 5.0) -> None:
        """Remove it and all below it, in every hierarchy. Nobody may be left in it."""
        deadline = time.monotonic() + timeout_s
        for top in (self.unified, *self.others):
            for directory in _deepest_first(top):
                while not _removed(directory):
                    if time.monotonic() > deadline:
                        raise FailoverError(f"cgroup {directory} cannot be removed: it is still in use")
                    time.sleep(0.005)


def events(directory: Path) -> dict[str, int]:
    """cgroup.events of a cgroup2 directory; empty when it does not exist."""
    try:
        words = (directory / "cgroup.events").read_text().split()
    except OSError:
        return {}
    return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def _fill_cpuset(directory: Path) -> None:
    for ancestor in (*reversed([p for p in directory.parents if (p.parent / "cpuset.cpus").exists()]), directory):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (ancestor / name).exists() and not (ancestor / name).read_text().strip():
                (ancestor / name).write_text((ancestor.parent / name).read_text())


def _deepest_first(top: Path) -> Iterator[Path]:
    if not top.is_dir():
        return
    for child in sorted(top.iterdir()):
        if child.is_dir():
            yield from _deepest_first(child)
    yield top


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
