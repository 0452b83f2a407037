"""The way to one backup: ssh with the hosts' own keys, over one connection that stays open.

Rule 1: nothing of the user's or the system's ssh configuration counts; every option stands here.
Rule 2: every command has a deadline. One that passes it takes the shared connection down with it, so that the next
        one does not wait behind a dead peer.
Rule 3: the backup answers with one JSON line, or with bytes where a verb says so; what it refuses comes back as the
        error that it raised, with its exit code.
"""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agents.command import CommandFailed, Done, run
from agents.replication import rsync
from failover.errors import BadInput, Denied, FailoverError, Refused, Unreachable, Unsafe

CONNECT_S = 5
KEEPALIVE_S, KEEPALIVES = 2, 3
PERSIST_S = 120
_IS_IT_UP = "is it up, and is its sshd?"
_REMOTE = {error.exit_code: error for error in (FailoverError, BadInput, Unsafe, Refused, Unreachable, Denied)}


@dataclass(frozen=True)
class Channel:
    host: str
    address: str
    port: int = 22
    key: Path = Path("/etc/failover/id_ed25519")
    known_hosts: Path = Path("/etc/failover/known_hosts")
    sockets: Path = Path("/run/failover/ssh")

    @property
    def destination(self) -> str:
        bare = f"[{self.address}]" if ":" in self.address else self.address
        return f"root@{bare}"

    @property
    def socket(self) -> Path:
        return self.sockets / f"{self.host}-{self.port}"

    def ssh(self) -> list[str]:
        """ssh and all of its options, without the destination."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_S,
            "ServerAliveInterval": KEEPALIVE_S,
            "ServerAliveCountMax": KEEPALIVES,
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "IdentitiesOnly": "yes",
            "ControlMaster": "auto",
            "ControlPath": self.socket,
            "ControlPersist": PERSIST_S,
            "LogLevel": "ERROR",
        }
        words = ["ssh", "-F", "none", "-p", str(self.port), "-i", str(self.key)]
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        return words

    def call(self, verb: str, *words: str | int, stdin: bytes = b"", timeout_s: float = 30.0) -> bytes:
        """Run one verb of agents/replication/receive.py on the backup.

        Raises what the backup raised, or Unreachable.
        """
        request = shlex.join([verb, *(str(word) for word in words)])
        reused = self.socket.exists()
        done = self._run(request, stdin, timeout_s)
        if done.returncode == rsync.CONNECTION and reused:  # the shared connection had died: once more with a new one
            self.reset()
            done = self._run(request, stdin, timeout_s)
        if done.returncode == 0:
            return done.stdout
        raise self._error(done)

    def send(
        self, source: Path, staging: str, paths: bytes, *, bandwidth_bytes_s: int | None, timeout_s: float
    ) -> Done:
        """One rsync into a staging; ends well with 0 and VANISHED. Raises CommandFailed otherwise."""
        self._prepare()
        argv = rsync.send(source, self.destination, staging, shlex.join(self.ssh()), bandwidth_bytes_s)
        try:
            return run(argv, timeout_s=timeout_s, stdin=paths, expect=(0, rsync.VANISHED))
        except CommandFailed as error:
            if error.returncode is None or error.returncode in rsync.UNREACHABLE:
                self.reset()
            raise

    def reset(self) -> None:
        """Close the shared connection; the next command makes a new one."""
        with suppress(CommandFailed):
            run([*self.ssh(), "-O", "exit", self.destination], timeout_s=2.0, expect=(0, rsync.CONNECTION))
        self.socket.unlink(missing_ok=True)

    def _prepare(self) -> None:
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _run(self, request: str, stdin: bytes, timeout_s: float) -> Done:
        self._prepare()
        expected = (0, rsync.CONNECTION, *_REMOTE)
        try:
            return run([*self.ssh(), self.destination, request], timeout_s=timeout_s, stdin=stdin, expect=expected)
        except CommandFailed as error:
            self.reset()
            raise Unreachable(f"{self.host} did not answer ({error.message})", hint=_IS_IT_UP) from error

    def _error(self, done: Done) -> FailoverError:
        said = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == rsync.CONNECTION:
            last = said.splitlines()[-1].strip() if said else "no answer"
            if "Permission denied" in said or "Host key verification failed" in said:
                return Denied(f"{self.host} does not let us in ({last})", hint="exchange the hosts' keys again")
            return Unreachable(f"{self.host} cannot be reached ({last})", hint=_IS_IT_UP)
        try:
            answer = json.loads(done.stdout)
            return _REMOTE[done.returncode](str(answer["error"]), hint=str(answer["hint"]))
        except (ValueError, TypeError, KeyError):
            return FailoverError(f"{self.host} answered what we do not understand: {said[-300:]}")
