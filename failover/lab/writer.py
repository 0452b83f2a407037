"""A database client outside: it inserts numbered rows one by one, and tells which ones were acknowledged, and when.

A row whose answer was lost is never tried again under the same number.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import Any

from failover.lab.lab import Lab
from failover.lab.observer import Observer, say
from failover.lab.place import CLIENT

PAUSE_S = 0.02
ANSWER_S = 1.0
TABLE = "acknowledged"


def psql(address: str) -> list[str]:
    return ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", address, "-U", "demo", "-d", "demo"]


class Writer(Observer):
    """`rows`: each acknowledged number and its moment (CLOCK_MONOTONIC)."""

    def __init__(self, lab: Lab, address: str) -> None:
        super().__init__(lab.host(CLIENT).command([sys.executable, "-m", "failover.lab.writer", address]))
        self.rows: dict[int, float] = {}

    def see(self, said: dict[str, Any]) -> None:
        self.rows[said["n"]] = said["at"]

    def acknowledged(self, since: float, until: float) -> set[int]:
        with self.watching():
            return {number for number, at in self.rows.items() if since < at < until}


# --- the process in the client host


def _write(address: str) -> None:
    say({})
    number = 0
    while not _ended():
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


def _insert(client: subprocess.Popen[str], number: int) -> int:
    """Row after row until one is not answered; returns the last number that was tried."""
    assert client.stdin is not None and client.stdout is not None
    while not _ended():
        number += 1
        try:
            client.stdin.write(f"insert into {TABLE} values ({number}) returning n;\n")
            client.stdin.flush()
        except OSError:
            return number
        answered, _, _ = select.select([client.stdout], [], [], ANSWER_S)
        if not answered or client.stdout.readline().strip() != str(number):
            return number
        say({"n": number, "at": time.monotonic()})
    return number


def _ended() -> bool:
    return bool(select.select([sys.stdin], [], [], PAUSE_S)[0])


if __name__ == "__main__":
    _write(sys.argv[1])
