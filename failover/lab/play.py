"""A story's events in real time, played onto a lab that is up; what the story expects is not judged here
(performance.py does that, on a lab of its own). A file needs no more than:

events:
  - at: 2s
    do: power-off hostA
  - at: 10s
    do: [power-on hostA, move v1 hostA]
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from failover.errors import FailoverError
from failover.lab import faults
from failover.lab.lab import Lab
from failover.lab.later import Later, give_up
from failover.stories.reading import load_events

Action = Callable[[], Later | None]


@dataclass(order=True)
class _Due:
    at_s: float
    order: int
    what: Later = field(compare=False)


def play(lab: Lab, story: Path, say: Callable[[str], None] = print) -> None:
    """Every event at its time, one line each. An event that is refused is said and does not end the play."""

    def tell(at_s: float, text: str, refused: FailoverError | None) -> None:
        say(f"{at_s:8.3f} s  {text}" + (f"  refused: {refused}" if refused else ""))

    events = load_events(story)
    in_time(((event.at_s, event.text, partial(faults.begin, lab, event.text)) for event in events), tell)


def in_time(
    actions: Iterable[tuple[float, str, Action]], tell: Callable[[float, str, FailoverError | None], None]
) -> None:
    """Each action at its second from now, and what follows it. `tell` hears of each, once it is done."""
    queue = [_Due(at_s, order, Later(0.0, text, do)) for order, (at_s, text, do) in enumerate(actions)]
    heapq.heapify(queue)
    order, began = len(queue), time.monotonic()
    try:
        while queue:
            time.sleep(max(0.0, began + queue[0].at_s - time.monotonic()))
            due = heapq.heappop(queue).what
            later, refused = _do(due)
            at_s = time.monotonic() - began
            if later:
                order += 1
                heapq.heappush(queue, _Due(at_s + later.after_s, order, later))
            if due.text or refused:
                tell(at_s, due.text, refused)
    finally:
        for waiting in queue:  # interrupted: what ends by itself shall end
            if waiting.what.after_s:
                give_up(waiting.what)


def _do(due: Later) -> tuple[Later | None, FailoverError | None]:
    try:
        return due.do(), None
    except FailoverError as error:
        return None, error
