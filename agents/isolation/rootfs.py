"""What a vserver sees as its root: a list of operations, which is data, and their performance.

Rule 1: every target is opened by openat2 beneath the tree without following any link, and mounted on by descriptor:
        a tree whose /proc, /sys, /dev, /run or /tmp is a symbolic link is refused, not followed.
Rule 2: all of it happens before pivot_root and before the first program of the vserver runs.
Rule 3: only cgroup2 is mounted, never a v1 hierarchy (newer inits refuse it, and its release_agent is a way out).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from agents.isolation import syscalls
from failover.errors import Refused

_NO_LINKS = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441
_ATTRIBUTES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
}


@dataclass(frozen=True)
class Mount:
    """A new file system. `attributes`: words of _ATTRIBUTES; `options`: of the file system itself."""

    target: str
    kind: str
    attributes: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Node:
    """A character device, readable and writable for all."""

    target: str
    major: int
    minor: int


@dataclass(frozen=True)
class Link:
    target: str
    to: str


@dataclass(frozen=True)
class Console:
    """A new terminal of the vserver's own devpts; its other end is returned."""

    target: str


@dataclass(frozen=True)
class Mask:
    """What this shows on the host is not for the vserver; nothing to do where it is not there."""

    target: str


@dataclass(frozen=True)
class ReadOnly:
    target: str


Operation = Mount | Node | Link | Console | Mask | ReadOnly

_STRICT = ("nosuid", "nodev", "noexec")

