"""What an operator's own cluster may expect: random faults drawn for it, and what many such hours cost each vserver.

Rule 1: whatever is drawn comes from one random.Random(seed): equal seeds give equal stories.
Rule 2: every fault is healed, and the last ten minutes are calm, so that all must run again at the end.
Rule 3: every vserver has just written when a fault begins: what a replica lacks then is lost if the owner is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from failover.errors import BadInput
from failover.model import Cluster, Want
from failover.stories.events import Event, Names, read_event
from failover.stories.outcome import Outcome

FAULTS_AN_HOUR = 10
QUIET_BEFORE_S = 60.0
QUIET_AFTER_S = 600.0
_TWO_AT_ONCE = 0.25  # the share of faults that begin while another one lasts
_APART_S = 60.0  # between the end of one fault and the beginning of the next, or of the next of the same host

Said = tuple[float, str]  # after how many seconds, the event
Drawn = Callable[[random.Random, Cluster], tuple[Said, ...]]


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
        ends_s = at_s + max((_end(after_s, text) for after_s, text in said), default=0.0)
        if not said or ends_s > last_s:
            continue
        writes = [(0.0, f"write {vserver} {chance.randint(1, 64)}M") for vserver in sorted(cluster.vservers)]
        events += [read_event(text, round(at_s + after_s, 1), names).event for after_s, text in (*writes, *said)]
        busy |= dict.fromkeys(subjects, ends_s + _APART_S)
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


def _end(after_s: float, text: str) -> float:
    last = text.rpartition(" ")[2]
    return after_s + (float(last[:-1]) if last[:-1].replace(".", "").isdigit() and last.endswith("s") else 0.0)


# --- the faults -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    weight: int
    draw: Drawn


def _host(chance: random.Random, cluster: Cluster) -> str:
    return chance.choice(sorted(cluster.hosts))


def _seconds(chance: random.Random, least: float, most: float) -> float:
    """Short ones are as likely as long ones: drawn by their magnitude."""
    return round(float(least * (most / least) ** chance.random()), 1)


def _healed(begin: str, end: str, least_s: float, most_s: float) -> Drawn:
    """A fault of one host or of the store that lasts until it is healed."""

    def drawn(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
        host = _host(chance, cluster)
        return (0.0, begin.format(host)), (_seconds(chance, least_s, most_s), end.format(host))

    return drawn


def _lasting(text: str, least_s: float, most_s: float) -> Drawn:
    """A fault that ends by itself."""
    return lambda chance, cluster: ((0.0, text.format(_host(chance, cluster), _seconds(chance, least_s, most_s))),)


def _once(text: str) -> Drawn:
    return lambda chance, cluster: ((0.0, text.format(_host(chance, cluster))),)


def _link(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    """A link to the store or to another host, one way or both."""
    host = _host(chance, cluster)
    return _cut(chance, host, chance.choice(["store", "store", *sorted(set(cluster.hosts) - {host})]), 0.0)


def _two_links(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    """Two links of one host, the second while the first is cut; each is mended by itself."""
    host = _host(chance, cluster)
    ends = ["store", *sorted(set(cluster.hosts) - {host})]
    one, *two = chance.sample(ends, min(2, len(ends)))
    first = _cut(chance, host, one, 0.0)
    return (*first, *(said for other in two for said in _cut(chance, host, other, chance.uniform(0.0, first[-1][0]))))


def _cut(chance: random.Random, host: str, other: str, after_s: float) -> tuple[Said, ...]:
    ends = chance.choice([f"{host} {other}", f"{host} -> {other}", f"{other} -> {host}"])
    return (after_s, f"cut {ends}"), (after_s + _seconds(chance, 2, 300), f"mend {ends}")


def _crash(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    return ((0.0, f"crash {chance.choice(sorted(cluster.vservers))}"),) if cluster.vservers else ()


def _ailing(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    checked = sorted(name for name, vserver in cluster.vservers.items() if vserver.checks)
    length_s = _seconds(chance, 10, 300)
    return ((0.0, f"check-fails {chance.choice(checked)} {length_s}s"),) if checked else ()


_FAULTS: Mapping[str, Fault] = {
    "power cut": Fault(5, _healed("power-off {}", "power-on {}", 20, 600)),
    "isolation": Fault(5, _healed("isolate {}", "join {}", 2, 600)),
    "link": Fault(5, _link),
    "two links": Fault(3, _two_links),
    "stall": Fault(3, _lasting("stall {} {}s", 0.5, 60)),
    "orderly shutdown": Fault(2, _healed("shutdown {}", "power-on {}", 120, 600)),
    "reboot": Fault(2, _once("reboot {}")),
    "store outage": Fault(2, _healed("store-down", "store-up", 2, 300)),
    "restart of the store": Fault(1, _once("store-restart")),
    "agent hangs": Fault(2, _lasting("agent-hang {} {}s", 1, 60)),
    "agent dies": Fault(1, _once("agent-restart {}")),
    "agent is away": Fault(1, _healed("agent-stop {}", "agent-start {}", 5, 300)),
    "guard hangs": Fault(1, _lasting("guard-hang {} {}s", 0.5, 30)),
    "guard dies": Fault(1, _once("guard-stop {}")),
    "leader hangs": Fault(2, _lasting("leader-hang {1}s", 1, 60)),
    "leader dies": Fault(2, _once("leader-stop")),
    "full disk": Fault(1, _healed("disk-full {}", "disk-free {}", 30, 600)),
    "crash": Fault(3, _crash),
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
