"""Running the programs that make trees: tar, mmdebstrap, chroot and the like.

Rule 1: they die with us, whatever kills us: so nobody writes into a tree that nobody builds any more.
Rule 2: they have their own mount, pid and uts namespaces: what they mount is gone when they are.
Rule 3: what an operator can cure (no space, no network) is said in those words, by a table of what the tools print.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agents.command import CommandFailed, Done
from agents.command import run as run_command
from failover.errors import Denied, FailoverError, Refused

TIMEOUT_S = 3600.0

# The signal at our death reaches unshare, and the end of unshare ends its pid namespace.
_TIED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)

# The name of the host as the tool sees it; kernel.hostname is that of the writer's own uts namespace.
_NAMED = ("sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"')


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = TIMEOUT_S,
    hostname: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Done:
    """Run a tool to its end; CommandFailed bears its name and what it said, Refused says that the disk is full."""
    named = (*_NAMED, hostname) if hostname else ()
    try:
        return run_command(
            [*_TIED, *named, *argv], timeout_s=timeout_s, env={**os.environ, "LC_ALL": "C", **(env or {})}
        )
    except CommandFailed as failed:
        if re.search("No space left on device|Disk quota exceeded", failed.stderr):
            raise _no_space() from failed
        how = "took too long" if failed.returncode is None else f"ended with {failed.returncode}"
        said = f": {failed.stderr}" if failed.stderr else ""
        raise CommandFailed(
            f"{argv[0]} {how}{said}", returncode=failed.returncode, stderr=failed.stderr, hint=failed.hint
        ) from failed


@contextmanager
def in_words(doing: str) -> Iterator[None]:
    """What the kernel refuses meanwhile, as an error that an operator understands."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space() from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Denied(f"{doing}: {_said(error)}", hint="this needs root") from error
        raise FailoverError(f"{doing}: {_said(error)}") from error


def _no_space() -> Refused:
    return Refused("no space left on the disk; what was begun is removed", hint="make room there, then build again")


def _said(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
