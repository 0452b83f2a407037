"""Does an address answer? Asked every 10 ms from the client host, however long the answers take.

Times are CLOCK_MONOTONIC, which all hosts of a lab share with the machine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from failover.errors import Unreachable
from failover.lab.lab import Lab
from failover.lab.observer import PERIOD_S, Observer, say
from failover.lab.place import CLIENT

_LONGEST = 200  # bytes of an answer that are kept


@dataclass(frozen=True)
class Sample:
    sent: float
    answered: float | None  # None: no answer within the time-out
    what: str  # the status and the beginning of the body, or why there is no answer


class Probe(Observer):
    """`url`: http://10.77.1.1/path (answered: any status below 500) or tcp://10.77.1.1:5432 (a connection).

    with Probe(lab, "http://10.77.1.1/") as probe:
        cut_at = lab.power_off("hostA")
        back_at = probe.await_answer(after=cut_at + 0.1, timeout_s=10)
    """

    def __init__(self, lab: Lab, url: str, *, host: str = CLIENT, timeout_s: float = 0.25) -> None:
        words = [sys.executable, "-m", "failover.lab.probe", url, str(timeout_s)]
        super().__init__(lab.host(host).command(words))
        self.url = url
        self.samples: list[Sample] = []  # in the order in which they ended

    def see(self, said: dict[str, Any]) -> None:
        self.samples.append(Sample(said["sent"], said["answered"], said["what"]))

    def await_answer(self, *, after: float = 0.0, timeout_s: float = 30.0) -> float:
        """As `first_answer_after`, but waits for it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (answered := self.first_answer_after(after)) is not None:
                return answered
            self.wait(PERIOD_S)
        raise Unreachable(f"{self.url} did not answer within {timeout_s:g} s")

    def first_answer_after(self, moment: float) -> float | None:
        """When the first request sent after a moment was answered; None: none yet."""
        with self.watching():
            answers = [s.answered for s in self.samples if s.answered is not None and s.sent > moment]
        return min(answers, default=None)

    def longest_outage(self, began: float, ended: float) -> float:
        """Seconds of the longest outage that touches this time; 0 when every request in it was answered."""
        return max((end - start for start, end in self.outages() if end > began and start < ended), default=0.0)

    def outages(self) -> list[tuple[float, float]]:
        """(last good answer before, first good answer after) around every run of requests that were not answered.

        An outage that is not over yet ends with the last request.
        """
        with self.watching():
            samples = sorted(self.samples, key=lambda sample: sample.sent)
        return outages(samples)


def outages(samples: list[Sample]) -> list[tuple[float, float]]:
    """`samples` in the order of sending. What failed before the first good answer is no outage: it was never there."""
    found: list[tuple[float, float]] = []
    last_good: float | None = None
    failing = False
    for sample in samples:
        if sample.answered is None:
            failing = True
        else:
            if failing and last_good is not None:
                found.append((last_good, sample.answered))
            failing, last_good = False, sample.answered
    if failing and last_good is not None:
        found.append((last_good, samples[-1].sent))
    return found


# --- the process in the client host


async def _observe(url: str, timeout_s: float) -> None:
    say({})
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    asking: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while not ended.done():
        task = asyncio.create_task(_ask(url, timeout_s))
        asking.add(task)
        task.add_done_callback(asking.discard)
        due = max(due + PERIOD_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    if asking:
        await asyncio.wait(asking)


async def _ask(url: str, timeout_s: float) -> None:
    sent, answered = time.monotonic(), None
    try:
        async with asyncio.timeout(timeout_s):
            what, good = await answer(url)
        if good:
            answered = time.monotonic()
    except TimeoutError:
        what = "no answer in time"
    except OSError as error:
        what = error.strerror or str(error)
    say({"sent": sent, "answered": answered, "what": what})


async def answer(url: str) -> tuple[str, bool]:
    """What it says, and whether that is good."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        if parts.scheme == "tcp":
            return "connected", True
        host, asked = parts.netloc, f"?{parts.query}" if parts.query else ""
        writer.write(f"GET {parts.path or '/'}{asked} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode("utf-8", "replace").partition("\r\n\r\n")
        status = head.split(" ", 2)[1] if head.count(" ") else "nothing"
        return f"{status} {body[:_LONGEST]}".strip(), status.isdigit() and int(status) < 500
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(_observe(sys.argv[1], float(sys.argv[2])))
