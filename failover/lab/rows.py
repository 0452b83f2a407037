"""Which acknowledged rows were lost that must not be: pure, from what clients, backups and started trees have said.

    row 7 acknowledged ── backup: "I have whole what was before now" ── owner cut off ── backup started: 7 must be there

Rule 1: what a tree had when it was started is what there is from then on, and what was acknowledged after.
Rule 2: of that a tree elsewhere must have what was acknowledged before the moment of which its host has last said that
        it has it whole; what ran there last and was no replica since must have all.
Rule 3: what is missing otherwise was never said to be safe: it is counted, and no breach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from failover.lab.witness import Start, Whole


@dataclass(frozen=True)
class Loss:
    """`rows`: acknowledged, and not in what was started. `broken`: those of them that must have been."""

    at: float
    vserver: str
    host: str
    rows: frozenset[int]
    broken: frozenset[int]


def losses(acknowledged: Mapping[int, float], seen: Sequence[Whole | Start]) -> Iterator[Loss]:
    """Of one vserver; `seen` in the order of time. Only starts that lack something."""
    last: Start | None = None
    whole: dict[str, float] = {}  # host -> the moment of which it last said so
    for one in seen:
        if isinstance(one, Whole):
            whole[one.host] = one.of
            continue
        if last is not None:
            since = last
            there = {n for n, at in acknowledged.items() if n in since.rows or since.at < at < one.at}
            missing = frozenset(there - one.rows)
            safe = whole.get(one.host, inf if one.host == last.host else -inf)
            if missing:
                broken = frozenset(n for n in missing if acknowledged[n] < safe)
                yield Loss(one.at, one.vserver, one.host, missing, broken)
        last = one
        whole.pop(one.host, None)
