"""Measured drills on a lab's sample: cut the power of its owner, or move it, and see from outside how long it was away.

All moments are CLOCK_MONOTONIC seconds of the machine that carries the lab; what the history has in wall-clock time is
converted.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass

from failover.lab import sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe

ANSWER_WITHIN_S = 60.0
STEPS = ("detection", "decision", "word", "promotion", "address", "start", "answer")


@dataclass(frozen=True)
class Takeover:
    """When what happened. `answered`: the first answer to the client outside."""

    source: str
    target: str
    cut: float
    noticed: float
    decided: float
    begun: float
    promoted: float
    address: float
    started: float
    answered: float

    @property
    def seconds(self) -> float:
        return self.answered - self.cut

    def timeline(self) -> list[tuple[str, float]]:
        """Each step and the seconds since the power was cut."""
        names = ("cut", "noticed", "decided", "begun", "promoted", "address", "started", "answered")
        return [(name, getattr(self, name) - self.cut) for name in names]

    def steps(self) -> dict[str, float]:
        """How long each step took: until the lease was seen to be over, until the leader's word, and so on."""
        moments = [moment for _, moment in self.timeline()]
        took = (end - begin for begin, end in itertools.pairwise(moments))
        return dict(zip(STEPS, took, strict=True))

    @property
    def beyond_detection(self) -> float:
        return self.answered - self.noticed


def take_over(lab: Lab, probe: Probe, source: str, ask: str) -> Takeover:
    """Cut the power of the owner `source`; `ask`: a host that stays up and is asked what happened."""
    began = time.time()
    cut = lab.power_off(source)
    answered = probe.await_answer(after=cut + 0.1, timeout_s=ANSWER_WITHIN_S)
    events = _events_since(lab, ask, began)
    taken = next(event for event in events if event["kind"] == "takeover")
    sample.await_("event of the start", lambda: _running(_events_since(lab, ask, began), taken["host"]))
    running = _running(_events_since(lab, ask, began), taken["host"])
    assert running is not None
    facts, offset = running["facts"], time.time() - time.monotonic()
    return Takeover(
        source,
        taken["host"],
        cut,
        taken["facts"]["noticed_at"] - offset,
        taken["at"] - offset,
        facts["begun_at"] - offset,
        facts["promoted_at"] - offset,
        facts["address_at"] - offset,
        facts["started_at"] - offset,
        answered,
    )


def move(lab: Lab, probe: Probe, target: str, ask: str) -> float:
    """A planned move; returns the seconds for which the client outside had no answer."""
    began = time.monotonic()
    sample.failover(lab, ask, "move", sample.NAME, target)
    moved = time.monotonic()
    answered = probe.await_answer(after=moved, timeout_s=ANSWER_WITHIN_S)
    return probe.longest_outage(began, answered)


def bring_back(lab: Lab, host: str, ask: str) -> None:
    """Power it on and wait until it is a backup again whose replica follows."""
    lab.power_on(host)
    sample.await_(f"replica on {host}", lambda: _follows(lab, host, ask))


def _follows(lab: Lab, host: str, ask: str) -> bool:
    found = sample.status(lab, ask)
    return bool(found["vservers"][sample.NAME]["backups"][host]["up"]) and sample.fresh(lab, ask)


def _events_since(lab: Lab, ask: str, began: float) -> list[dict]:  # type: ignore[type-arg]
    said = sample.failover(lab, ask, "history", sample.NAME, "--json")
    return [event for line in said.splitlines() if (event := json.loads(line))["at"] >= began]


def _running(events: list[dict], host: str) -> dict | None:  # type: ignore[type-arg]
    """The report of a start that is over: it may have been seen running before its first process was on record."""
    reports = (event for event in events if event["kind"] == "running" and event["host"] == host)
    return next((event for event in reports if "started_at" in event["facts"]), None)
