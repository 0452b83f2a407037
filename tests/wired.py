"""The store in memory over wires: every word takes its time, on a virtual clock. For the contract suite."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from failover.simulate.clock import EPOCH, Scheduler
from failover.simulate.line import Wire
from failover.simulate.memory import MemoryStore
from failover.simulate.znodes import World
from failover.store import Store
from failover.writes import Delete
from tests.stores import TIMING, Stores


class OverWires(Stores):
    def __init__(self) -> None:
        super().__init__()
        self._scheduler = Scheduler()
        self._world = World(lambda: EPOCH + self._scheduler.now)
        self._random = Random(1)
        self._cut: dict[int, bool] = {}

    def open(self, role: str, host: str | None = None, **rest: Any) -> Store:
        number = len(self.opened)
        self._cut[number] = False

        def is_up() -> bool:
            return not self._cut[number]

        later = self._scheduler.after
        line = Wire(
            is_up,
            is_up,
            later,
            later,
            lambda: self._random.uniform(0.001, 0.02),
            lambda: self._random.uniform(0.01, 0.2),
            lambda: self._scheduler.now,
        )
        clock = rest.pop("clock", lambda: self._scheduler.now)
        store = MemoryStore(
            self._world,
            role=role,  # type: ignore[arg-type]
            host=host,
            timing=TIMING,
            line=line,
            clock=clock,
            **rest,
        )
        self.opened.append(store)
        return store

    def depose(self, leader: Any) -> None:
        assert self._world.write(leader.session, Delete("leader/holder"))

    def cut(self, store: Any) -> None:
        self._set(store, cut=True)
        self.until(lambda: not store.connected)

    def mend(self, store: Any) -> None:
        self._set(store, cut=False)

    def _set(self, store: Any, *, cut: bool) -> None:
        self._cut[self.opened.index(store)] = cut
        store.line_changed()

    def until(self, holds: Callable[[], object]) -> None:
        for _ in range(5000):
            if holds():
                return
            self._scheduler.step(self._scheduler.now + 0.002)
            self._world.expire()
        raise AssertionError("it did not become true within 10 s of the world's time")
