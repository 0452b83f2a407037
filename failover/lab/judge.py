"""What became of a story on a lab, in the words of the simulator's outcome: pure, from what was seen and said.

    final        `failover status --json`, and what runs as seen from outside
    moves        `failover history --json`: each takeover or planned move of what is wanted started
    fenced       the same: whose vservers were taken over while it took no part, or had to wait when it was lost
    violations   what the watch saw, every 10 ms: two hosts that run one vserver, or speak with its address

Rule 1: where an outside view and a report differ, the outside view counts for what runs.
Rule 2: a host that stood still runs what it ran until its guard has had a turn: that long its processes may run beside
        their successor, but they reach nobody. So only what speaks counts in that moment.
Rule 3: two that were heard between two looks are a breach unless the watch was late: they may have spoken in turn then.
        Two that go on speaking are heard in the next look.
Rule 4: a copy that somebody has started by hand counts once the leader has had its turn about it; what nobody manages
        (it is ignored, or not assigned yet) counts again once somebody does, and that has had its turn.
Rule 5: an excuse has a beginning and an end: what begins outside of it, or outlasts it, is a breach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from failover.lab.watch import Sight
from failover.model import Want
from failover.stories.story import Move

STARTED, IGNORED = str(Want.STARTED), str(Want.IGNORED)
TURN_S = 1.0  # until a guard that stood still has had its turn
BY_HAND_S = 10.0  # until the leader has had its turn about what people did
_MOVES = ("takeover", "planned")

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Seen:
    """`status`: as the command last gave it. `store_down`: before that. `runs`, `frozen`: vserver -> hosts."""

    status: Mapping[str, Any]
    store_down: bool
    runs: Mapping[str, Sequence[str]]
    frozen: Mapping[str, Sequence[str]]


def final(seen: Seen, vserver: str, primary: str) -> str:
    """As failover/simulate/engine.py says it of a simulated cluster."""
    said = seen.status["vservers"].get(vserver)
    runs = seen.runs.get(vserver, ())
    if said is None:
        return "removed"
    owner, started = said["owner"], said["want"] == STARTED
    if said["state"] == "ignored":
        return f"ignored@{[*runs, owner or primary][0]}"
    if owner is None:
        return f"started@{runs[0]}" if runs else "waiting" if started else f"stopped@{primary}"
    if said["state"] == "error":
        return f"error@{owner}"
    held = not seen.store_down and any(hold["subject"] == vserver for hold in seen.status["holds"])
    if held and seen.status["hosts"].get(owner, {}).get("state") == "lost":
        return "waiting"  # though it may run on there, when no other host may ever run it
    if runs:
        return f"started@{owner if owner in runs else runs[0]}"
    if started and held:
        return "waiting"
    return f"frozen@{owner}" if owner in seen.frozen.get(vserver, ()) else f"stopped@{owner}"


def moves(history: History) -> tuple[Move, ...]:
    return tuple(
        Move(event["vserver"], event["facts"]["from"], event["host"], event["kind"])
        for event in history
        if event["kind"] in _MOVES and event["facts"].get("from") and event["facts"]["want"] == STARTED
    )


def fenced(history: History) -> frozenset[str]:
    """Hosts that owned something started, took no part, and were declared dead."""
    owners: dict[str, str] = {}
    found = set()
    for event in history:
        facts = event["facts"]
        if "want" in facts:
            owners[event["vserver"]] = event["host"]
        if event["kind"] == "takeover" and facts["want"] == STARTED and facts.get("from_alive") is False:
            found.add(facts["from"])
        if event["kind"] == "lost" and any(owners.get(v) == event["host"] for v in facts.get("owned", "").split()):
            found.add(event["host"])
    return frozenset(found)


def lines(history: History) -> Iterator[tuple[float, str]]:
    """Each event at its moment (seconds since 1970), in the simulator's words."""
    for event in history:
        facts = event["facts"]
        if "want" in facts:
            host, source = event["host"], facts.get("from")
            where = f"from {source} to {host} ({event['kind']})" if source else f"on {host} ({event['kind']})"
            where = f"epoch {event['epoch']}, {where}, wanted {facts['want']}"
            yield event["at"], f"{event['vserver']}: {where}: {event['text']}"
        elif event["vserver"] is None:
            yield event["at"], f"the leader: {event['text']}"
        else:
            yield event["at"], str(event["text"])


@dataclass(frozen=True)
class Excuses:
    """Moments of CLOCK_MONOTONIC: when a host went on after it had stood still; when a copy was started by hand; from
    when until when nobody managed it."""

    went_on: Sequence[float] = ()
    by_hand: Mapping[str, Sequence[float]] = field(default_factory=dict)
    unmanaged: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def two_may_run(self, vserver: str, began: float, ended: float) -> bool:
        turns = [(at - 0.1, at + TURN_S, at + TURN_S) for at in self.went_on]
        return _excused([*turns, *self._by_people(vserver, began)], began, ended)

    def two_may_speak(self, vserver: str, began: float, ended: float) -> bool:
        return _excused(self._by_people(vserver, began), began, ended)

    def _by_people(self, vserver: str, began: float) -> list[tuple[float, float, float]]:
        hands = [(at, at + BY_HAND_S, began + BY_HAND_S) for at in self.by_hand.get(vserver, ())]
        return hands + [(since, until, until + BY_HAND_S) for since, until in self.unmanaged.get(vserver, ())]


def _excused(excuses: Sequence[tuple[float, float, float]], began: float, ended: float) -> bool:
    """Each (since, until, over): what begins between the first two is excused up to the third; then another counts."""
    for since, until, over in sorted(excuses):
        if since <= began <= until:
            began = max(began, over)
    return ended <= began


def unmanaged(history: History, vserver: str, later_s: float) -> list[tuple[float, float]]:
    """From when until when nobody managed it: before the leader's first word about it, and while that says `ignored`.
    `later_s`: what is added to the moments of the history."""
    found: list[tuple[float, float]] = []
    since: float | None = -math.inf
    for event in history:
        if event["vserver"] != vserver or "want" not in event["facts"]:
            continue
        managed = event["facts"]["want"] != IGNORED
        if managed and since is not None:
            found.append((since, event["at"] + later_s))
        since = None if managed else event["at"] + later_s if since is None else since
    return found if since is None else [*found, (since, math.inf)]


def violations(vserver: str, sights: Sequence[Sight], now: float, excuses: Excuses) -> Iterator[tuple[float, str]]:
    """Breaches of invariants 1 and 2, each at its moment."""
    yield from _breaches(
        1, f"{vserver} runs on", [(sight.at, sight.runs) for sight in sights], now, vserver, excuses.two_may_run
    )
    spoken = [(sight.at, () if sight.late else sight.speaks) for sight in sights]
    yield from _breaches(2, f"the address of {vserver} is up on", spoken, now, vserver, excuses.two_may_speak)


def _breaches(
    number: int,
    what: str,
    seen: Sequence[tuple[float, tuple[str, ...]]],
    now: float,
    vserver: str,
    excused: Any,
) -> Iterator[tuple[float, str]]:
    ends = [*(at for at, _ in seen[1:]), now]
    run: list[tuple[float, float, tuple[str, ...]]] = []
    for (at, hosts), end in zip(seen, ends, strict=True):
        if len(hosts) > 1 and run and run[-1][1:] == (at, hosts):
            run[-1] = (run[-1][0], end, hosts)
        elif len(hosts) > 1:
            run.append((at, end, hosts))
    for began, ended, hosts in run:
        if not excused(vserver, began, ended):
            yield began, f"invariant {number}: {what} {' and '.join(hosts)} for {ended - began:.3f} s"
