"""The agent of one host: told and seen in, steps and a report out, again at every change and every deadline.

    while it lives:   renew the lease · hear the others · tell the guard · answer and ask the others ·
                      reconcile · begin the steps · report · wait for a change

Rule 1: the lease counts from the sending of the newest renewal that surely reached ZooKeeper (failover/touches.py).
        What runs is frozen at its end by the guard and by the agent. But nothing is started or thawed on a lease that
        the guard has not taken: the agent may be the next to die.
Rule 2: when renewals stay unanswered it asks the other hosts for promises (agents/promise.py): with them what runs goes
        on. While the store is not fresh nothing is begun but regular syncs under a promise, and the freeze at each end.
Rule 3: the agent keeps nothing that it could not read again; killed at any moment, the next one goes on. One that does
        not know until when something may run leaves that to the guard.
Rule 4: it reports that it has obeyed words only when the guard has taken the ends under these words: what ran by the
        promises of others than they name has stopped by then.
Rule 5: when the guard has taken no word for a lease, nothing can be started here, and the fence has closed. One that is
        only started anew on a busy host is given a second lease. Then the agent lets its session end, so that the
        leader may take over; it freezes what runs at the end of the lease, asks nobody for promises, and comes back
        when the guard takes words again. If it does not take the next real ones, it stays away until its session is
        over.
Rule 6: it ends without ending its session: a session that ends early would tell the leader that all has stopped here.
        But first it goes back to its session from grants: the next agent, or the next guard, may need longer than these
        last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from agents.lease import Granted
from agents.reconcile import describe, next_at, reconcile
from agents.resting import Resting
from agents.steps import Freeze, Seen, Start, Step, Thaw
from agents.talk import Peers, Talk
from failover import __version__
from failover.daemon import Daemon, entry
from failover.errors import FailoverError
from failover.grants.protocol import Footing
from failover.model import Report, Told
from failover.store import Store
from failover.timing import Timing

log = logging.getLogger("failover.agent")

SHORTEST_S = 0.001  # a pause: less could be lost in the rounding of a clock, and the turn be taken for ever
LAST_S = 0.05  # so shortly before the end of the lease, when the guard freezes, nothing is started or thawed any more
REPORT_AGE_S = 2.0  # ages grow by themselves; a report that differs only in them may be this old
LEAVE_S = 1.0  # at most, on the way back to its session when it is told to end
PATIENCE = 2  # leases without a guard that takes words, rule 5
TROUBLED = 1 / 3  # of a lease: so much is left when the others are asked for promises
YOUNGER_AGE_S = 0.5  # ... and this, when a sync has made one of them smaller


class Machine(Peers, Protocol):
    """The one door to this host, and to the others. `agents/machine.py` is the real one."""

    def now(self) -> float:
        """Boot time in seconds: it goes on while the machine sleeps."""
        ...

    def observe(self, names: Collection[str]) -> Seen: ...

    def begin(self, step: Step) -> None:
        """Start a step and return; what becomes of it is seen in a later `observe`. One that is under way is left."""
        ...

    @property
    def granted(self) -> Granted:
        """What the leader has granted, as the guard has said last; in trouble when it did not answer."""
        ...

    def hold(self, until: float, told: Told, promised: Mapping[str, float], footing: Footing | None) -> bool:
        """Tell the guard until when what this host owns may run: until the end of the lease, in the past when there is
        none; or, where `promised` has a later end, until that, but what has stopped before stays so; and, with a
        footing, until the end of what the leader grants upon it. False when it has not taken all of it."""
        ...

    def live(self) -> None:
        """Tell the guard only that this agent does not hang."""
        ...

    def takes_words(self, told: Told) -> bool:
        """Whether the guard takes a word now; it is one that names nothing, so it moves no end."""
        ...

    def publish(self, told: Told) -> None:
        """Write down what was told: for the receiving end of a sync, and for the next agent since the boot."""
        ...

    def recall(self) -> Told | None:
        """What an agent before this one has published since the boot."""
        ...


class Agent:
    def __init__(self, store: Store, machine: Machine, timing: Timing, wall: Callable[[], float] = time.time) -> None:
        self._store, self._machine, self._timing, self._wall = store, machine, timing, wall
        self._talk, self._resting = Talk(machine), Resting(store, timing)
        self._sent_at = float("-inf")
        self._said: Report | None = None
        self._said_at = float("-inf")
        self._published = machine.recall()
        self._going_on: frozenset[str] = frozenset()  # by promises alone
        self._settled: Told | None = None  # under these words the guard has taken the ends
        self._troubled = ""
        self._leased = False  # this agent has known a lease
        self._refused_since: float | None = None  # the guard has taken no word since
        self._away = self._in_doubt = False  # rule 5; ... and has been away since the guard has taken one
        self._back_at = float("-inf")
        self._held = float("-inf")  # the newest end of the lease that the guard has taken
        self._leaving = False  # rule 6

    @property
    def changes(self) -> bool:
        """Whether it is about to rest on something else."""
        return self._resting.tries or (self._resting.granted and not self._store.rest.settled)

    def leave(self) -> None:
        """It is told to end: each turn goes on with that, until it `may_end`."""
        self._leaving = True

    @property
    def may_end(self) -> bool:
        return not self._resting.tries and not self._resting.granted

    def turn(self) -> float:
        """One round; returns the seconds after which the next is due if nothing changes before."""
        now = self._machine.now()
        timing, session = self._terms()
        self._come_back(now)
        self._renew(timing, now)
        fresh = self._store.fresh and not self._away
        told = self._told(fresh)
        if told is None:
            self._machine.live()
            return timing.renew_s
        self._talk.hear()
        goes_over = self._rest(told, now, fresh=fresh)
        self._renew(timing, now)  # which may have waited for what has just been given up
        until = self._resting.until(session, self._machine.granted)
        troubled = not fresh or self._is_troubled(until, timing, now)
        promised = self._talk.rights(told, timing, now) if troubled and not self._away else {}
        held = self._hold(told, until, promised, fresh=fresh)
        if goes_over:
            self._resting.go_over(now, held=held)
            log.info("the lease is about to rest on what the leader grants")
        until = self._resting.until(session, self._machine.granted)
        self._go_away(timing, now)
        seen = self._talk.answer(told, self._machine.observe(told.cluster.vservers), timing)
        if troubled and not self._away:
            self._talk.ask(told, seen, timing, now)
        ends = {name: self._end(until, promised.get(name)) for name in told.cluster.vservers}
        if fresh:
            self._begin(reconcile(told, seen, until, now, promised=promised), guarded=now < self._held - LAST_S)
            report = describe(told, seen, now, version=__version__)
            self._report(replace(report, on_session=self._resting.because, terms=self._own_terms()), told, now)
        else:
            self._go_on(reconcile(told, seen, float("-inf"), now, promised=ends), promised)
        deadlines = [self._sent_at + timing.renew_s, self._resting.look_at()]
        deadlines += [until, *ends.values()] if troubled or not self._resting.granted else []
        deadlines += [next_at(told, seen, now)] if fresh else []
        deadlines += [self._back_at] if self._away else []
        deadlines += [self._talk.ask_at(timing)] if troubled else []
        deadlines += [] if troubled or self._resting.granted else [until - TROUBLED * timing.lease_s]
        return max(SHORTEST_S, min([timing.renew_s, *(at - now for at in deadlines if at > now)]))

    def _own_terms(self) -> Timing:
        """With the session that it has, which may be longer than these terms want it."""
        session_s = self._store.session_s
        return self._timing if session_s is None else replace(self._timing, session_s=session_s)

    def _terms(self) -> tuple[Timing, float]:
        """The timing of the session that ZooKeeper granted; the end of the lease, in the past when there is none."""
        session_s, renewed_at = self._store.session_s, self._store.renewed_at
        timing = self._timing if session_s is None else self._timing.with_session(session_s)
        self._leased |= renewed_at is not None
        return timing, float("-inf") if renewed_at is None else renewed_at + timing.lease_s

    def _renew(self, timing: Timing, now: float) -> None:
        """Not in the midst of going over to grants, for the question names the record as it is."""
        due = now >= self._sent_at + timing.renew_s and self._store.connected and not self._away
        if due and not self._resting.tries:
            self._store.renew(now)
            self._sent_at = now

    def _rest(self, told: Told, now: float, *, fresh: bool) -> bool:
        """Whether to go over to grants now."""
        if self._resting.tries or self._resting.granted:
            self._machine.live()  # what was granted since?
        calm = fresh and self._settled == told and self._refused_since is None and told.leader is not None
        before = self._resting.because
        wanted = told.cluster.grants and not self._leaving
        goes_over = self._resting.turn(self._machine.granted, wanted=wanted, calm=calm, now=now)
        if self._resting.because not in (before, ""):
            log.info("the lease rests on the session: %s", self._resting.because)
        return goes_over

    def _is_troubled(self, until: float, timing: Timing, now: float) -> bool:
        """Whether answers stay away, of the store or, while the lease rests on grants, of the leader."""
        if self._resting.granted:
            return self._machine.granted.troubled
        return now >= until - TROUBLED * timing.lease_s

    def _hold(self, told: Told, until: float, promised: Mapping[str, float], *, fresh: bool) -> bool:
        """Whether the guard has taken the end of the lease."""
        going_on = frozenset() if fresh else frozenset(promised)
        if going_on != self._going_on:
            log.warning(
                "without ZooKeeper, by promises of the other hosts: %s", ", ".join(sorted(going_on)) or "nothing"
            )
            self._going_on = going_on
        if fresh:
            now = self._machine.now()
            if self._machine.hold(until, told, promised, self._resting.footing()):
                self._held, self._settled = max(until, self._resting.until(until, self._machine.granted)), told
                self._refused_since, self._in_doubt = None, False
                return True
            if now < until and self._refused_since is None:
                self._refused_since = now
        elif promised:
            self._settled = None
            self._machine.hold(float("-inf"), told, promised, None)
        else:
            self._machine.live()
        return False

    def _go_away(self, timing: Timing, now: float) -> None:
        since = self._refused_since
        if since is None or now < since + PATIENCE * timing.lease_s:
            return
        log.error("the guard has taken no word for %.1f s: this host leaves what it owns to others", now - since)
        self._back_at = now + (2 * self._own_terms().session_s if self._in_doubt else 0.0)
        self._away, self._in_doubt, self._refused_since, self._settled = True, True, None, None
        self._store.pause()

    def _come_back(self, now: float) -> None:
        if not self._away or now < self._back_at:
            return
        if self._published is None or self._machine.takes_words(self._published):
            log.info("the guard takes words again")
            self._away = False
            self._store.resume()

    def _end(self, until: float, promised: float | None) -> float:
        """Until when something may run, as far as this agent knows."""
        end = until if self._leased else float("inf")
        return end if promised is None else max(end, promised)

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

    def _go_on(self, steps: tuple[Step, ...], promised: Mapping[str, float]) -> None:
        """Without the store: what may run on is still shipped, and the rest frozen."""
        for step in steps:
            if isinstance(step, Freeze) or (not isinstance(step.vserver, str) and step.vserver.name in promised):
                self._machine.begin(step)

    def _report(self, report: Report, told: Told, now: float) -> None:
        """Say what is new at once, what a sync has made younger soon, and what only got older now and then."""
        if told != self._settled:
            return
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
        replicas={name: replace(replica, age_s=None) for name, replica in report.replicas.items()},
        promised={name: replace(bond, ended_s=0.0) for name, bond in (report.promised or {}).items()},
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
    from agents.bonds import Bonds
    from agents.lease import attend
    from agents.machine import RUN, RealMachine, recover
    from agents.peers import UdpPeers
    from failover.config import load
    from failover.seal import Seal
    from failover.zookeeper import ZooKeeperStore, read_credentials

    daemon = Daemon("failover-agent", "run this host's vservers and sync their trees")
    host, cluster = daemon.options.host, load(daemon.options.config)
    credentials = read_credentials(Path(cluster.zookeeper.credentials))
    recover(cluster.vservers)
    store = ZooKeeperStore(
        cluster.name,
        cluster.zookeeper.servers,
        credentials,
        role="agent",
        host=host,
        timing=cluster.timing,
        changed=daemon.wake,
        session_file=Path("/run/failover/session.json"),
        near=cluster.hosts[host].address if host in cluster.hosts else None,
    )
    bonds = Bonds(RUN, cluster.timing.promise_s, disk=Path("/var/lib/failover"))
    peers = UdpPeers(host, cluster, credentials, changed=daemon.wake)
    machine = RealMachine(host, daemon.wake, bonds, peers, Seal.of(credentials, "grants", cluster.name))
    attend(daemon.wake)
    agent = Agent(store, machine, cluster.timing)
    daemon.live(agent)
    agent.leave()
    daemon.finish(agent, lambda: agent.may_end, LEAVE_S)
    store.close()


if __name__ == "__main__":
    main()
