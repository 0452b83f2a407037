"""Values that have passed every check -> Cluster. What the file leaves out is as the model says."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from failover.config.check import said
from failover.config.match import Found
from failover.model import Cluster, Host, Network, Sync, Vserver, Want, ZooKeeper, frozen_map

_STORY = "story"  # the name of a cluster that has none
_STORY_ADDRESSES = IPv4Address("127.0.0.0")

# key of cluster.yaml -> field of the model, where the two differ
_FIELDS = {"every": "every_s", "bandwidth": "bandwidth_bytes_s", "max_data_loss": "max_data_loss_s"}
_BUILT_BUT_FIXED = ("when_stale", "placement", "failback")  # only one value has a function, so the model has no field


def build(found: Found) -> Cluster:
    values = found.values
    hosts = {name: _host(name, n, host) for n, (name, host) in enumerate(values["hosts"].items(), start=1)}
    return Cluster(
        name=values.get("cluster", _STORY),
        hosts=frozen_map(hosts),
        vservers=frozen_map({one.name: _vserver(one.name, one.values) for one in said(found)}),
        zookeeper=ZooKeeper(**values.get("zookeeper", {})),
        timing=values.get("timing", Cluster.timing),
    )


def _host(name: str, number: int, values: Mapping[str, Any]) -> Host:
    rest = dict(values)
    address = rest.pop("address", None) or str(_STORY_ADDRESSES + number)
    if "network" in rest:
        rest["network"] = Network(**rest["network"])
    return Host(name, address, **rest)


def _vserver(name: str, values: Mapping[str, Any]) -> Vserver:
    fields = {_FIELDS.get(key, key): value for key, value in values.items() if key not in _BUILT_BUT_FIXED}
    if "want" in fields:
        fields["want"] = Want(fields["want"])
    if "sync" in fields:
        fields["sync"] = Sync(**{_FIELDS.get(key, key): value for key, value in fields["sync"].items()})
    return Vserver(name, **fields)
