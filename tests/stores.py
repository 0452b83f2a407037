"""Stores upon one cluster for the contract, in memory or in a real ZooKeeper, each of which can be cut off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from failover.grants.protocol import Footing
from failover.model import Assignment, Cluster, Host, Lease, Vserver, frozen_map
from failover.simulate.memory import MemoryStore, World
from failover.store import Store
from failover.timing import Timing
from failover.writes import Delete
from failover.zookeeper import ZooKeeperStore
from tests.zookeeper_server import Cable

TIMING = Timing(session_s=1.5)


CLUSTER = Cluster(
    "contract",
    hosts=frozen_map({"alpha": Host("alpha", "10.0.0.1"), "beta": Host("beta", "10.0.0.2")}),
    vservers=frozen_map({"web1": Vserver("web1", "alpha", ("beta",))}),
)
FIRST = Assignment("web1", "alpha", 1)
TAKEN = Assignment("web1", "beta", 2)


class Stores:
    """Opens stores upon one cluster, and can cut each of them off."""

    def __init__(self) -> None:
        self.opened: list[Any] = []

    def open(self, role: str, host: str | None = None, **rest: Any) -> Any:
        raise NotImplementedError

    def depose(self, leader: Any) -> None:
        """Take its place away from it while its session lives."""
        raise NotImplementedError

    def cut(self, store: Any) -> None:
        raise NotImplementedError

    def mend(self, store: Any) -> None:
        raise NotImplementedError

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for what must become true in a moment."""
        raise NotImplementedError

    def fresh(self, role: str, host: str | None = None, **rest: Any) -> Any:
        store = self.open(role, host, **rest)
        self.until(lambda: store.fresh)
        return store

    def gone(self, host: str) -> None:
        """Wait until the session of a host that was cut off has ended."""
        observer = self.opened[0]
        self.until(lambda: not observer.view().leases[host].alive)

    def close(self) -> None:
        for store in self.opened:
            store.close()


class InMemory(Stores):
    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._world = World(lambda: self._now)

    def open(self, role: str, host: str | None = None, **rest: Any) -> Store:
        store = MemoryStore(self._world, role=role, host=host, timing=TIMING, **rest)  # type: ignore[arg-type]
        self.opened.append(store)
        return store

    def depose(self, leader: Any) -> None:
        assert self._world.write(leader.session, Delete("leader/holder"))

    def cut(self, store: Any) -> None:
        store.cut()

    def mend(self, store: Any) -> None:
        store.mend()

    def until(self, holds: Callable[[], object]) -> None:
        for _ in range(100):
            if holds():
                return
            self._now += 0.05
            self._world.expire()
        raise AssertionError("it did not become true within 5 s of the world's time")


class InZooKeeper(Stores):
    count = 0

    def __init__(self, server: str) -> None:
        super().__init__()
        InZooKeeper.count += 1
        self._server, self._name = server, f"contract{InZooKeeper.count}"
        self._cables: dict[int, Cable] = {}

    def open(self, role: str, host: str | None = None, **rest: Any) -> Store:
        cable = Cable(self._server)
        store = ZooKeeperStore(
            self._name,
            [cable.client],
            "user:secret",
            role=role,  # type: ignore[arg-type]
            host=host,
            timing=TIMING,
            **rest,
        )
        self._cables[id(store)] = cable
        self.opened.append(store)
        return store

    def depose(self, leader: Any) -> None:
        assert leader._client.write(leader._root, Delete("leader/holder")) is not None

    def cut(self, store: Any) -> None:
        self._cables[id(store)].pull()
        self.until(lambda: not store.connected)

    def mend(self, store: Any) -> None:
        self._cables[id(store)].plug()

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, "it did not become true"
            time.sleep(0.005)

    def close(self) -> None:
        for cable in self._cables.values():
            cable.plug()
        super().close()
        for cable in self._cables.values():
            cable.close()


def leading(stores: Stores, host: str = "beta") -> Any:
    leader = stores.fresh("leader", host)
    stores.until(leader.lead)
    return leader


def lease_of(stores: Stores, host: str) -> Lease:
    found: Lease = stores.opened[0].view().leases[host]
    return found


def footing_of(stores: Stores, host: str) -> Footing:
    """What the host would go by if nothing was on its way."""
    lease = lease_of(stores, host)
    return Footing(lease.version, lease.taken)
