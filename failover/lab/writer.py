"""A database client outside: it inserts numbered rows one by one, and remembers which ones were acknowledged.

`python -m failover.lab.writer ADDRESS` runs it in the client host and prints a line per acknowledged row: its number
and the moment (CLOCK_MONOTONIC). A row whose answer was lost is never tried again under the same number.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from types import TracebackType

from failover.lab.host import Host

PAUSE_S = 0.02
ANSWER_S = 1.0
TABLE = "acknowledged"


def psql(address: str) -> list[str]:
    return ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", address, "-U", "demo", "-d", "demo"]


class Writer:
    """The same as a context: `rows` maps each acknowledged number to its moment."""

    def __init__(self, client: Host, address: str) -> None:
        self.rows: dict[int, float] = {}
        argv = client.command([sys.executable, "-m", "failover.lab.writer", address])
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            row = json.loads(line)
            self.rows[row["n"]] = row["at"]

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()


def main() -> None:
    address, number = sys.argv[1], 0
    while True:
        client = subprocess.Popen(
            psql(address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PGCONNECT_TIMEOUT": "2"},
        )
        number = _insert(client, number)
        client.kill()
        client.wait()
        time.sleep(PAUSE_S)


def _insert(client: subprocess.Popen[str], number: int) -> int:
    """Row after row until one is not answered; returns the next number."""
    assert client.stdin is not None and client.stdout is not None
    while True:
        number += 1
        try:
            client.stdin.write(f"insert into {TABLE} values ({number}) returning n;\n")
            client.stdin.flush()
        except OSError:
            return number
        ready, _, _ = select.select([client.stdout], [], [], ANSWER_S)
        if not ready or client.stdout.readline().strip() != str(number):
            return number
        print(json.dumps({"n": number, "at": time.monotonic()}), flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
