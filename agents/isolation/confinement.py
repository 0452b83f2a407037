"""The last walls around a process that becomes part of a vserver; the same for its init and for who enters later.

Rule 1: order: bounding set, keyring, seccomp, capabilities or user, exec. Nothing else between the last two.
Rule 2: nothing is inherited from whoever started us: signals, limits, priority, umask, environment, descriptors.
Rule 3: nothing is imported once the process is inside: a module would be taken from the vserver's own tree.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from agents.isolation import capabilities, seccomp, syscalls
from agents.isolation.order import Report
from failover.errors import FailoverError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILTER = seccomp.program()

_INFINITE = resource.RLIM_INFINITY
_LIMITS = {  # soft, hard: the kernel's own defaults; a hard limit is never raised
    resource.RLIMIT_NOFILE: (1024, 524288),
    resource.RLIMIT_CORE: (0, _INFINITE),
    resource.RLIMIT_STACK: (8 << 20, _INFINITE),
}
_DEFAULT_TIMER_SLACK_NS = 50_000


def run(report: Report, work: Callable[[], None]) -> NoReturn:
    """Do a child's work: it execs, or it says why not and dies. It never returns into the spawner's code."""
    try:
        gc.disable()
        work()
    except (FailoverError, OSError) as error:
        report.failed(error)
    except BaseException as error:  # a bug; but the spawner's loop must not be entered a second time
        report.failed(error)
    finally:
        os._exit(1)


def stop_imports() -> None:
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()


def reset_process() -> None:
    """Before the vserver's root is entered: /proc is still the host's."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # those that the C library keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    syscalls.prctl(syscalls.PR_SET_TIMERSLACK, _DEFAULT_TIMER_SLACK_NS)
    syscalls.personality(0)
    for limit, (soft, hard) in _LIMITS.items():
        highest = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (_lower(soft, highest), _lower(hard, highest)))
    with contextlib.suppress(PermissionError):  # only CAP_SYS_RESOURCE may lower it again
        Path("/proc/self/oom_score_adj").write_text("0")


def _lower(wanted: int, highest: int) -> int:
    if highest == _INFINITE:
        return wanted
    return highest if wanted == _INFINITE else min(wanted, highest)


def stdio(*descriptors: int) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number, inheritable=True)


def keep_only(kept: tuple[int, ...], descriptors: list[int]) -> None:
    """Close everything but these, and make the standard three of `descriptors`, or of /dev/null."""
    if not descriptors:
        descriptors = [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)] * 3
    stdio(*descriptors)
    edge = 3
    for descriptor in sorted(kept):
        os.closerange(edge, descriptor)
        edge = descriptor + 1
    syscalls.close_from(edge)


def execute(
    argv: tuple[str, ...], environment: Mapping[str, str], drop_user: Callable[[], None] = capabilities.limit
) -> None:
    """Raise the walls and become the program. Returns never; OSError of exec if it cannot.

    `drop_user` takes the capabilities of the running process away: by itself, or by becoming an ordinary user.
    """
    program = _find(argv[0], environment["PATH"])
    capabilities.bound()
    syscalls.new_session_keyring()
    syscalls.close_on_exec_from(3)
    syscalls.load_seccomp(FILTER)
    drop_user()
    os.execve(program, argv, environment)


def _find(program: str, path: str) -> str:
    """Like a shell. os.execvpe would import modules on its way."""
    if "/" in program:
        return program
    error = OSError(errno.ENOENT, "not found", program)
    for directory in path.split(":"):
        found = f"{directory}/{program}"
        if os.access(found, os.X_OK):
            return found
        if os.access(found, os.F_OK):
            error = PermissionError(errno.EACCES, "not executable", program)
    raise error
