"""Keeping one agent alive: started, adopted when another guard started it, killed when silent, started again.

Rule 1: never two. A process is named by its number and its time of start, both in agent.json; it is watched and
        signalled through a pidfd, so a number that was given away again is never hit.
Rule 2: the first death is answered at once; one that keeps dying is started more and more slowly.
Rule 3: silence is counted on a clock that stops while the machine sleeps.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

SETTLED_S = 10.0  # an agent that lived so long did not die of its start
BACK_OFF_S = (0.0, 0.1, 0.3, 1.0, 2.0, 5.0)  # before the next start, by the number of early deaths
FIRST_WORD = 4  # times the silence: so long may the first word take

log = logging.getLogger("failover.supervisor")


class Supervisor:
    """Without a command there is nothing to supervise."""

    def __init__(self, command: list[str], silence_s: float, directory: Path) -> None:
        self._command, self._silence_s, self._file = command, silence_s, directory / "agent.json"
        self._pidfd: int | None = None
        self._started_at = self._start_at = 0.0
        self._silent_at = float("inf")
        self._deaths = 0
        self._stopping = False
        if command:
            self._adopt()

    @property
    def pidfd(self) -> int | None:
        """Readable when the agent has ended."""
        return self._pidfd

    @property
    def done(self) -> bool:
        return self._pidfd is None and (self._stopping or not self._command)

    def heard(self) -> None:
        if not self._stopping:
            self._silent_at = time.monotonic() + self._silence_s

    def stop(self) -> None:
        """Ask the agent to end; it is killed if it has not after the time of a silence."""
        if not self._stopping:
            self._stopping, self._silent_at = True, time.monotonic() + self._silence_s
            self._signal(signal.SIGTERM)

    def tend(self) -> None:
        now = time.monotonic()
        if self._pidfd is not None:
            if select.select([self._pidfd], [], [], 0)[0]:
                self._ended(now)
            elif now >= self._silent_at:
                log.error("the agent is silent for too long and is killed")
                self._signal(signal.SIGKILL)
                self._silent_at = float("inf")
        if self._pidfd is None and self._command and not self._stopping and now >= self._start_at:
            self._start(now)

    def wait_s(self) -> float:
        """Until `tend` has something to do that `pidfd` does not tell."""
        if not self._command:
            return float("inf")
        return max(0.0, (self._start_at if self._pidfd is None else self._silent_at) - time.monotonic())

    def _start(self, now: float) -> None:
        try:
            pid = os.posix_spawnp(
                self._command[0],
                self._command,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            log.error("the agent cannot be started: %s", error)
            self._died(now, early=True)
            return
        self._pidfd = os.pidfd_open(pid)
        self._started_at, self._silent_at = now, now + FIRST_WORD * self._silence_s
        try:
            replace_file(self._file, json.dumps({"pid": pid, "started": _started(pid)}))
        except OSError as error:
            log.error("another guard will not find the agent: %s", error)
        log.info("the agent runs as %d", pid)

    def _adopt(self) -> None:
        try:
            record = json.loads(self._file.read_text())
            pid, started = record["pid"], record["started"]
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, KeyError, TypeError):
            return
        if _started(pid) != started:
            os.close(pidfd)
            return
        self._pidfd = pidfd
        self._started_at = time.monotonic()
        self._silent_at = self._started_at + self._silence_s
        log.info("the agent that runs as %d is adopted", pid)

    def _ended(self, now: float) -> None:
        assert self._pidfd is not None
        how = ""
        with suppress(ChildProcessError):  # an adopted one is another's child
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            if ended is not None:
                how = f" ({'exit code' if ended.si_code == os.CLD_EXITED else 'signal'} {ended.si_status})"
        os.close(self._pidfd)
        self._pidfd = None
        self._file.unlink(missing_ok=True)
        log.log(logging.INFO if self._stopping else logging.ERROR, "the agent has ended%s", how)
        self._died(now, early=now < self._started_at + SETTLED_S)

    def _died(self, now: float, *, early: bool) -> None:
        self._start_at = now + BACK_OFF_S[min(self._deaths, len(BACK_OFF_S) - 1)] if early else now
        self._deaths = self._deaths + 1 if early else 1

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def replace_file(path: Path, text: str) -> None:
    """All of it or nothing, for whoever reads it."""
    young = path.with_name(path.name + ".new")
    young.write_text(text)
    young.replace(path)


def _started(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
