"""The Linux calls that Python does not offer. Each returns, or raises OSError with the call and the path; no policy.

Only this file and agents/nftables.py, for its library, use ctypes. Calls go by number, so one table says what a
machine needs; flags bear the kernel's names.
Kernel 5.14 or newer (clone3 into a cgroup, openat2, the new mount calls, cgroup.kill).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import TypeAlias

StrPath: TypeAlias = "str | os.PathLike[str]"

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_PARENT = 0x8000
CLONE_PIDFD = 0x1000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08

MS_BIND = 1 << 12
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_TIMERSLACK = 29
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
KEYCTL_JOIN_SESSION_KEYRING = 1
PIDFD_SIGNAL_PROCESS_GROUP = 4

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_CLOEXEC = os.O_CLOEXEC
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = _OPEN_TREE_CLONE = 1
_CLOSE_RANGE_CLOEXEC = 4
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_CAPABILITY_VERSION = 0x20080522
_PIDFD_INFO_EXIT, _PIDFD_INFO_BYTES = 1 << 3, 64
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_BYTES << 16 | 0xFF << 8 | 11

_SINCE_5 = {"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "clone3": 435,
            "close_range": 436, "openat2": 437, "mount_setattr": 442}  # fmt: skip
_NUMBERS = {
    "x86_64": {"capset": 126, "personality": 135, "mlockall": 151, "pivot_root": 155, "prctl": 157, "mount": 165,
               "umount2": 166, "keyctl": 250, "unshare": 272, "setns": 308},
    "aarch64": {"umount2": 39, "mount": 40, "pivot_root": 41, "capset": 91, "personality": 92, "unshare": 97,
                "prctl": 167, "keyctl": 219, "mlockall": 230, "setns": 268},
}  # fmt: skip
_NUMBER = _SINCE_5 | _NUMBERS.get(platform.machine(), {})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long] * 7
_libc.syscall.restype = ctypes.c_long
# Keeps the interpreter's lock during the call: the child of a clone must not have to take it again.
_locked_libc = ctypes.PyDLL(None, use_errno=True)
_locked_libc.syscall.argtypes = [ctypes.c_long] * 7
_locked_libc.syscall.restype = ctypes.c_long


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
                     "set_tid", "set_tid_size", "cgroup")
    ]  # fmt: skip


class _SocketFilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _call(name: str, *arguments: int | bytes, path: str | None = None, library: ctypes.CDLL = _libc) -> int:
    buffers = []  # they must live as long as the call
    words = []
    for argument in arguments:
        if isinstance(argument, bytes):
            buffer = ctypes.create_string_buffer(argument)
            buffers.append(buffer)
            words.append(ctypes.addressof(buffer))
        else:
            words.append(argument)
    if name not in _NUMBER:
        raise OSError(errno.ENOSYS, f"{name}: not known on {platform.machine()}", path)
    result: int = library.syscall(_NUMBER[name], *words, *[0] * (6 - len(words)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", path)
    return result


# --- memory -----------------------------------------------------------------------------------------------------------


def lock_memory() -> None:
    """All pages of this process, also future ones, stay in memory. Children are not concerned."""
    _call("mlockall", _MCL_CURRENT | _MCL_FUTURE)


# --- processes and namespaces -----------------------------------------------------------------------------------------


def clone(flags: int, *, cgroup: int | None = None, exit_signal: int = 0) -> tuple[int, int]:
    """(pid, pidfd) in the parent, (0, -1) in the child, which goes on here like after a fork.

    Only for a process with a single thread. `cgroup`: a descriptor of the cgroup2 directory in which the child begins.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    if cgroup is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = _call("clone3", ctypes.addressof(arguments), ctypes.sizeof(arguments), library=_locked_libc)
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    _call("unshare", flags)


