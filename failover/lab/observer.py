"""A process that looks at a lab from outside and tells what it sees, one JSON object per line; its first line is `{}`.

Rule: it ends when its stdin does, so it never outlives who asked for it, not even a SIGKILL.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from failover.errors import FailoverError

PERIOD_S = 0.01


class Observer:
    """`command`: the process. Subclasses get what it says by `see`, from a thread of their own."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._seen = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def see(self, said: dict[str, Any]) -> None:
        raise NotImplementedError

    def start(self) -> Self:
        # a session of its own: a Ctrl-C at the terminal is not for it
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, start_new_session=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise FailoverError(f"the observer does not start: {' '.join(self._command)}")
        self._reader = threading.Thread(target=self._read, args=[self._process], daemon=True)
        self._reader.start()
        return self

    def stop(self) -> Self:
        """Look no longer; what was seen stays."""
        if self._process and self._process.stdin and self._reader:
            self._process.stdin.close()
            self._reader.join(timeout=10)
            self._process.wait(timeout=10)
        self._process = None
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._seen:
                self.see(json.loads(line))
                self._seen.notify_all()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While held nothing new is seen."""
        with self._seen:
            yield

    def wait(self, timeout_s: float) -> None:
        """Until something new is seen, or the time is over."""
        with self._seen:
            self._seen.wait(timeout_s)


def say(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)
