"""What root may do inside a vserver: the bounding set, which no program inside can ever widen.

Rule 1: everything is dropped that is not named here, also capabilities that a newer kernel invents.
Rule 2: only in the single-threaded child: the kernel keeps these sets per thread.
Rule 3: bounding set, then (elsewhere) the seccomp filter, then `limit`: a filter needs CAP_SYS_ADMIN to be loaded.
"""

from __future__ import annotations

from pathlib import Path

import prctl

from agents.isolation import syscalls

# SYS_BOOT is harmless in a PID namespace of its own: reboot(2) ends that namespace, and the inits need it for that.
# MKNOD and SYS_ADMIN are left out: with a device node or a mount root would reach the host's disks.
KEPT_NAMES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_BOOT", "SYS_CHROOT",
)  # fmt: skip
KEPT = frozenset(getattr(prctl, f"CAP_{name}") for name in KEPT_NAMES)
KEPT_MASK = sum(1 << number for number in KEPT)

LAST = int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def bound() -> None:
    """Drop everything else from the bounding set, and all ambient capabilities."""
    for number in range(LAST + 1):
        if number not in KEPT:
            if number <= prctl.CAP_LAST_CAP:
                prctl.capbset_drop(number)
            else:  # the library knows only those of the headers that it was built with
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    left = {number for number in range(LAST + 1) if syscalls.prctl(syscalls.PR_CAPBSET_READ, number)}
    if not left <= KEPT:
        raise OSError(1, f"the kernel keeps capabilities {sorted(left - KEPT)} in the bounding set")


def limit() -> None:
    """Give up, for the running program too, what the bounding set no longer has. Nothing stays inheritable."""
    syscalls.set_capabilities(KEPT_MASK)
