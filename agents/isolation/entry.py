"""A program that joins a running vserver: through all of its namespaces at once, behind the same walls as its init.

       spawner ── clone into its cgroup ──▶ usher ── v1 cgroups, setns ── clone, as the spawner's child ──▶ program
                                              └─ exits

Rule 1: the usher closes every descriptor but the few it needs before it enters: root inside could reach for them.
Rule 2: the program gets pipes or a terminal of the vserver's own devpts, never a file or terminal of the host.
Rule 3: nobody changes cgroups after setns: where cgroup2 is mounted with nsdelegate, as systemd does, the kernel
        refuses whoever comes from outside the namespace (ENOENT). The program inherits the usher's.
Rule 4: users are read from the vserver's /etc/passwd as text, with a limit: no library looks names up inside.
"""

from __future__ import annotations

import fcntl
import os
import stat
import termios

from agents.isolation import capabilities, cgroup, confinement, rootfs, syscalls
from agents.isolation.order import ExecuteOrder, Report
from failover.errors import Refused

_ALL = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWCGROUP
)  # fmt: skip
_ACCOUNTS_BYTES = 1 << 20


def enter(order: ExecuteOrder, report: Report, report_fd: int, init: int, stdio: list[int]) -> None:
    """The usher, born in the vserver's cgroup. `init`: a pidfd of the vserver's first process."""
    report.step("join")
    cgroup.join_legacy(order.name)
    confinement.reset_process()
    confinement.stop_imports()
    confinement.keep_only((report_fd, init), stdio)
    report.step("setns")
    syscalls.setns(init, _ALL)
    os.close(init)
    report.step("clone")
    pid, pidfd = syscalls.clone(syscalls.CLONE_PARENT)
    if pid:
        report.hand("process", pidfd)
        os._exit(0)
    _become(order, report)


def _become(order: ExecuteOrder, report: Report) -> None:
    report.step("session")
    os.setsid()
    if order.terminal:
        _take_terminal(report)
    report.step("user")
    account = _account(order.user)
    groups = _groups(order.user, account.gid)
    environment = {
        "PATH": confinement.PATH, "HOME": account.home, "USER": order.user, "LOGNAME": order.user,
        "SHELL": account.shell, "TERM": "dumb",
    }  # fmt: skip
    try:
        os.chdir(account.home)
    except OSError:
        os.chdir("/")

    def drop_user() -> None:
        if account.uid == 0:
            capabilities.limit()
        os.setgroups(groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)

    report.step("exec")
    confinement.execute(order.argv or (account.shell, "-l"), environment | dict(order.environment), drop_user)


def _take_terminal(report: Report) -> None:
    pts = os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    terminal = rootfs.open_terminal(pts)
    os.close(pts)
    fcntl.ioctl(terminal.slave, termios.TIOCSCTTY, 0)
    confinement.stdio(terminal.slave, terminal.slave, terminal.slave)
    report.hand("terminal", terminal.master)
    os.close(terminal.master)
    os.close(terminal.slave)


class _Account:
    def __init__(self, uid: int, gid: int, home: str, shell: str) -> None:
        self.uid, self.gid, self.home, self.shell = uid, gid, home or "/", shell or "/bin/sh"


def _account(user: str) -> _Account:
    for fields in _lines("/etc/passwd", 7):
        if fields[0] == user and fields[2].isdecimal() and fields[3].isdecimal():
            return _Account(int(fields[2]), int(fields[3]), fields[5], fields[6])
    if user == "root":  # a tree without users still has root
        return _Account(0, 0, "/root", "/bin/sh")
    raise Refused(f"there is no user '{user}' in its /etc/passwd")


def _groups(user: str, first: int) -> list[int]:
    further = [int(f[2]) for f in _lines("/etc/group", 4) if f[2].isdecimal() and user in f[3].split(",")]
    return [first, *further]


def _lines(path: str, length: int) -> list[list[str]]:
    """The lines of a file with that many fields. What is no plain file of sane size counts as empty."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = os.read(file, _ACCOUNTS_BYTES) if stat.S_ISREG(os.fstat(file).st_mode) else b""
    finally:
        os.close(file)
    rows = [line.split(":") for line in text.decode("utf-8", "replace").splitlines()]
    return [row for row in rows if len(row) == length]
