"""Values that have passed every check -> Cluster. What the file leaves out is as the model says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Any, TypeVar

from failover.config.check import REFERS, said
from failover.config.match import Found
from failover.config.terms import timing_of
from failover.model import (
    Capacity,
    Check,
    Cluster,
    Fence,
    Host,
    Needs,
    Network,
    Placement,
    Restart,
    Shutdown,
    Stale,
    Sync,
    Vserver,
    Want,
    ZooKeeper,
    frozen_map,
)

_R = TypeVar("_R")

_STORY = "story"  # the name of a cluster that has none
_STORY_ADDRESSES = IPv4Address("127.0.0.0")
_FAILBACK_S = 300.0  # what `failback: auto` stands for

# key of cluster.yaml -> field of the model, where the two differ
_FIELDS = {
    "bandwidth": "bandwidth_bytes_s",
    "every": "every_s",
    "exec": "command",
    "max_data_loss": "max_data_loss_s",
    "memory": "memory_bytes",
    "timeout": "timeout_s",
    "within": "within_s",
}


def _record(kind: type[_R]) -> Callable[[Mapping[str, Any]], _R]:
    return lambda values: kind(**{_FIELDS.get(key, key): _made(key, value) for key, value in values.items()})


# key -> what the model has in place of its value
_MADE: Mapping[str, Callable[[Any], object]] = {
    "capacity": _record(Capacity),
    "checks": lambda checks: tuple(_record(Check)(check) for check in checks),
    "fence": lambda fence: Fence(fence["agent"], frozen_map(fence.get("options"))),
    "inside": lambda word: word == "true",
    "needs": _record(Needs),
    "network": _record(Network),
    "placement": Placement,
    "restart": _record(Restart),
    "sync": _record(Sync),
    "want": Want,
}

# key whose value is a word or {word: duration} -> fields of a Vserver; the duration is None when none was said
_WORD_AND_TIME: Mapping[str, Callable[[str, float | None], Mapping[str, object]]] = {
    "when_stale": lambda word, time_s: {
        "when_stale": Stale.TAKE if word == "take" else Stale.ASK,
        "stale_wait_s": time_s or 0.0,
    },
    "failback": lambda word, time_s: {
        "failback_s": None if word == "manual" else _FAILBACK_S if time_s is None else time_s,
    },
    "on_host_shutdown": lambda word, time_s: {"on_host_shutdown": Shutdown(word), "keep_s": time_s or 0.0},
}


def build(found: Found) -> Cluster:
    values = found.values
    hosts = {name: _host(name, n, host) for n, (name, host) in enumerate(values["hosts"].items(), start=1)}
    return Cluster(
        name=values.get("cluster", _STORY),
        hosts=frozen_map(hosts),
        vservers=frozen_map({one.name: _vserver(one.name, one.values) for one in said(found)}),
        zookeeper=ZooKeeper(**values.get("zookeeper", {})),
        timing=timing_of(values.get("timing")),
        grants=values.get("lease") != "session",
    )


def _host(name: str, number: int, values: Mapping[str, Any]) -> Host:
    address = values.get("address") or str(_STORY_ADDRESSES + number)
    return _record(Host)({**values, "name": name, "address": address})


def _vserver(name: str, values: Mapping[str, Any]) -> Vserver:
    spread: dict[str, object] = {"name": name}
    for key, value in values.items():
        if key in _WORD_AND_TIME:
            word, time_s = (value, None) if isinstance(value, str) else next(iter(value.items()))
            spread |= _WORD_AND_TIME[key](word, time_s)
        elif REFERS.get(key) == "vservers":
            spread[key] = tuple(other for other in value if other != name)  # in `defaults` it may name itself
        else:
            spread[key] = value
    return _record(Vserver)(spread)


def _made(key: str, value: object) -> object:
    return _MADE[key](value) if key in _MADE else value
