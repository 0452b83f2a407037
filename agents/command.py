"""Running a foreign program: a timeout, the exit code, and the tail of its stderr in the error.

Never with a shell, never with preexec_fn: the daemons have threads, and the child must come from vfork or posix_spawn.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from failover.errors import FailoverError

_TAIL_LINES = 6


class CommandFailed(FailoverError):
    """A program ended with an exit code that was not expected. `returncode` is None when it ran out of time."""

    exit_code = 1

    def __init__(self, message: str, *, returncode: int | None, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.stderr = stderr


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    expect: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> Done:
    """Run a program to its end.

    Raises CommandFailed when it cannot be started, runs longer than `timeout_s` seconds (it is then killed), or ends
    with an exit code that is not in `expect`.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout_s, check=False, env=env, cwd=cwd)
    except subprocess.TimeoutExpired as late:
        tail = _tail(late.stderr or b"")
        raise CommandFailed(f"{words[0]} did not end within {timeout_s:g} s", returncode=None, stderr=tail) from late
    except OSError as error:
        raise CommandFailed(
            f"{words[0]} cannot be started ({error.strerror})", returncode=None, stderr="", hint="is it installed?"
        ) from error
    if done.returncode not in expect:
        tail = _tail(done.stderr)
        said = f": {tail}" if tail else ""
        raise CommandFailed(f"{words[0]} ended with {done.returncode}{said}", returncode=done.returncode, stderr=tail)
    return Done(done.returncode, done.stdout, done.stderr)


def _tail(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-_TAIL_LINES:])
