"""The programs of Debian's fence-agents: https://github.com/ClusterLabs/fence-agents/blob/main/doc/FenceAgentAPI.md

    stdin    one line NAME=VALUE per option, action=off or action=status among them
    exit     off: 0 when it is done. status: 0 is on, 2 is off. Anything else is a failure

Rule 1: it counts as off when `off` was done, and `status` says so after it. Nothing else is a success.
Rule 2: secrets are read when they are needed, and go to the agent's stdin: they are on no command line, in no
        environment, in no message and not in ZooKeeper.
Rule 3: an attempt has a thread and one process group at a time. At its deadline, and when it is given up, the group is
        killed. Of what it says only the end is kept.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from failover.errors import BadInput, Denied, FailoverError
from failover.fencing import DEADLINE_S, Ended
from failover.model import SECRET, Fence, is_secret
from failover.plan.fencing import CAME_BACK

OFF, ON = 2, 0  # exit codes of `status`
STATUS_S = 15.0  # of the deadline, what is kept for the status
LONGEST_SECRET = 4096
LONGEST_INPUT = 60_000  # what a pipe takes without being read
KEPT, SHOWN = 2000, 300  # of what it says: bytes, and characters of the last lines
PATH = ":".join(filter(None, (os.environ.get("PATH"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")))
ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root"}

_log = logging.getLogger("failover.fencing")


class FenceAgents:
    """`changed` is called, from any thread, when an attempt has ended."""

    def __init__(self, changed: Callable[[], None] = lambda: None, deadline_s: float = DEADLINE_S) -> None:
        self._changed, self._deadline_s = changed, deadline_s
        self._lock = threading.Lock()
        self._under_way: dict[str, Attempt] = {}
        self._ended: list[Ended] = []

    def cut(self, host: str, fence: Fence, began_at: float) -> None:
        with self._lock:
            before = self._under_way.pop(host, None)
            attempt = self._under_way[host] = Attempt(fence, self._deadline_s)
        if before is not None:
            before.give_up()
        threading.Thread(target=self._run, args=(host, attempt, began_at), name=f"fence {host}", daemon=True).start()

    def _run(self, host: str, attempt: Attempt, began_at: float) -> None:
        because = "it failed in an unforeseen way"
        try:
            because = attempt.run()
        except Exception:
            _log.exception("the power of %s could not be cut", host)
        finally:
            with self._lock:
                if self._under_way.get(host) is attempt:
                    del self._under_way[host]
                self._ended.append(Ended(host, began_at, not because, because))
            self._changed()

    def give_up(self, host: str = "") -> None:
        with self._lock:
            attempts = [attempt for name, attempt in self._under_way.items() if host in ("", name)]
        for attempt in attempts:
            attempt.give_up()

    def ended(self) -> Sequence[Ended]:
        with self._lock:
            ended, self._ended = self._ended, []
        return ended


class Attempt:
    """One attempt to cut one host's power."""

    def __init__(self, fence: Fence, deadline_s: float) -> None:
        self._fence, self._deadline_s, self._ends_at = fence, deadline_s, time.monotonic() + deadline_s
        self._lock = threading.Lock()
        self._ended = False
        self._hears, self._calls = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def give_up(self) -> None:
        with self._lock:
            if not self._ended:
                os.write(self._calls, b"x")

    def run(self) -> str:
        """Why it failed; empty when the host is off."""
        try:
            return self._run()
        except FailoverError as error:
            return str(error)
        finally:
            with self._lock:
                self._ended = True
                os.close(self._hears)
                os.close(self._calls)

    def _run(self) -> str:
        options = with_secrets(self._fence.options)
        code, said = self._call(options, "off", self._ends_at - min(STATUS_S, self._deadline_s / 3))
        if code != 0:
            return f"action=off ended with {code}{said}"
        code, said = self._call(options, "status", self._ends_at)
        if code == ON:
            return "it says that the host is on, after it was switched off"
        return "" if code == OFF else f"action=status ended with {code}{said}"

    def _call(self, options: Mapping[str, str], action: str, ends_at: float) -> tuple[int, str]:
        """Its exit code, and the end of what it says. Raises FailoverError when there is no exit code."""
        told = "".join(f"{name}={value}\n" for name, value in {**options, "action": action}.items()).encode()
        if len(told) > LONGEST_INPUT:
            raise BadInput("its options are too long")
        program = shutil.which(self._fence.agent, path=PATH)
        if program is None:
            raise BadInput("it is not installed on this host", hint="apt-get install fence-agents")
        with subprocess.Popen(
            [program],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        ) as process:
            try:
                said = self._followed(process, told, ends_at)
            finally:
                with suppress(ProcessLookupError):  # as long as it is not waited for its number is its own
                    os.killpg(process.pid, signal.SIGKILL)
            return process.wait(), _of(said, self._secrets(options))

    def _followed(self, process: subprocess.Popen[bytes], told: bytes, ends_at: float) -> bytes:
        """Until it has ended; the end of what it said."""
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(told)
        process.stdin.close()
        said, out, end = b"", process.stdout.fileno(), os.pidfd_open(process.pid)
        poll = select.poll()
        for source in (out, end, self._hears):
            poll.register(source, select.POLLIN)
        try:
            while True:
                left_s = ends_at - time.monotonic()
                ready = [source for source, _ in poll.poll(max(0.0, left_s) * 1000)]
                if self._hears in ready:
                    raise FailoverError(CAME_BACK)
                if out in ready:
                    more = os.read(out, 65536)
                    said = (said + more)[-KEPT:]
                    if not more:
                        poll.unregister(out)
                if end in ready:
                    return said
                if left_s <= 0:
                    raise FailoverError(f"it did not end within {self._deadline_s:g} s")
        finally:
            os.close(end)

    def _secrets(self, options: Mapping[str, str]) -> set[str]:
        return {value for name, value in options.items() if self._fence.options.get(name) != value}


def with_secrets(options: Mapping[str, str]) -> Mapping[str, str]:
    """NAME_file becomes NAME. Raises BadInput or Denied, which tell the place and never the secret."""
    read = {name: value for name, value in options.items() if not is_secret(name)}
    for name, place in options.items():
        if is_secret(name):
            read[name.removesuffix(SECRET)] = read_secret(Path(place))
    return read


def read_secret(path: Path) -> str:
    """The one line of a file that only its owner can read."""
    try:
        with path.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(LONGEST_SECRET + 1)
        line = data.decode("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadInput(f"{path} cannot be read ({why})", hint="every host that may lead needs it") from error
    if mode & 0o077:
        raise Denied(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
    if not line.isprintable() or not line or len(data) > LONGEST_SECRET:
        raise BadInput(f"{path} is not one line of text")
    return line


def _of(said: bytes, secrets: Collection[str]) -> str:
    text = said.decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret, "…")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = " | ".join(lines[-3:])[-SHOWN:]
    return f": {''.join(c if c.isprintable() else ' ' for c in last)}" if last else ""
