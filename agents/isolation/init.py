"""The first program of a vserver: which one a tree has, and how it is asked to stop.

Rule: the tree is looked at by openat2 IN_ROOT only: a link in it cannot lead out of it.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

from agents.isolation import syscalls
from failover.errors import Refused

_ELF = b"\x7fELF"
_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS

# Looked for in this order, when the settings name none.
CANDIDATES: tuple[tuple[str, ...], ...] = (
    ("/sbin/init",),
    ("/lib/systemd/systemd",),
    ("/usr/lib/systemd/systemd",),
    ("/bin/s6-svscan", "/etc/service"),
    ("/usr/bin/s6-svscan", "/etc/service"),
    ("/init",),
)


@dataclass(frozen=True)
class Kind:
    """How an init is asked to stop: by its own signal, or by a command run inside."""

    name: str
    stop_signal: int | None = None
    stop_command: tuple[str, ...] = ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind("systemd", stop_signal=signal.SIGRTMIN + 3),
        Kind("s6-svscan", stop_signal=signal.SIGTERM),
        Kind("tini", stop_signal=signal.SIGTERM),
        Kind("busybox", stop_signal=signal.SIGUSR2),
        Kind("sysvinit", stop_command=("/sbin/init", "0")),
        Kind("runit-init", stop_command=("/sbin/init", "0")),
        Kind("openrc-init", stop_command=("/sbin/openrc-shutdown", "--poweroff", "now")),
        Kind("other", stop_signal=signal.SIGTERM),
    )
}
# The file at the end of all links -> the kind. In Debian a program (no script) called `init` is sysvinit's.
_FILES = {
    "systemd": "systemd", "s6-svscan": "s6-svscan", "tini": "tini", "tini-static": "tini", "busybox": "busybox",
    "busybox.static": "busybox", "runit-init": "runit-init", "openrc-init": "openrc-init",
}  # fmt: skip


@dataclass(frozen=True)
class Init:
    argv: tuple[str, ...]
    kind: Kind


def find(tree: Path, wanted: tuple[str, ...] = ()) -> Init:
    """The tree's init, or `wanted` if it is one. Refused, with the reason, if it could not be executed."""
    try:
        root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Refused(f"there is no tree at {tree}", hint="build one or restore it from a replica") from error
    except NotADirectoryError as error:
        raise Refused(f"{tree} is not a directory (a symbolic link is not followed)") from error
    try:
        for argv in (wanted,) if wanted else CANDIDATES:
            found = _look(root, argv, must_exist=bool(wanted))
            if found:
                return found
    finally:
        os.close(root)
    raise Refused(f"there is no init in {tree}", hint=f"install one, or name it: {', '.join(a[0] for a in CANDIDATES)}")


def _look(root: int, argv: tuple[str, ...], *, must_exist: bool) -> Init | None:
    path = argv[0]
    if not path.startswith("/"):
        raise Refused(f"init '{path}' is not an absolute path")
    try:
        file = syscalls.openat2(root, path, os.O_PATH, resolve=_INSIDE)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if must_exist:
            raise Refused(f"there is no {path} in the tree") from error
        return None
    try:
        mode = os.fstat(file).st_mode
        target = Path(f"/proc/self/fd/{file}").readlink()
        binary = stat.S_ISREG(mode) and _is_binary(Path(f"/proc/self/fd/{file}"))
    finally:
        os.close(file)
    if not stat.S_ISREG(mode) or not mode & 0o111:
        raise Refused(f"{path} in the tree is not an executable file", hint="chmod +x it, or name another init")
    return Init(argv, KINDS[_kind(path, target, argv) if binary else "other"])


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_ELF)) == _ELF


def _kind(path: str, target: PurePath, argv: tuple[str, ...]) -> str:
    name = _FILES.get(target.name, "")
    if name == "busybox" and PurePath(path).name not in ("init", "linuxrc") and argv[1:2] != ("init",):
        return "other"  # one of busybox's other programs
    if not name and target.name == "init" and target.parent.name == "sbin":
        return "sysvinit"
    return name or "other"


def listens(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or holds it back to read it: pid 1 never hears any other.

    While it waits in sigwait (as busybox does), the kernel shows nothing as held back.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        waits = "sigtimedwait" in Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigCgt:", "SigBlk:"))]
    return waits or any(mask >> (number - 1) & 1 for mask in masks)