OPERATIONS: tuple[Operation, ...] = (
    Mount("proc", "proc", _STRICT),
    Mount("sys", "sysfs", ("ro", *_STRICT)),
    Mount("sys/fs/cgroup", "cgroup2", _STRICT),
    Mount("dev", "tmpfs", ("nosuid", "noexec"), (("mode", "0755"), ("size", "1m"))),
    Node("dev/null", 1, 3),
    Node("dev/zero", 1, 5),
    Node("dev/full", 1, 7),
    Node("dev/random", 1, 8),
    Node("dev/urandom", 1, 9),
    Node("dev/tty", 5, 0),
    Link("dev/ptmx", "pts/ptmx"),
    Link("dev/fd", "/proc/self/fd"),
    Link("dev/stdin", "/proc/self/fd/0"),
    Link("dev/stdout", "/proc/self/fd/1"),
    Link("dev/stderr", "/proc/self/fd/2"),
    Mount("dev/pts", "devpts", ("nosuid", "noexec"), (("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"))),
    Mount("dev/shm", "tmpfs", _STRICT, (("mode", "1777"),)),
    Mount("dev/mqueue", "mqueue", _STRICT),
    Console("dev/console"),
    Mount("run", "tmpfs", ("nosuid", "nodev"), (("mode", "0755"), ("size", "20%"))),
    Mount("run/lock", "tmpfs", _STRICT, (("mode", "1777"), ("size", "5m"))),
    Mount("tmp", "tmpfs", ("nosuid", "nodev"), (("mode", "1777"),)),
    *(
        Mask(path)
        for path in (
            "proc/acpi", "proc/kallsyms", "proc/kcore", "proc/key-users", "proc/keys", "proc/kmsg",
            "proc/latency_stats", "proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats",
            "sys/dev/block", "sys/firmware", "sys/fs/bpf", "sys/kernel/debug", "sys/kernel/security",
            "sys/kernel/tracing", "sys/devices/virtual/powercap",
        )
    ),
    *(ReadOnly(path) for path in ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")),
)  # fmt: skip


@dataclass(frozen=True)
class Terminal:
    """Both ends of a pseudo terminal: `master` is the spawner's, `slave` the vserver's."""

    master: int
    slave: int


def bind(tree: Path) -> int:
    """Mount the tree on itself in this (new) mount namespace, with what is mounted below it, and without devices."""
    syscalls.set_mount(syscalls.AT_FDCWD, path="/", propagation=syscalls.MS_SLAVE, recursive=True)
    root = syscalls.open_tree(syscalls.AT_FDCWD, str(tree), recursive=True)
    if not stat.S_ISDIR(os.fstat(root).st_mode):
        raise Refused(f"{tree} is not a directory (a symbolic link is not followed)")
    syscalls.set_mount(
        root, attributes=syscalls.MOUNT_ATTR_NODEV, propagation=syscalls.MS_PRIVATE, recursive=True, path=""
    )
    below = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    syscalls.attach(root, below, path=str(tree))
    os.close(below)
    return root


def perform(root: int, operations: tuple[Operation, ...] = OPERATIONS) -> Terminal | None:
    """Carry the operations out beneath the open root; the console's terminal, if one was asked for."""
    console = None
    for operation in operations:
        match operation:
            case Mount():
                _mount(root, operation)
            case Node():
                _node(root, operation)
            case Link():
                parent, name = _parent(root, operation.target)
                os.symlink(operation.to, name, dir_fd=parent)
                os.close(parent)
            case Console():
                console = _console(root, operation)
            case Mask():
                _mask(root, operation.target)
            case ReadOnly():
                _read_only(root, operation.target)
    return console


def open_terminal(pts: int) -> Terminal:
    """A new pseudo terminal of the devpts that is open as `pts`; it becomes nobody's controlling terminal by that."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = syscalls.openat2(pts, "ptmx", flags, resolve=_NO_LINKS)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    return Terminal(master, slave)


# --- one operation each -----------------------------------------------------------------------------------------------


def _mount(root: int, operation: Mount) -> None:
    target = _directory(root, operation.target)
    attributes = 0
    for word in operation.attributes:
        attributes |= _ATTRIBUTES[word]
    mount = syscalls.new_mount(operation.kind, operation.options, attributes)
    syscalls.attach(mount, target, path=f"/{operation.target}")
    os.close(mount)
    os.close(target)


def _node(root: int, operation: Node) -> None:
    parent, name = _parent(root, operation.target)
    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(operation.major, operation.minor), dir_fd=parent)
    os.chmod(name, 0o666, dir_fd=parent)  # whatever the umask is
    os.close(parent)


def _console(root: int, operation: Console) -> Terminal:
    pts = _directory(root, "dev/pts")
    terminal = open_terminal(pts)
    os.close(pts)
    parent, name = _parent(root, operation.target)
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent))
    os.close(parent)
    _cover(root, operation.target, terminal.slave)
    return terminal


def _mask(root: int, target: str) -> None:
    """An empty read-only directory over a directory, our own /dev/null over a file."""
    try:
        masked = syscalls.openat2(root, target, os.O_PATH, resolve=_NO_LINKS)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(os.fstat(masked).st_mode):
        empty = syscalls.new_mount("tmpfs", (("size", "4k"), ("mode", "0555")), _ATTRIBUTES["ro"] | _strict())
        syscalls.attach(empty, masked, path=f"/{target}")
        os.close(empty)
    else:
        null = syscalls.openat2(root, "dev/null", os.O_PATH, resolve=_NO_LINKS)
        found = os.fstat(null)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
            raise Refused(f"/dev/null is not the null device, so /{target} cannot be hidden by it")
        _cover(root, target, null)
        os.close(null)
    os.close(masked)


def _read_only(root: int, target: str) -> None:
    try:
        covered = syscalls.openat2(root, target, os.O_PATH, resolve=_NO_LINKS)
    except FileNotFoundError:
        return
    _cover(root, target, covered, _ATTRIBUTES["ro"] | _strict())
    os.close(covered)


def _cover(root: int, target: str, source: int, attributes: int = 0) -> None:
    """Bind an open file or directory over the target."""
    mount = syscalls.open_tree(source, "")
    if attributes:
        syscalls.set_mount(mount, attributes=attributes)
    below = syscalls.openat2(root, target, os.O_PATH, resolve=_NO_LINKS)
    syscalls.attach(mount, below, path=f"/{target}")
    os.close(below)
    os.close(mount)


def _strict() -> int:
    return syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC


def _directory(root: int, path: str) -> int:
    """The directory of this path beneath the root, made if it is missing."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return syscalls.openat2(root, path, flags, resolve=_NO_LINKS)
    except FileNotFoundError:
        parent, name = _parent(root, path)
        os.mkdir(name, 0o755, dir_fd=parent)
        os.close(parent)
        return syscalls.openat2(root, path, flags, resolve=_NO_LINKS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            wrong = "a symbolic link" if error.errno == errno.ELOOP else "not a directory"
            raise Refused(f"/{path} in the tree is {wrong}", hint="replace it by an empty directory") from error
        raise


def _parent(root: int, path: str) -> tuple[int, str]:
    directory, _, name = path.rpartition("/")
    return syscalls.openat2(root, directory or ".", os.O_PATH | os.O_DIRECTORY, resolve=_NO_LINKS), name
