"""A story's events, played on a lab in real time; what the story expects is not judged here. A file needs no more than:

events:
  - at: 2s
    do: power-off hostA
  - at: 10s
    do: [power-on hostA, move v1 hostA]
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from pathlib import Path

from failover.errors import FailoverError
from failover.lab import faults
from failover.lab.lab import Lab
from failover.simulate.reading import load_events

Due = tuple[float, int, str, Callable[[], None] | None]  # when, in which order, its words, what ends an earlier one


def play(lab: Lab, story: Path, say: Callable[[str], None] = print) -> None:
    """Every event at its time, one line each. An event that is refused is said and does not end the play."""
    order = itertools.count()
    queue: list[Due] = [(event.at_s, next(order), event.text, None) for event in load_events(story)]
    heapq.heapify(queue)
    began = time.monotonic()
    try:
        while queue:
            time.sleep(max(0.0, began + queue[0][0] - time.monotonic()))
            _, _, text, ending = heapq.heappop(queue)
            later, refused = _do(lab, text, ending)
            at_s = time.monotonic() - began
            if later:
                heapq.heappush(queue, (at_s + later.after_s, next(order), later.text, later.do))
            say(f"{at_s:8.3f} s  {text}{refused}")
    finally:
        for _, _, _, ending in queue:  # interrupted: what ends by itself shall end
            if ending:
                ending()


def _do(lab: Lab, text: str, ending: Callable[[], None] | None) -> tuple[faults.Later | None, str]:
    try:
        return (ending() if ending else faults.begin(lab, text)), ""
    except FailoverError as error:
        return None, f"  refused: {error}"
