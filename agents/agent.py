"""The agent of one host: told and seen in, steps and a report out, again at every change and every deadline.

    while it lives:   renew the lease · tell the guard · reconcile · begin the steps · report · wait for a change

Rule 1: the lease counts from the sending of the newest renewal that ZooKeeper acknowledged (failover/timing.py).
        What runs is frozen at its end by the guard and by the agent. But nothing is started or thawed on a lease that
        the guard has not taken: the agent may be the next to die.
Rule 2: while the store is not fresh nothing is begun but the freeze at the lease's end: what was told may be old.
Rule 3: the agent keeps nothing that it could not read again; killed at any moment, the next one goes on.
Rule 4: it ends without ending its session: a session that ends early would tell the leader that all has stopped here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from agents.reconcile import describe, next_at, reconcile
from agents.steps import Seen, Start, Step, Thaw
from failover import __version__
from failover.daemon import Daemon, entry
from failover.errors import FailoverError
from failover.model import Report, Told
from failover.store import Store
from failover.timing import Timing

log = logging.getLogger("failover.agent")

SHORTEST_S = 0.001  # a pause: less could be lost in the rounding of a clock, and the turn be taken for ever
REPORT_AGE_S = 2.0  # ages grow by themselves; a report that differs only in them may be this old
YOUNGER_AGE_S = 0.5  # ... and this, when a sync has made one of them smaller


class Machine(Protocol):
    """The one door to this host. `agents/machine.py` is the real one."""

    def now(self) -> float:
        """Boot time in seconds: it goes on while the machine sleeps."""
        ...

    def observe(self, names: Collection[str]) -> Seen: ...

    def begin(self, step: Step) -> None:
        """Start a step and return; what becomes of it is seen in a later `observe`. One that is under way is left."""
        ...

    def hold(self, until: float, told: Told) -> bool:
        """Tell the guard until when what this host owns may run; False when it has not taken the word."""
        ...

    def live(self) -> None:
        """Tell the guard only that this agent does not hang."""
        ...

    def publish(self, told: Told) -> None:
        """Let the receiving end of a sync know who owns what."""
        ...


class Agent:
    def __init__(self, store: Store, machine: Machine, timing: Timing, wall: Callable[[], float] = time.time) -> None:
        self._store, self._machine, self._timing, self._wall = store, machine, timing, wall
        self._sent_at = float("-inf")
        self._said: Report | None = None
        self._said_at = float("-inf")
        self._published: Told | None = None
        self._troubled = ""
        self._held = float("-inf")  # the newest end of the lease that the guard has taken

    def turn(self) -> float:
        """One round; returns the seconds after which the next is due if nothing changes before."""
        now = self._machine.now()
        timing, until = self._terms()
        if now >= self._sent_at + timing.renew_s and self._store.connected:
            self._store.renew(now)
            self._sent_at = now
        fresh = self._store.fresh
        told = self._told(fresh)
        if told is None:
            self._machine.live()
            return timing.renew_s
        if fresh and self._machine.hold(until, told):
            self._held = until
        seen = self._machine.observe(told.cluster.vservers)
        if fresh or now >= until:
            self._begin(reconcile(told, seen, until if fresh else float("-inf"), now), guarded=now < self._held)
        if fresh:
            self._report(describe(told, seen, now, version=__version__), now)
        else:
            self._machine.live()
        deadlines = (until, self._sent_at + timing.renew_s, next_at(told, seen, now) if fresh else until)
        return max(SHORTEST_S, min([timing.renew_s, *(at - now for at in deadlines if at > now)]))

    def _terms(self) -> tuple[Timing, float]:
        """The timing of the session that ZooKeeper granted; the end of the lease, in the past when there is none."""
        session_s, renewed_at = self._store.session_s, self._store.renewed_at
        timing = self._timing if session_s is None else self._timing.with_session(session_s)
        return timing, float("-inf") if renewed_at is None else renewed_at + timing.lease_s

    def _told(self, fresh: bool) -> Told | None:
        if not fresh:
            return self._published
        try:
            told = self._store.told()
        except FailoverError as error:
            self._say_once(str(error))
            return None
        if told.host not in told.cluster.hosts:
            self._say_once(f"{told.host} is not in the cluster any more: nothing is held, so what it runs is frozen")
            return None
        if told != self._published:
            self._machine.publish(told)
            self._published = told
        return told

    def _say_once(self, text: str) -> None:
        if text != self._troubled:
            log.warning("%s", text)
        self._troubled = text

    def _begin(self, steps: tuple[Step, ...], *, guarded: bool) -> None:
        for step in steps:
            if guarded or not isinstance(step, Start | Thaw):
                self._machine.begin(step)

    def _report(self, report: Report, now: float) -> None:
        """Say what is new at once, what a sync has made younger soon, and what only got older now and then."""
        new = self._said is None or _ageless(report) != _ageless(self._said)
        grown_s = now - self._said_at
        younger = grown_s >= YOUNGER_AGE_S and self._said is not None and _younger(report, self._said, grown_s)
        if new or younger or grown_s >= REPORT_AGE_S:
            self._store.report(replace(report, at=self._wall()))
            self._said, self._said_at = report, now


def _ageless(report: Report) -> Report:
    """The report without what changes by itself. A sync that found something to ship shows as a generation."""
    return replace(
        report,
        at=0.0,
        vservers={
            name: replace(vs, shipments={b: (s.generation, s.because, s.final) for b, s in vs.shipments.items()})  # type: ignore[misc]
            for name, vs in report.vservers.items()
        },
    )


def _younger(report: Report, said: Report, grown_s: float) -> bool:
    """Whether a sync, which may have found nothing to ship, has begun after those that were last spoken of."""
    return any(
        shipment.age_s < said.vservers[name].shipments[backup].age_s + grown_s - SHORTEST_S
        for name, vserver in report.vservers.items()
        for backup, shipment in vserver.shipments.items()
        if not shipment.final and name in said.vservers and backup in said.vservers[name].shipments
    )


@entry
def main() -> None:
    from agents.machine import RealMachine, recover
    from failover.config import load
    from failover.timing import PROFILES
    from failover.zookeeper import ZooKeeperStore, read_credentials

    daemon = Daemon("failover-agent", "run this host's vservers and sync their trees")
    host, cluster = daemon.options.host, load(daemon.options.config)
    recover(cluster.vservers)
    store = ZooKeeperStore(
        cluster.name,
        cluster.zookeeper.servers,
        read_credentials(Path(cluster.zookeeper.credentials)),
        role="agent",
        host=host,
        timing=PROFILES[cluster.timing],
        changed=daemon.wake,
        session_file=Path("/run/failover/session.json"),
    )
    machine = RealMachine(host, changed=daemon.wake)
    daemon.live(Agent(store, machine, PROFILES[cluster.timing]))
    store.close()


if __name__ == "__main__":
    main()
