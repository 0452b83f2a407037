"""The bytes in ZooKeeper: read back exactly, and understood by other versions of failover or refused clearly."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from failover import model, wire
from failover.errors import Refused
from failover.model import (
    Assignment,
    Cluster,
    ClusterIntent,
    Event,
    Hold,
    Host,
    HostIntent,
    Kind,
    Memory,
    MoveWish,
    Network,
    Promised,
    Replica,
    Report,
    Shipment,
    State,
    Sync,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
    ZooKeeper,
    frozen_map,
)
from failover.timing import PROFILES, Timing

CLUSTER = Cluster(
    "prod",
    hosts=frozen_map(
        {"alpha": Host("alpha", "10.0.0.1", Network(bridge="br0"), ("rack1",)), "β": Host("β", "fd00::2")}
    ),
    vservers=frozen_map(
        {
            "web1": Vserver(
                "web1",
                "alpha",
                ("β",),
                ("10.0.0.101/24", "fd00::101/64"),
                "10.0.0.254",
                Want.IGNORED,
                Sync(every_s=0.5, bandwidth_bytes_s=20_000_000, exclude=("/tmp",)),
                61.5,
            )
        }
    ),
    zookeeper=ZooKeeper(("10.0.0.1:2181",), "/etc/secret"),
    timing=PROFILES["fast"],
)

RECORDS: dict[str, object] = {
    "the cluster and its text": wire.Applied(CLUSTER, "cluster: prod\n# «ü»\n"),
    "a wish to move": VserverIntent(
        Want.STOPPED, MoveWish("β", 7, accept_loss=True, stay=False), cleared_epoch=3, by="ann", at=1.5
    ),
    "a wish to move anywhere": VserverIntent(move=MoveWish(None, 7)),
    "no wish": VserverIntent(),
    "a drain": HostIntent(True, 1795469300.0, 41, "new disks", "ann", 1795469236.594),
    "an assignment": Assignment(
        "web1", "alpha", 9, Want.STOPPED, "β", True, Kind.TAKEOVER, "β", 7, True, ("γ",), because="x", at=1.25
    ),
    "a first assignment": Assignment("web1", "alpha", 1),
    "a disarm": ClusterIntent(True, "switch is replaced", "ann", 1.5),
    "what the leader remembers": Memory(frozen_map({"β": (1.5, 2.0)}), disarmed=True),
    "holds": wire.Holds((Hold("web1", "its owner may still run it", "wait"), Hold("alpha", "drained"))),
    "no holds": wire.Holds(),
    "an event with facts": Event(
        "takeover", 1.0, "t", "web1", "β", 3, frozen_map({"s": "a", "f": 1.0, "i": 1, "b": True, "n": None})
    ),
    "a report": Report(
        "alpha",
        frozen_map(
            {
                "web1": VserverReport(State.RUNNING, 4, 1.0, "", 5, "no", frozen_map({"β": Shipment(3, 0.25, "slow")})),
                "web2": VserverReport(State.ERROR, 1, because="init died"),
            }
        ),
        frozen_map({"db1": Replica(8, 2, True, ("/vservers/.replica/db1/salvage/1",), 1.5)}),
        promised=frozen_map({"db1": Promised("β", 2, -0.5)}),
        at=9.75,
        version="0.1.0",
    ),
    "a report of an older failover, of which no promise is known": Report("alpha"),
    "the leader": wire.Holder("alpha"),
    "a lease": wire.LeaseRecord(72057752503386113),
}  # fmt: skip


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_what_is_written_is_read_back_exactly(record: Any) -> None:
    again = wire.decode(type(record), wire.encode(record))
    assert again == record
    assert repr(again) == repr(record), "1, 1.0 and True are different things"


OWN = Timing(session_s=5.0, tick_s=0.3, drift=0.02, freeze_s=0.06, margin_s=0.07, leader_session_s=1.75)


def test_a_cluster_of_before_terms_could_be_ones_own_is_read() -> None:
    plain = json.loads(wire.encode(CLUSTER)) | {"format": 2, "timing": "patient"}
    again = wire.decode(Cluster, json.dumps(plain).encode())
    assert again == dataclasses.replace(CLUSTER, timing=PROFILES["patient"])


def test_terms_that_were_safe_once_are_read_though_they_are_refused_by_now() -> None:
    old = dataclasses.replace(CLUSTER, timing=dataclasses.replace(OWN, renewals=2))
    assert wire.decode(Cluster, wire.encode(old)) == old


@pytest.mark.parametrize("terms", [{"renewals": 0}, {"session_s": -1.0}, {"grant_s": float("nan")}, {"grant_asks": 0}])
def test_terms_that_nobody_can_reckon_with_are_refused(terms: dict[str, Any]) -> None:
    wrong = dataclasses.replace(CLUSTER, timing=dataclasses.replace(OWN, **terms))
    with pytest.raises(Refused, match="terms that are none"):
        wire.decode(Cluster, wire.encode(wrong))


def sample(kind: Any) -> Any:
    """Some value of a type that a field declares, and not its default."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return sample(arguments[0])
    if origin is tuple:
        return (sample(arguments[0]), sample(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return frozen_map({sample(arguments[0]): sample(arguments[1])})
    if kind is Timing:  # not every one is safe
        return OWN
    if dataclasses.is_dataclass(kind):
        return kind(**{name: sample(hint) for name, hint in get_type_hints(kind).items()})
    if issubclass(kind, Enum):
        return list(kind)[-1]
    return {str: "ü", int: 7, float: 0.5, bool: True}[kind]


MODEL = {name: kind for name, kind in vars(model).items() if dataclasses.is_dataclass(kind) and kind is not Timing}


@pytest.mark.parametrize("kind", MODEL.values(), ids=MODEL)
def test_every_record_of_the_model_survives_with_every_field_set(kind: Any) -> None:
    """The model grows: a type that the wire does not know is found here and not in ZooKeeper."""
    record = sample(kind)
    again = wire.decode(kind, wire.encode(record))
    assert repr(again) == repr(record)


def changed(record: object, **keys: Any) -> bytes:
    return json.dumps({**json.loads(wire.encode(record)), **keys}).encode()


def without(record: object, key: str) -> bytes:
    plain = json.loads(wire.encode(record))
    del plain[key]
    return json.dumps(plain).encode()


HOLD = Hold("web1", "because", "hint")

READ = {
    "a key from a newer failover is ignored": (changed(HOLD, colour="red"), HOLD),
    "an older format": (changed(HOLD, format=1), HOLD),
    "a key that an older failover did not write has its default": (without(HOLD, "hint"), Hold("web1", "because")),
}

REFUSED = {
    "a newer format": (changed(HOLD, format=wire.FORMAT + 1), "newer failover"),
    "no format": (without(HOLD, "format"), "not a record of failover"),
    "no JSON": (b"\xff{", "not a record of failover"),
    "a list": (b"[]", "not a record of failover"),
    "a missing key without default": (without(HOLD, "because"), "has no because"),
    "a wrong type": (changed(HOLD, because=7), "7 is not str"),
}


@pytest.mark.parametrize(("data", "record"), READ.values(), ids=READ)
def test_other_versions_are_understood(data: bytes, record: Hold) -> None:
    assert wire.decode(Hold, data) == record


@pytest.mark.parametrize(("data", "because"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_understood_is_refused_with_its_place(data: bytes, because: str) -> None:
    with pytest.raises(Refused, match=because) as refused:
        wire.decode(Hold, data, where="holds")
    assert "holds" in str(refused.value)
    assert refused.value.hint
