"""What a new cluster.yaml is compared with when it is applied."""

from __future__ import annotations

import pytest

from failover.cli.cluster import _applied
from failover.errors import Refused
from failover.records import Node
from failover.simulate.memory import MemoryStore, World
from tests.stores import CLUSTER


def test_with_nothing_when_it_is_the_first() -> None:
    assert _applied(MemoryStore(World(lambda: 0.0), role="operator"), anew=False) is None


def test_with_what_was_applied_before() -> None:
    store = MemoryStore(World(lambda: 0.0), role="operator")
    store.apply(CLUSTER, "")
    view = _applied(store, anew=False)
    assert view is not None and view.cluster == CLUSTER
    assert _applied(store, anew=True) == view, "what can be read is compared, whatever was said"


def test_what_cannot_be_read_is_replaced_only_when_that_is_said() -> None:
    world = World(lambda: 0.0)
    MemoryStore(world, role="operator").apply(CLUSTER, "")
    world.nodes = {**world.nodes, "cluster": Node(b"?", 1, 0.0)}
    store = MemoryStore(world, role="operator")
    with pytest.raises(Refused, match=r"cluster in ZooKeeper is not a record of .*: failover apply --anew"):
        _applied(store, anew=False)
    assert _applied(store, anew=True) is None
