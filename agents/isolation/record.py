"""What is written down of a vserver under /run/vserver/NAME, so that whoever comes later finds its processes again.

    state.json   the first process: {pid, start time, PID namespace, boot}, and on whose word it runs. Written before
                 the child goes on, so no process of a vserver ever runs that no record names; removed at its end.
    asked        why it is being ended on purpose: written before the first signal
    exit         how it ended

Rule 1: a pid alone proves nothing. All four facts are compared, and compared after the pidfd is open.
Rule 2: every file appears by rename: it is there in full, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from failover.errors import BadInput

RUN = Path("/run/vserver")
SOCKET = "spawner.sock"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]+)*")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Ended(StrEnum):
    """How a vserver's life ended."""

    STOPPED = "stopped"  # in order: by us, or by a power-off from inside
    RESTART = "restart"  # a reboot from inside: it wants to be started again
    KILLED = "killed"  # by us
    LAPSED = "lapsed"  # by the guard: there was no word of the lease for too long
    CRASHED = "crashed"
    UNKNOWN = "unknown"  # nobody saw it


@dataclass(frozen=True)
class Record:
    """The first process of a running vserver. `started`: its start time in clock ticks since boot. `epoch`: of the
    leader's word under which it was started or adopted; 0: a human has started it. It is no mark of the life."""

    name: str
    pid: int
    started: int
    namespace: int
    boot: str
    at: float
    init: tuple[str, ...]
    kind: str
    epoch: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Exit:
    ended: Ended
    because: str
    at: float
    init: tuple[str, ...] = ()


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 63 or name == SOCKET:
        raise BadInput(f"'{name}' is no name of a vserver", hint="letters, digits, - and _, at most 63")
    return name


def of_process(name: str, pid: int, init: tuple[str, ...], kind: str, epoch: int = 0) -> Record:
    _, started = _stat(pid)
    return Record(name, pid, started, _namespace(pid), _boot(), time.time(), init, kind, epoch)


def write(run: Path, record: Record) -> None:
    _replace(run / record.name / "state.json", asdict(record))


def read(run: Path, name: str) -> Record | None:
    found = _load(run / name / "state.json")
    try:
        return Record(**found | {"init": tuple(found["init"])}) if found else None
    except (TypeError, KeyError):
        return None


def names(run: Path) -> tuple[str, ...]:
    with contextlib.suppress(FileNotFoundError):
        return tuple(sorted(path.name for path in run.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)))
    return ()


def open_process(record: Record) -> int | None:
    """A pidfd of the first process, if it is the one that was written down and it lives."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    try:
        state, started = _stat(record.pid)
        same = started == record.started and _boot() == record.boot and state not in "ZX"
        if same and _namespace(record.pid) == record.namespace and not has_ended(pidfd):
            return pidfd
    except OSError:
        pass  # it went away while we looked
    os.close(pidfd)
    return None


def has_ended(pidfd: int, timeout_s: float = 0) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def begin(run: Path, name: str) -> Path:
    """A directory for a new life; nothing of an earlier one is left in it but its log."""
    directory = run / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in ("asked", "exit", "state.json"):
        (directory / file).unlink(missing_ok=True)
    return directory


def ask(run: Path, name: str, ended: Ended, because: str) -> None:
    """Say why it is about to end, before it is made to."""
    (run / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(run / name / "asked", {"ended": ended, "because": because})


def forget(run: Path, name: str) -> None:
    for file in ("state.json", "asked"):
        (run / name / file).unlink(missing_ok=True)


def end(run: Path, record: Record, status: int | None) -> None:
    """Write down how it ended, unless somebody already has. `status`: a wait status; None: nobody knows it.

    Who stops it and the spawner may do so at once. `forget` removes the state first: so if it is still there after the
    reason was looked for, nobody had taken the reason away, and both write the same.
    """
    asked = _load(run / record.name / "asked")
    if read(run, record.name) == record:
        ended, because = (Ended(asked["ended"]), asked["because"]) if asked else how(status)
        found = {"ended": ended, "because": because, "at": time.time(), "init": record.init}
        _replace(run / record.name / "exit", found)
        forget(run, record.name)


def last_exit(run: Path, name: str) -> Exit | None:
    found = _load(run / name / "exit")
    with contextlib.suppress(TypeError, KeyError, ValueError):
        return Exit(Ended(found["ended"]), found["because"], found["at"], tuple(found["init"])) if found else None
    return None


def how(status: int | None) -> tuple[Ended, str]:
    """What a wait status of a PID namespace's first process says: reboot(2) inside ends it by SIGHUP or SIGINT."""
    if status is None:
        return Ended.UNKNOWN, "it ended while nobody watched"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGHUP:
            return Ended.RESTART, "it was rebooted from inside"
        if number == signal.SIGINT:
            return Ended.STOPPED, "it was powered off from inside"
        return Ended.CRASHED, f"its init died of {_signal_name(number)}"
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return Ended.STOPPED, "its init ended"
    return Ended.CRASHED, f"its init ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _stat(pid: int) -> tuple[str, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _namespace(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/pid").stat().st_ino


def _boot() -> str:
    return _BOOT.read_text().strip()


def _load(file: Path) -> dict[str, Any]:
    """{} when it is not there or not ours."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(file: Path, content: dict[str, object]) -> None:
    new = file.with_name(f".{file.name}.new{os.getpid()}")
    new.write_text(json.dumps(content))
    new.rename(file)
