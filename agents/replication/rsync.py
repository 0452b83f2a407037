"""rsync: what we ask of it, what its server may be asked, and what its exit codes mean. argv comes from sysrsync.

Rule 1: the sender names every path (`--files-from`), so rsync decides nothing: no recursion, no deletion, and with -I
        no guess by size and time that a file is unchanged. A file rewritten with its old size and time is sent too.
Rule 2: `--confine-root` (rsync 3.5.0) keeps the sender inside the tree, should a running vserver put a symlink in
        place of a directory that we have listed.
Rule 3: the server's command line is not passed on. What the client wants is compared with the one form that we send,
        and the argv that runs is made anew, with our own destination.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agents.command import run
from failover.errors import Refused

OLDEST = (3, 5)  # the first with --confine-root
SYNTAX, PROTOCOL, FILE_IO, SOCKET, STREAM = 1, 2, 11, 10, 12
PARTIAL, VANISHED, TIMEOUT, CONNECTION = 23, 24, 30, 255
UNREACHABLE = frozenset({SOCKET, STREAM, TIMEOUT, 35, CONNECTION})  # 35: waiting for a daemon connection

IO_TIMEOUT_S = 20
_LETTERS = "-aHAXSI"
_NANOSECONDS = "--modify-window=-1"  # else a time that is right to the second is left as it is
_COMMON = ("--numeric-ids", _NANOSECONDS, "--from0", "--files-from=-")
_SERVER_FLAGS = re.compile(r"-lHogDtpAXIRSe\.[A-Za-z]{0,20}")
_BANDWIDTH = re.compile(r"--bwlimit=[0-9]{1,9}")
_SERVER_OPTIONS = (f"--timeout={IO_TIMEOUT_S}", "-@-1", "--numeric-ids")  # -@-1 is how rsync itself says _NANOSECONDS
_DESTINATION = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})/([0-9]{1,18})/([0-9]{1,18})/?")


@dataclass(frozen=True)
class ServerRequest:
    """What a sender's rsync asks our forced command for."""

    vserver: str
    epoch: int
    generation: int
    flags: str


@cache  # what is raised is not remembered: rsync may be upgraded under a running agent
def check_version() -> None:
    """Raises Refused for an rsync that we cannot use."""
    said = run(["rsync", "--version"], timeout_s=10.0).stdout.decode("utf-8", "replace")
    found = re.match(r"rsync +version v?(([0-9]+)\.([0-9]+)\S*)", said)
    if found is None or (int(found[2]), int(found[3])) < OLDEST:
        version = found[1] if found else "of an unknown version"
        raise Refused(
            f"rsync {version} is too old: {'.'.join(map(str, OLDEST))} is needed",
            hint="apt-get install rsync; Debian 12 has it in bookworm-security",
        )


def send(source: Path, user_host: str, destination: str, ssh: str, bandwidth_bytes_s: int | None) -> list[str]:
    """argv that sends the NUL-separated paths on stdin from `source` to a staging named VSERVER/EPOCH/GENERATION."""
    options = [
        _LETTERS,
        *_COMMON,
        "--ignore-missing-args",
        f"--confine-root={source}",
        f"--timeout={IO_TIMEOUT_S}",
        f"--rsh={ssh}",
    ]
    if bandwidth_bytes_s:
        options.append(f"--bwlimit={max(1, bandwidth_bytes_s // 1024)}")
    return _argv(str(source), destination, options, user_host)


def copy(source: Path, target: Path) -> list[str]:
    """argv that copies the NUL-separated paths on stdin into another directory of this host."""
    return _argv(str(source), str(target), [_LETTERS, *_COMMON], None)


def serve(request: ServerRequest, replica: str) -> list[str]:
    """argv of the receiving server in its staging (the current directory); deltas are made against `replica`."""
    return [
        "rsync",
        "--server",
        request.flags,
        *_SERVER_OPTIONS,
        f"--compare-dest={replica}",
        ".",
        ".",
    ]


def server_request(words: Sequence[str]) -> ServerRequest | None:
    """The one form of `rsync --server` that we serve; None for everything else."""
    if len(words) < 6 or list(words[:2]) != ["rsync", "--server"] or not _SERVER_FLAGS.fullmatch(words[2]):
        return None
    middle = [word for word in words[3:-2] if not _BANDWIDTH.fullmatch(word)]
    place = _DESTINATION.fullmatch(words[-1])
    if middle != list(_SERVER_OPTIONS) or words[-2] != "." or place is None:
        return None
    return ServerRequest(place[1], int(place[2]), int(place[3]), words[2])


def path_list(paths: Iterable[bytes]) -> bytes:
    """For `--from0 --files-from=-`. A leading ./ keeps names with a leading # or ; from being taken for comments."""
    return b"".join(b"./" + path + b"\0" for path in paths)


def _argv(source: str, destination: str, options: Sequence[str], user_host: str | None) -> list[str]:
    from sysrsync.command_maker import get_rsync_command  # here, because the receiving end has no use for it

    argv: list[str] = get_rsync_command(source, destination, destination_ssh=user_host, options=options)
    return argv
