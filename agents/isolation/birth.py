"""The first process of a vserver, from clone to exec. Its name for the host is the pid that the spawner got.

Rule 1: it does nothing before the spawner's "go": by then its cgroup holds it and its record is written.
Rule 2: it does not become the vserver's program when its time is over: mounting may have taken long.
Rule 3: the old root is gone, not hidden, before the vserver's program runs.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from agents.isolation import cgroup, confinement, rootfs, syscalls
from agents.isolation.order import Report, StartOrder

NAMESPACES = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def namespaces(order: StartOrder) -> int:
    return NAMESPACES | (syscalls.CLONE_NEWNET if order.network == "fresh" else 0)


def live(order: StartOrder, report: Report, network: int | None) -> None:
    """Become the vserver's init, or raise."""
    if not report.await_go():
        return
    report.step("process")
    os.setsid()
    cgroup.join_legacy(order.name)
    confinement.reset_process()
    report.step("network")
    if network is not None:
        syscalls.setns(network, syscalls.CLONE_NEWNET)
    elif order.network == "fresh":
        _loopback_up()
    report.step("root")
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    root = rootfs.bind(Path(order.tree))
    report.step("mounts")
    terminal = rootfs.perform(root)
    if terminal is None:
        raise ValueError("the list of mounts has no console")
    report.hand("console", terminal.master, terminal.slave)
    confinement.stop_imports()
    report.step("pivot")
    os.fchdir(root)
    syscalls.pivot_root_here()
    socket.sethostname(order.hostname)
    confinement.stdio(terminal.slave, terminal.slave, terminal.slave)
    order.check_in_time()
    report.step("exec")
    fixed = {"PATH": confinement.PATH, "HOME": "/", "TERM": "linux", "container": "vserver"}
    confinement.execute(order.init, fixed | dict(order.environment))


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
