"""The values of a story without a problem -> Story."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from failover.model import Cluster, frozen_map
from failover.stories.events import Event
from failover.stories.language import NO_REPLICA, YES
from failover.stories.story import Expect, Initial, Move, Story, Traits


def story(values: Mapping[str, Any], cluster: Cluster, events: tuple[Event, ...] | None) -> Story:
    return Story(
        id=values["id"],
        cluster=cluster,
        until_s=values["until"],
        title=values.get("title", ""),
        traits=frozen_map({vserver: _traits(said) for vserver, said in values.get("traits", {}).items()}),
        initial=_initial(values.get("initial", {}), cluster),
        events=events,
        expect=_expect(values.get("expect", {})),
        forbid=values.get("forbid", ()),
    )


def _traits(said: Mapping[str, Any]) -> Traits:
    fields: dict[str, Any] = {key: value in YES if isinstance(value, str) else value for key, value in said.items()}
    return Traits(**fields)


def _initial(said: Mapping[str, Any], cluster: Cluster) -> Initial:
    power = said.get("power", {})
    if isinstance(power, str):
        power = dict.fromkeys(cluster.hosts, power == "all_on")
    else:
        power = {host: state == "on" for host, state in power.items()}
    down = said.get("down_cleanly", ())
    ages = {
        vserver: frozen_map({host: None if age == NO_REPLICA else age for host, age in by_host.items()})
        for vserver, by_host in said.get("replica_age", {}).items()
    }
    return Initial(
        power=frozen_map({**power, **dict.fromkeys(down, False)}),
        owners=frozen_map(said.get("owners", {})),
        running=frozen_map(said.get("running", {})),
        replica_age_s=frozen_map(ages),
        down_cleanly=down,
        recovering=said.get("recovering", ()),
        watchdog=said.get("watchdog", ()),
    )


def _expect(said: Mapping[str, Any]) -> Expect:
    final, moves = said.get("final"), said.get("moves")
    return Expect(
        final=None if final is None else frozen_map({name: _states(any_of) for name, any_of in final.items()}),
        fenced=frozenset(said["fenced"]) if "fenced" in said else None,
        moves=None if moves is None else tuple(Move(m["vserver"], m["from"], m["to"], m["kind"]) for m in moves),
        rejected=said.get("rejected"),
        says=said.get("says", ()),
    )


def _states(any_of: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(f"{state}@{host}" if host else state for state, host in any_of)
