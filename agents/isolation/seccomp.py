"""The system calls that no program inside a vserver needs and that have opened doors in the past: a deny list.

Built once, by the spawner when it loads; the child of a clone only hands the finished bytes to the kernel.
The rest of the wall is capabilities and namespaces: here stand the calls that those two would still let through, and
those whose bugs would be the kernel's own.
"""

from __future__ import annotations

import errno
import os

import pyseccomp

from agents.isolation import syscalls

_TIOCSTI = 0x5412  # types into somebody else's terminal
_TIOCLINUX = 0x541C

# Refused with EPERM, whatever the arguments.
DENIED = (
    "_sysctl", "acct", "add_key", "adjtimex", "bpf", "clock_adjtime", "clock_adjtime64", "clock_settime",
    "clock_settime64", "create_module", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
    "get_kernel_syms", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl",
    "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount_setattr", "move_mount", "nfsservctl",
    "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "query_module", "quotactl", "quotactl_fd",
    "request_key", "settimeofday", "stime", "swapoff", "swapon", "sysfs", "syslog", "uselib", "userfaultfd", "ustat",
    "vhangup", "vm86", "vm86old",
)  # fmt: skip
# Refused with ENOSYS: the C library then falls back to a call whose flags can be looked at.
UNKNOWN = ("clone3",)

_ARCHITECTURES = {
    "x86_64": (pyseccomp.Arch.X86_64, pyseccomp.Arch.X86, pyseccomp.Arch.X32),
    "aarch64": (pyseccomp.Arch.AARCH64, pyseccomp.Arch.ARM),
}


def program() -> bytes:
    """The filter as classic BPF instructions, for syscalls.load_seccomp."""
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    native = pyseccomp.system_arch()
    for architecture in _ARCHITECTURES.get(os.uname().machine, ()):
        if architecture != native:
            rules.add_arch(architecture)  # else a 32-bit program would be killed at its first call
    refused = pyseccomp.ERRNO(errno.EPERM)
    for name in DENIED:
        rules.add_rule(refused, name)
    for name in UNKNOWN:
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
    # In a user namespace of its own root would have every capability again, the bounding set notwithstanding.
    for name, position in (("clone", 0), ("unshare", 0), ("setns", 1)):
        user = pyseccomp.Arg(position, pyseccomp.MASKED_EQ, syscalls.CLONE_NEWUSER, syscalls.CLONE_NEWUSER)
        rules.add_rule(refused, name, user)
    for request in (_TIOCSTI, _TIOCLINUX):
        rules.add_rule(refused, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    return _exported(rules)


def _exported(rules: pyseccomp.SyscallFilter) -> bytes:
    descriptor = os.memfd_create("seccomp")
    with os.fdopen(descriptor, "r+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
