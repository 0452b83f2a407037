"""Clients outside that write numbered rows into every vserver over HTTP, 20 a second, however long the answers take.

    client ── GET /cgi-bin/put?17 ──▶ the vserver's web server ── appends 17 to /var/rows ──▶ "17": acknowledged

A row whose answer was lost or late is never tried again under the same number: it may be there or not.
Times are CLOCK_MONOTONIC, which all hosts of a lab share with the machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from failover.lab.lab import Lab
from failover.lab.observer import Observer, say
from failover.lab.place import CLIENT
from failover.lab.probe import Sample, answer

PERIOD_S = 0.05
ANSWER_S = 0.5
ROWS = "var/rows"  # in the tree
_SCRIPT = "var/www/cgi-bin/put"
_PUT = f"""\
#!/bin/sh
echo "$QUERY_STRING" >> /{ROWS} || exit 1
printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' "$QUERY_STRING"
"""


def prepare(lab: Lab, host: str, vserver: str) -> None:
    """Let a quick tree that lies on `host`, running or not, take rows."""
    write = 'cd "/vservers/$0" && mkdir -p var/www/cgi-bin && printf %s "$1" > "$2" && chmod 755 "$2" && : > "$3"'
    lab.exec(host, ["sh", "-ec", write, vserver, _PUT, _SCRIPT, ROWS])


class Load(Observer):
    """`addresses`: vserver -> one of its addresses. `samples`: each row that was tried, by vserver and number."""

    def __init__(self, lab: Lab, addresses: Mapping[str, str]) -> None:
        words = [sys.executable, "-m", "failover.lab.load", json.dumps(dict(addresses))]
        super().__init__(lab.host(CLIENT).command(words))
        self.samples: dict[str, dict[int, Sample]] = {vserver: {} for vserver in addresses}

    def see(self, said: dict[str, Any]) -> None:
        self.samples[said["vserver"]][said["n"]] = Sample(said["sent"], said["answered"], said["what"])

    def acknowledged(self, vserver: str) -> dict[int, float]:
        """Each row that was, and when."""
        with self.watching():
            samples = self.samples[vserver].items()
            return {number: sample.answered for number, sample in samples if sample.answered is not None}

    def tried(self, vserver: str) -> list[Sample]:
        """In the order of sending."""
        with self.watching():
            return sorted(self.samples[vserver].values(), key=lambda sample: sample.sent)


# --- the process in the client host


async def _write(addresses: Mapping[str, str]) -> None:
    say({})
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    writing: set[asyncio.Task[None]] = set()
    due, number = time.monotonic(), 0
    while not ended.done():
        number += 1
        for vserver, address in addresses.items():
            task = asyncio.create_task(_put(vserver, address, number))
            writing.add(task)
            task.add_done_callback(writing.discard)
        due = max(due + PERIOD_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    if writing:
        await asyncio.wait(writing)


async def _put(vserver: str, address: str, number: int) -> None:
    sent, answered = time.monotonic(), None
    try:
        async with asyncio.timeout(ANSWER_S):
            what, _ = await answer(f"http://{address}/cgi-bin/put?{number}")
        if what == f"200 {number}":
            answered = time.monotonic()
    except TimeoutError:
        what = "no answer in time"
    except OSError as error:
        what = error.strerror or str(error)
    say({"vserver": vserver, "n": number, "sent": sent, "answered": answered, "what": what})


if __name__ == "__main__":
    asyncio.run(_write(json.loads(sys.argv[1])))
