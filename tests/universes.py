"""Small simulated clusters for the tests: three hosts, and events as a story writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from failover.model import Cluster, Host, Sync, Vserver, frozen_map
from failover.simulate.engine import Universe, simulate
from failover.stories.events import Event, Names, read_event
from failover.stories.outcome import Outcome
from failover.stories.story import Initial, Traits
from failover.timing import PROFILES

HOSTS = ("h1", "h2", "h3")
V = Vserver("v", "h1", ("h2", "h3"), ("10.0.0.101/24",))
W = Vserver("w", "h2", ("h1", "h3"), ("10.0.0.102/24",))
MIDST = Initial(owners=frozen_map({"v": "h1", "w": "h2"}), running=frozen_map({"v": ("h1",), "w": ("h2",)}))


def cluster(*vservers: Vserver, timing: str = "normal") -> Cluster:
    hosts = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(HOSTS, 1)}
    return Cluster("test", hosts, {vserver.name: vserver for vserver in vservers or (V, W)}, timing=PROFILES[timing])


def rare(vserver: Vserver, every_s: float) -> Vserver:
    return replace(vserver, sync=Sync(every_s=every_s))


def events(told: dict[float, str]) -> tuple[Event, ...]:
    """{100: "isolate h1; write v 5M"}"""
    found = []
    for at_s, texts in told.items():
        for text in texts.split("; "):
            read = read_event(text, at_s, Names())
            assert not read.complaints, read.complaints
            found.append(read.event)
    return tuple(found)


def played(
    told: dict[float, str],
    *vservers: Vserver,
    until_s: float = 300.0,
    initial: Initial = MIDST,
    traits: dict[str, Traits] | None = None,
    seed: int = 0,
    **rest: Any,
) -> Outcome:
    return simulate(
        cluster(*vservers),
        initial=initial,
        traits=traits or {},
        events=events(told),
        until_s=until_s,
        seed=seed,
        **rest,
    )


def universe(
    told: dict[float, str] | None = None, *vservers: Vserver, initial: Initial = MIDST, **rest: Any
) -> Universe:
    made = Universe(cluster(*vservers), initial, rest.pop("traits", {}), rest.pop("seed", 0), **rest)
    for event in events(told or {}):
        made.schedule(event)
    return made
