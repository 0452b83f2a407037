"""Nothing fails, but the machine is busy: four endless loops per processor beside three hosts and their ZooKeeper. What
is moved, frozen or fenced all the same, and for how much of the time do leases rest on grants?

A line a minute, the whole at the end. `frozen`: how often v1 stood still where it should run, and for how long at most.
`back`: how often a host went back to its session.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from failover.lab import parts, sample
from failover.lab.lab import Lab
from failover.lab.rests import Rest, Rests, resting_s
from failover.lab.watch import Sight, Watch
from tests.bench import ours

MINUTE_S = 60.0
DECISIONS = ("takeover", "move", "lost", "fence")  # kinds of events that nobody asked for


@dataclass(frozen=True)
class Count:
    """Of a span of time."""

    moved: tuple[str, ...]  # what the history says beside that all is well
    frozen_s: tuple[float, ...]
    back: int
    on_grants: float  # a share, of all hosts

    def __str__(self) -> str:
        longest = f", {max(self.frozen_s):.3f} s at most" if self.frozen_s else ""
        return (
            f"moved {len(self.moved)}  frozen {len(self.frozen_s)}{longest}  back {self.back}  "
            f"on grants {self.on_grants:.1%}"
        )


def run(options: Namespace) -> None:
    with ours.cluster(f"bench-busy-{options.timing}", options.timing, debian=False) as lab:
        ours.running(lab)
        parts.await_grants(lab)
        with Watch(lab, sample.NAME) as watch, Rests(lab, lab.place.name) as rests, busy(options.loops):
            began, known = time.monotonic(), len(_history(lab))
            for minute in range(1, options.minutes + 1):
                time.sleep(max(0.0, began + minute * MINUTE_S - time.monotonic()))
                since = began + (minute - 1) * MINUTE_S
                print(f"minute {minute}: {_count(watch, rests, (), since, time.monotonic(), lab)}", flush=True)
            ended = time.monotonic()
        found = _history(lab)[known:]
        moved = tuple(event["text"] for event in found if event["kind"] in DECISIONS)
        whole = _count(watch, rests, moved, began, ended, lab)
        print("\n".join(("", f"{options.minutes} minutes, {options.timing}: {whole}", *moved)))
        print(json.dumps({"bench": "busy", "timing": options.timing, "minutes": options.minutes, **_plain(whole)}))


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many on each processor."""
    endless = [
        subprocess.Popen([sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"])
        for _ in range(loops * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for one in endless:
            one.kill()
            one.wait()


def _history(lab: Lab) -> list[dict[str, object]]:
    said = sample.failover(lab, lab.operator, "history", "--json", "--limit", "1000")
    return [json.loads(line) for line in said.splitlines()]


def _count(watch: Watch, rests: Rests, moved: tuple[str, ...], began: float, ended: float, lab: Lab) -> Count:
    seen = rests.all_seen()
    resting = resting_s(seen, lab.real_hosts, began, ended)
    back = sum(len((a.granted or set()) - (b.granted or set())) for a, b in pairwise(_within(seen, began, ended)))
    with watch.watching():
        frozen = tuple(_pauses(watch.sights, began, ended))
    return Count(moved, frozen, back, sum(resting.values()) / len(resting) / (ended - began))


def _within(seen: Sequence[Rest], began: float, ended: float) -> list[Rest]:
    """What is known; a store that did not answer says nothing of the hosts."""
    return [one for one in seen if began <= one.at < ended and one.granted is not None]


def _pauses(sights: Sequence[Sight], began: float, ended: float) -> Iterator[float]:
    for one, following in zip(sights, [*(sight.at for sight in sights[1:]), ended], strict=True):
        if not one.runs and began <= one.at < ended:
            yield following - one.at


def _plain(count: Count) -> dict[str, object]:
    return {
        "moved": len(count.moved),
        "frozen": len(count.frozen_s),
        "frozen_max_s": round(max(count.frozen_s, default=0.0), 3),
        "back": count.back,
        "on_grants": round(count.on_grants, 4),
    }