def setns(descriptor: int, flags: int) -> None:
    """Enter a namespace, or with a pidfd all of a process's namespaces named by `flags`."""
    _call("setns", descriptor, flags)


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that somebody else has reaped. None: not reaped yet, or a kernel before 6.15."""
    info = bytearray(_PIDFD_INFO_BYTES)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    (mask,) = struct.unpack_from("=Q", info, 0)
    (status,) = struct.unpack_from("=i", info, 60)
    return status if mask & _PIDFD_INFO_EXIT else None


def close_on_exec_from(descriptor: int) -> None:
    _call("close_range", descriptor, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def close_from(descriptor: int) -> None:
    _call("close_range", descriptor, 0xFFFFFFFF, 0)


def prctl(option: int, second: int = 0, third: int = 0) -> int:
    return _call("prctl", option, second, third)


def personality(persona: int) -> None:
    _call("personality", persona)


def new_session_keyring() -> None:
    _call("keyctl", KEYCTL_JOIN_SESSION_KEYRING)


def set_capabilities(mask: int) -> None:
    """Make `mask` the permitted and effective set, and leave nothing inheritable."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _call("capset", header, struct.pack("=6I", low, low, 0, high, high, 0))


def load_seccomp(program: bytes) -> None:
    """Load a filter of classic BPF instructions, 8 bytes each. Needs CAP_SYS_ADMIN or no_new_privs."""
    buffer = ctypes.create_string_buffer(program)
    description = _SocketFilterProgram(len(program) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(description))


# --- paths and mounts -------------------------------------------------------------------------------------------------


def openat2(directory: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    how = struct.pack("=QQQ", flags | _CLOEXEC, mode, resolve)
    return _call("openat2", directory, os.fsencode(path), how, len(how), path=path)


def new_mount(kind: str, options: tuple[tuple[str, str], ...], attributes: int) -> int:
    """A detached mount of a new file system; an option without a value has the value ''."""
    context = _call("fsopen", kind.encode(), _FSOPEN_CLOEXEC, path=kind)
    try:
        _call("fsconfig", context, _FSCONFIG_SET_STRING, b"source", kind.encode(), 0, path=kind)
        for key, value in options:
            if value:
                _call("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0, path=f"{kind} {key}")
            else:
                _call("fsconfig", context, _FSCONFIG_SET_FLAG, key.encode(), 0, 0, path=f"{kind} {key}")
        _call("fsconfig", context, _FSCONFIG_CMD_CREATE, 0, 0, 0, path=kind)
        return _call("fsmount", context, _FSMOUNT_CLOEXEC, attributes, path=kind)
    finally:
        os.close(context)


def open_tree(directory: int, path: str, *, recursive: bool = False) -> int:
    """A detached bind mount of a path ('' is the descriptor itself); a symbolic link at its end is not followed."""
    flags = _OPEN_TREE_CLONE | _CLOEXEC | AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | (AT_RECURSIVE if recursive else 0)
    return _call("open_tree", directory, os.fsencode(path), flags, path=path)


def set_mount(
    mount: int, *, attributes: int = 0, propagation: int = 0, path: str = "", recursive: bool = False
) -> None:
    values = struct.pack("=QQQQ", attributes, 0, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", mount, os.fsencode(path), flags, values, len(values), path=path)


def attach(mount: int, target: int, *, path: str) -> None:
    """Attach a detached mount at the open `target`; `path` is for the error only."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", mount, b"", target, b"", flags, path=path)


def mount(source: StrPath, target: StrPath, kind: str | None, flags: int, data: str | None = None) -> None:
    """The classic call, for paths that nobody but us can change."""
    words = [text.encode() if text is not None else 0 for text in (kind, data)]
    _call("mount", os.fsencode(source), os.fsencode(target), words[0], flags, words[1], path=str(target))


def umount(path: StrPath, flags: int = 0) -> None:
    _call("umount2", os.fsencode(path), flags, path=str(path))


def pivot_root_here() -> None:
    """Make the working directory the root of this mount namespace and drop the old root, with all below it."""
    _call("pivot_root", b".", b".", path=".")
    umount(".", MNT_DETACH)
    os.chdir("/")
