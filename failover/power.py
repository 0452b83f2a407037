"""The leader's hand on the hosts' power: what failover/plan/fencing.py decides is done here, in this order.

    hear the leases ─▶ plan ─▶ write down "under way" ─▶ hear the leases again ─▶ begin ─ … ─▶ ended: goes into a plan

Rule 1: nothing is begun before it is written down under the leadership. So who is deposed begins nothing, the next
        leader knows of it, and what was heard after the writing is no older than it.
Rule 2: what has ended is told until it is written down.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from failover.fencing import Devices, Ended
from failover.model import Event, Fencing, View, frozen_map
from failover.plan import Plan, fencing
from failover.store import Change, Store

log = logging.getLogger("failover.leader")

HEARD_S = 0.1  # what was heard so lately is new enough


class Power:
    def __init__(self, store: Store, devices: Devices, clock: Callable[[], float]) -> None:
        self._store, self._devices, self._clock = store, devices, clock
        self._heard_at = -math.inf  # on our clock
        self._ended: list[Ended] = []
        self._known: dict[str, tuple[int, float]] = {}  # host -> the version of its lease, and since when, on our clock

    def rest(self) -> None:
        """Somebody else leads, if anybody does."""
        self._devices.give_up()
        self._devices.ended()
        self._ended, self._known = [], {}

    def seen(self, view: View) -> View:
        """The same a moment later, if somebody may be silent; and with what has become of the attempts."""
        if view.now >= fencing.listens_at(view) and self._clock() >= self._heard_at + HEARD_S:
            view = self._hear()
        self._ended += self._devices.ended()
        memory, news = fencing.noted(view, self._ended)
        if not news:
            self._ended = []
        return replace(view, memory=memory, unchanged_s=self._unchanged_s(view))

    def _unchanged_s(self, view: View) -> Mapping[str, float]:
        now, known = self._clock(), self._known
        versions = {host: lease.version for host, lease in view.leases.items()}
        self._known = {
            host: known[host] if host in known and known[host][0] == version else (version, now)
            for host, version in versions.items()
        }
        return frozen_map({host: now - since for host, (_, since) in self._known.items()})

    def _hear(self) -> View:
        self._store.hear()
        self._heard_at = self._clock()
        return self._store.view()

    def spare(self, decided: Plan) -> None:
        """Of what was begun, what is not wanted any more."""
        for host in decided.cuts.spare:
            self._devices.give_up(host)

    def written(self, view: View, decided: Plan) -> None:
        """What was decided is remembered by now; `view`: as the store had it before."""
        _, events = fencing.noted(view, self._ended)
        self._ended = []
        begun = [fencing.begun(view, host, decided.memory.fencings[host]) for host in decided.cuts.begin]
        self._tell((*events, *begun))
        if decided.cuts.begin:
            now = self._hear()
            for host in decided.cuts.begin:
                self._begin(now, host, decided.memory.fencings[host])

    def _begin(self, now: View, host: str, attempt: Fencing) -> None:
        fence = fencing.device(now, host)
        if fence is not None and fencing.may_begin(now, host, attempt):
            self._devices.cut(host, fence, attempt.began_at)
        else:
            self._ended.append(Ended(host, attempt.began_at, off=False, because=fencing.CAME_BACK))

    def _tell(self, events: tuple[Event, ...]) -> None:
        if events:
            self._store.commit(Change(events=events))
            for event in events:
                log.info("%s", event.text)
