"""Where a vserver's processes live in the kernel's books; how to freeze, thaw and kill them all at once.

       <cgroup2>/vserver/NAME            freeze and kill are written here; limits too, out of the vserver's reach
       <cgroup2>/vserver/NAME/payload    root of the vserver's own cgroup namespace: what is inside may write here
       <each v1 hierarchy>/vserver/NAME  where a machine still has such: for limits only

Rule 1: freeze and kill go by cgroup2, also on machines whose limits are v1: a frozen process can be killed there.
Rule 2: standard library only and cheap to import: the guard needs it.
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from pathlib import Path

BASE = "vserver"
_LOOK_S = 0.01  # the kernel forgets to wake us when the cgroup is removed meanwhile
MOUNTINFO = Path("/proc/self/mountinfo")
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of cgroup2; of v1, where no limit is a very large one


def _mounts(kind: str) -> list[tuple[Path, frozenset[str]]]:
    """(mount point, super options) of every mount of this kind, as this process sees them."""
    found = []
    for line in MOUNTINFO.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        file_system, _, options = rest.split(" ", 2)
        if file_system == kind:
            point = fields.split(" ")[4].replace("\\040", " ")
            found.append((Path(point), frozenset(options.split(","))))
    return found


def cgroup2() -> Path:
    """The mount point of cgroup2: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside v1 hierarchies."""
    mounts = _mounts("cgroup2")
    if not mounts:
        raise FileNotFoundError(errno.ENOENT, "no cgroup2 is mounted", "/sys/fs/cgroup")
    return mounts[0][0]


def of(name: str) -> Path:
    return cgroup2() / BASE / name


def payload(name: str) -> Path:
    return of(name) / "payload"


def legacy(name: str) -> tuple[Path, ...]:
    """The vserver's directories in the v1 hierarchies that are mounted and can be written."""
    return tuple(point / BASE / name for point, options in _mounts("cgroup") if "ro" not in options)


def memory_limit() -> int | None:
    """The least limit on memory, in bytes, above all vservers of this host; None: there is none."""
    roots = [cgroup2(), *(point for point, _ in _mounts("cgroup"))]
    files = [root / below / key for root in roots for below in ("", BASE) for key in _MEMORY_LIMITS]
    found = [file.read_text().strip() for file in files if file.exists()]
    return min((int(text) for text in found if text != "max"), default=None)


def create(name: str) -> Path:
    """The payload directory of a fresh cgroup: empty and thawed, whatever an earlier life has left."""
    remove(name)
    payload(name).mkdir(parents=True)
    for directory in legacy(name):
        directory.parent.mkdir(exist_ok=True)
        directory.mkdir(exist_ok=True)
        _fill_cpuset(directory.parent)
        _fill_cpuset(directory)
    return payload(name)


def _fill_cpuset(directory: Path) -> None:
    """A v1 cpuset takes no process before it has processors and memory: it gets its parent's."""
    for key in ("cpuset.cpus", "cpuset.mems"):
        file = directory / key
        if file.exists() and not file.read_text().strip():
            file.write_text((directory.parent / key).read_text())


def join_legacy(name: str) -> None:
    """Only for a process with one thread. A thread that moves itself spares the kernel a lock that costs 10 ms."""
    for directory in legacy(name):
        (directory / "tasks").write_text("0")


def freeze(path: Path, timeout_s: float = 2.0) -> None:
    """Return once the kernel says that every process stands still. TimeoutError: some cannot be frozen (yet)."""
    _write(path / "cgroup.freeze", "1")
    _wait(path, "frozen", True, timeout_s)


def thaw(path: Path, timeout_s: float = 2.0) -> None:
    _write(path / "cgroup.freeze", "0")
    _wait(path, "frozen", False, timeout_s)


def kill(path: Path) -> None:
    """Kill every process below, also a frozen or forking one. Does not wait; nothing there is nothing to kill."""
    with contextlib.suppress(FileNotFoundError):
        _write(path / "cgroup.kill", "1")


def frozen(path: Path) -> bool:
    return _events(path).get("frozen", False)


def populated(path: Path) -> bool:
    """Whether a process lives below; a cgroup that is not there has none."""
    return _events(path).get("populated", False)


def wait_empty(path: Path, timeout_s: float) -> None:
    """TimeoutError when processes are left."""
    _wait(path, "populated", False, timeout_s)


def processes(path: Path) -> tuple[int, ...]:
    pids: list[int] = []
    for file in (path / "cgroup.procs", *path.rglob("cgroup.procs")):
        with contextlib.suppress(OSError):
            pids.extend(int(line) for line in file.read_text().split())
    return tuple(sorted(set(pids)))


def remove(name: str, timeout_s: float = 1.0) -> None:
    """Remove the vserver's cgroups and what it made below them. OSError (EBUSY) while a process is left."""
    for directory in (*legacy(name), of(name)):
        _remove(directory, time.monotonic() + timeout_s)


def _remove(directory: Path, deadline: float) -> None:
    while True:
        try:
            _remove_once(directory)
            return
        except OSError as error:
            # a process that has just died may still be counted for a moment
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _remove_once(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for child in directory.iterdir():
            if child.is_dir() and not child.is_symlink():
                _remove_once(child)
        directory.rmdir()


def _write(file: Path, text: str) -> None:
    # never creates a file: a cgroup that has gone must be an error, not a new file somewhere
    try:
        with file.open("r+b", buffering=0) as opened:
            opened.write(text.encode())
    except OSError as error:
        if error.errno == errno.ENODEV:  # it went between open and write
            raise FileNotFoundError(errno.ENOENT, "the cgroup has just gone", str(file)) from error
        raise


def _events(path: Path) -> dict[str, bool]:
    try:
        return _parse((path / "cgroup.events").read_bytes())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return {}
        raise


def _parse(events: bytes) -> dict[str, bool]:
    pairs = (line.split() for line in events.decode().splitlines())
    return {key: value == "1" for key, value in pairs}


def _wait(path: Path, key: str, wanted: bool, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    try:
        with (path / "cgroup.events").open("rb", buffering=0) as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while True:
                events.seek(0)
                if _parse(events.read()).get(key, False) == wanted:
                    return
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, f"not '{key} {int(wanted)}' within {timeout_s:g} s", str(path))
                poll.poll(min(left_s, _LOOK_S) * 1000)
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ENODEV)
        if not (gone and not wanted):  # a cgroup that has gone is neither frozen nor populated
            raise
