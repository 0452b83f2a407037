"""What an operator's own cluster may expect: random faults drawn for it, and what many such hours cost each vserver.

Rule 1: whatever is drawn comes from one random.Random(seed): equal seeds give equal stories.
Rule 2: every fault is healed, and the last ten minutes are calm, so that all must run again at the end.
Rule 3: every vserver has just written when a fault begins: what a replica lacks then is lost if the owner is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from failover.errors import BadInput
from failover.model import Cluster, Want
from failover.stories.drawing import Fault, Said, crash, ends_s, healed, lasting, link, once, some_seconds, two_links
from failover.stories.events import Event, Names, read_event
from failover.stories.outcome import Outcome

FAULTS_AN_HOUR = 10
QUIET_BEFORE_S = 60.0
QUIET_AFTER_S = 600.0
_TWO_AT_ONCE = 0.25  # the share of faults that begin while another one lasts
_APART_S = 60.0  # between the end of one fault and the beginning of the next, or of the next of the same host


def draw(cluster: Cluster, seed: int, until_s: float) -> tuple[Event, ...]:
    """Faults and what heals them, in the order of time. Raises BadInput when there is no time for any."""
    if until_s < QUIET_BEFORE_S + QUIET_AFTER_S + 60.0:
        least_s = QUIET_BEFORE_S + QUIET_AFTER_S + 60.0
        raise BadInput(f"{until_s:g} s are too short for faults", hint=f"raise until to at least {least_s:g}s")
    chance = random.Random(seed)
    names = Names(tuple(cluster.hosts), tuple(cluster.vservers))
    last_s = until_s - QUIET_AFTER_S
    events: list[Event] = []
    busy = dict.fromkeys(("", *cluster.hosts, *cluster.vservers), 0.0)  # until when each has a fault; "": the store
    for begins_s, beside in _beginnings(chance, until_s, last_s):
        kind = chance.choices(list(_FAULTS), [fault.weight for fault in _FAULTS.values()])[0]
        said = _FAULTS[kind].draw(chance, cluster)
        subjects = _subjects(cluster, said)
        at_s = round(max(begins_s, *(busy[subject] for subject in (subjects if beside else busy))), 1)
        over_s = at_s + ends_s(said)
        if not said or over_s > last_s:
            continue
        writes = [(0.0, f"write {vserver} {chance.randint(1, 64)}M") for vserver in sorted(cluster.vservers)]
        events += [read_event(text, round(at_s + after_s, 1), names).event for after_s, text in (*writes, *said)]
        busy |= dict.fromkeys(subjects, over_s + _APART_S)
    return tuple(sorted(events, key=lambda event: event.at_s))


def _beginnings(chance: random.Random, until_s: float, last_s: float) -> Iterator[tuple[float, bool]]:
    """When a fault may begin, and whether it may do so beside another one."""
    count = max(1, round(FAULTS_AN_HOUR * until_s / 3600.0))
    times = sorted(chance.uniform(QUIET_BEFORE_S, max(QUIET_BEFORE_S, last_s)) for _ in range(count))
    for at_s in times:
        yield at_s, chance.random() < _TWO_AT_ONCE


def _subjects(cluster: Cluster, said: Sequence[Said]) -> set[str]:
    """The hosts and vservers of a fault; of one that names none, the store."""
    named = {word for _, text in said for word in text.split() if word in cluster.hosts or word in cluster.vservers}
    return named or {""}


# --- the faults -------------------------------------------------------------------------------------------------------


def _ailing(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    checked = sorted(name for name, vserver in cluster.vservers.items() if vserver.checks)
    length_s = some_seconds(chance, 10, 300)
    return ((0.0, f"check-fails {chance.choice(checked)} {length_s}s"),) if checked else ()


_FAULTS: Mapping[str, Fault] = {
    "power cut": Fault(5, healed("power-off {}", "power-on {}", 20, 600)),
    "isolation": Fault(5, healed("isolate {}", "join {}", 2, 600)),
    "link": Fault(5, link(2, 300, "store", "store")),
    "two links": Fault(3, two_links(2, 300, "store")),
    "stall": Fault(3, lasting("stall {} {}s", 0.5, 60)),
    "orderly shutdown": Fault(2, healed("shutdown {}", "power-on {}", 120, 600)),
    "reboot": Fault(2, once("reboot {}")),
    "store outage": Fault(2, healed("store-down", "store-up", 2, 300)),
    "restart of the store": Fault(1, once("store-restart")),
    "agent hangs": Fault(2, lasting("agent-hang {} {}s", 1, 60)),
    "agent dies": Fault(1, once("agent-restart {}")),
    "agent is away": Fault(1, healed("agent-stop {}", "agent-start {}", 5, 300)),
    "guard hangs": Fault(1, lasting("guard-hang {} {}s", 0.5, 30)),
    "guard dies": Fault(1, once("guard-stop {}")),
    "leader hangs": Fault(2, lasting("leader-hang {1}s", 1, 60)),
    "leader dies": Fault(2, once("leader-stop")),
    "full disk": Fault(1, healed("disk-full {}", "disk-free {}", 30, 600)),
    "crash": Fault(3, crash),
    "check": Fault(2, _ailing),
}


# --- what they cost ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Of one vserver over many stories; seconds, sorted. `length_s`: all stories together."""

    vserver: str
    length_s: float
    outages_s: tuple[float, ...]
    lost_s: tuple[float, ...]  # how much of the latest writes each takeover lost

    @property
    def available(self) -> float:
        return max(0.0, 1.0 - sum(self.outages_s) / self.length_s) if self.length_s else 1.0


def costs(cluster: Cluster, outcomes: Sequence[Outcome], until_s: float) -> tuple[Cost, ...]:
    """Of every vserver that is wanted started."""
    return tuple(
        Cost(
            name,
            len(outcomes) * until_s,
            tuple(sorted(length_s for outcome in outcomes for length_s in outcome.outages.get(name, ()))),
            tuple(sorted(age_s for outcome in outcomes for age_s in outcome.lost.get(name, ()))),
        )
        for name in sorted(cluster.vservers)
        if cluster.vservers[name].want is Want.STARTED
    )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """By nearest rank; None when there is nothing."""
    return ordered[max(0, ceil(len(ordered) * percent / 100.0) - 1)] if ordered else None


def worst_outage_s(outcome: Outcome) -> float:
    return max((length_s for lengths in outcome.outages.values() for length_s in lengths), default=0.0)
