"""Faults drawn at random, in the words of a story: what begins one, and what heals it.

Rule: whatever is drawn comes from the random.Random that is handed in: equal seeds give equal faults.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from failover.model import Cluster

Said = tuple[float, str]  # after how many seconds, the event
Draw = Callable[[random.Random, Cluster], tuple[Said, ...]]  # nothing: the cluster has not what it takes


@dataclass(frozen=True)
class Fault:
    """`weight`: how often it is drawn, compared with others."""

    weight: int
    draw: Draw


def a_host(chance: random.Random, cluster: Cluster) -> str:
    return chance.choice(sorted(cluster.hosts))


def some_seconds(chance: random.Random, least: float, most: float) -> float:
    """Short ones are as likely as long ones: drawn by their magnitude."""
    return round(float(least * (most / least) ** chance.random()), 1)


def healed(begin: str, end: str, least_s: float, most_s: float) -> Draw:
    """A fault of one host or of the store that lasts until it is healed."""

    def drawn(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
        host = a_host(chance, cluster)
        return (0.0, begin.format(host)), (some_seconds(chance, least_s, most_s), end.format(host))

    return drawn


def lasting(text: str, least_s: float, most_s: float) -> Draw:
    """A fault that ends by itself."""
    return lambda chance, cluster: ((0.0, text.format(a_host(chance, cluster), some_seconds(chance, least_s, most_s))),)


def once(text: str) -> Draw:
    return lambda chance, cluster: ((0.0, text.format(a_host(chance, cluster))),)


def link(least_s: float, most_s: float, *ends: str) -> Draw:
    """A link to another host or to one of `ends`, one way or both."""

    def drawn(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
        host = a_host(chance, cluster)
        other = chance.choice([*ends, *sorted(set(cluster.hosts) - {host})])
        return cut(chance, host, other, least_s, most_s)

    return drawn


def two_links(least_s: float, most_s: float, *ends: str) -> Draw:
    """Two links of one host, the second while the first is cut; each is mended by itself."""

    def drawn(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
        host = a_host(chance, cluster)
        others = [*ends, *sorted(set(cluster.hosts) - {host})]
        one, *two = chance.sample(others, min(2, len(others)))
        first = cut(chance, host, one, least_s, most_s)
        meanwhile_s = chance.uniform(0.0, first[-1][0])
        return (*first, *(said for other in two for said in cut(chance, host, other, least_s, most_s, meanwhile_s)))

    return drawn


def cut(
    chance: random.Random, host: str, other: str, least_s: float, most_s: float, after_s: float = 0.0
) -> tuple[Said, ...]:
    """One way or both."""
    ends = chance.choice([f"{host} {other}", f"{host} -> {other}", f"{other} -> {host}"])
    return (after_s, f"cut {ends}"), (after_s + some_seconds(chance, least_s, most_s), f"mend {ends}")


def crash(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    return ((0.0, f"crash {chance.choice(sorted(cluster.vservers))}"),) if cluster.vservers else ()


def ends_s(said: Sequence[Said]) -> float:
    """When the last of it is over: what ends by itself has its length as the last word."""
    return max((after_s + _length_s(text) for after_s, text in said), default=0.0)


def _length_s(text: str) -> float:
    last = text.rpartition(" ")[2]
    return float(last[:-1]) if last.endswith("s") and last[:-1].replace(".", "").isdigit() else 0.0
