"""The leader: stand for election, look at the whole cluster, plan, commit, and say what changed and why.

One such process runs on every host; ZooKeeper lets one lead, at best where little is owned (failover/plan/standing.py).
It keeps nothing that it could not read again: killed at any moment, another goes on, and what was already committed is
not done twice because every change is the next epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from failover.boot import boot_time
from failover.daemon import Daemon, entry
from failover.errors import FailoverError
from failover.fencing import Devices, NoDevices
from failover.grants.granting import Granting
from failover.handover import Handover
from failover.model import Event, Hold, Memory, State, View
from failover.plan import bereft, better, declared_lost, fencing, own_report, plan
from failover.power import Power
from failover.standby import Standby
from failover.store import Change, Store

log = logging.getLogger("failover.leader")

AGAIN_S = 1.0  # after a lost race or a lost connection
AT_ONCE_S = 0.05  # after a change that was overtaken by events
IDLE_S = 10.0  # nothing decides by this: it only bounds how long a missed wake-up could matter


class Leader:
    def __init__(
        self,
        store: Store,
        host: str,
        granting: Granting,
        read: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        devices: Devices | None = None,
    ) -> None:
        """`read`: have the lease record of this host read before long, and then a turn taken."""
        self._store, self._host, self._granting, self._read, self._clock = store, host, granting, read, clock
        self._power = Power(store, devices or NoDevices(), clock)
        self._epoch: int | None = None
        self._standby, self._handover = Standby(store, host, granting, clock), Handover(clock)
        self._shown: dict[str, str] = {}
        self._running: dict[str, tuple[str | None, float]] = {}  # vserver -> where it was last started, and when
        self._lost: frozenset[str] = frozenset()
        self._troubled = ""

    def turn(self) -> float:
        """One look and what follows from it; returns the seconds after which to look again if nothing changes."""
        try:
            return self._turn()
        except FailoverError as error:
            if str(error) != self._troubled:
                log.warning("%s", error)
            self._troubled = str(error)
            return AGAIN_S

    def _turn(self) -> float:
        if not self._store.connected:
            self._standby.lost()
            return AGAIN_S
        self._standby.found()
        if self._epoch is None and (wait_s := self._standby.yields_s()) > 0:
            return wait_s
        epoch = self._store.lead()
        if epoch != self._epoch:
            self._granting.lead(epoch, *(self._standby.elected() if epoch is not None else ()))
            if epoch is not None:
                self._remember(self._store.history())
            log.info("%s", f"leading, epoch {epoch}" if epoch else "not leading any more")
            self._epoch = epoch
            self._handover.elected()
        if epoch is None and self._store.fresh:
            self._power.rest()
            return self._standby.look()
        if epoch is None or not self._store.fresh:
            return IDLE_S
        if (left_s := self._handover.left_s) is not None:
            return left_s if left_s > 0 else self._step_down()
        before = self._store.view()
        for host in self._granting.unread(before):
            self._read(host)
        if (unsure_s := self._granting.unsure_s(before)) > 0:
            return unsure_s
        view, looked = self._power.seen(self._granting.seen(before)), self._clock()
        decided = plan(view)
        self._power.spare(decided)
        if decided.memory.fencings != before.memory.fencings and self._store.remember(decided.memory):
            self._power.written(before, decided)  # before anything rests on it
        won = [self._commit(change, view, self._clock() - looked) for change in decided.changes]
        self._store.hold((*decided.holds, *self._other_terms(view)))
        if decided.memory != before.memory:
            self._store.remember(decided.memory)
        self._say_holds({hold.subject: "; ".join(filter(None, (hold.because, hold.hint))) for hold in decided.holds})
        self._witness(view, decided.memory)
        if not decided.changes and not decided.memory.fencings and self._hands_over(view):
            return AT_ONCE_S
        again_s = min(decided.again_s or IDLE_S, fencing.listens_again_s(view), self._granting.again_s(before))
        return min(IDLE_S, again_s) if all(won) else AT_ONCE_S

    def _hands_over(self, view: View) -> bool:
        host = better(view, self._host)
        due = self._handover.due(better=host is not None)
        if due:
            log.info("%s owns less than this host: it should lead", host)
            self._handover.begin(self._granting.resign())
        return due

    def _step_down(self) -> float:
        self._epoch = None
        self._granting.lead(None)
        self._standby.left()
        self._store.step_down()
        return AT_ONCE_S

    def _commit(self, change: Change, view: View, after_s: float) -> bool:
        """`after_s`: how long after the look at the cluster; an event has the time of the decision, and of the look."""
        timed = [
            replace(event, at=event.at + after_s, facts={**event.facts, "noticed_at": event.at})
            for event in change.events
        ]
        sure = self._granting.give_up(change, view)
        done = sure and self._store.commit(replace(change, events=tuple(timed)))
        for event in change.events:
            log.info("%s: %s%s", event.vserver, event.text, "" if done else " (overtaken by events)")
        return done

    def _other_terms(self, view: View) -> tuple[Hold, ...]:
        if view.cluster.timing == self._granting.timing:
            return ()
        text = "it was started with another timing than the one that is applied"
        return (Hold(f"failover-leader on {self._host}", text, "restart it, with the cluster.yaml that was applied"),)

    def _say_holds(self, holds: dict[str, str]) -> None:
        for subject, text in holds.items():
            if self._shown.get(subject) != text:
                log.info("%s waits: %s", subject, text)
        self._shown = holds

    def _remember(self, events: Sequence[Event]) -> None:
        """What the leader before has already written down."""
        self._running = {
            event.vserver: (event.host, float(event.facts.get("since") or 0))
            for event in events
            if event.kind == "running" and event.vserver
        }
        last = {event.host: event.kind for event in events if event.kind in ("lost", "back") and event.host}
        self._lost = frozenset(host for host, kind in last.items() if kind == "lost")

    def _witness(self, view: View, memory: Memory) -> None:
        """History also has what nobody decided: hosts lost and back, vservers seen running after a decision."""
        lost = declared_lost(view, memory)
        events = [_loss(view, host) for host in sorted(lost - self._lost)]
        events += [Event("back", view.now, f"{host} is back", host=host) for host in sorted(self._lost - lost)]
        for name, word in view.assignments.items():
            report = own_report(view, word)
            start = (word.owner, report.since_at if report else 0.0)
            if report and report.state is State.RUNNING and self._running.get(name) != start:
                self._running[name] = start
                facts = {"since": report.since_at, **{f"{mark}_at": at for mark, at in report.marks.items()}}
                text = f"{name} runs on {word.owner}"
                events.append(Event("running", view.now, text, name, word.owner, word.epoch, facts))
        if events:
            self._store.commit(Change(events=tuple(events)))
        self._lost = lost


def _loss(view: View, host: str) -> Event:
    return Event("lost", view.now, f"{host} is lost", host=host, facts={"owned": " ".join(bereft(view, host))})


@entry
def main() -> None:
    from failover.config import load
    from failover.fencing.agents import FenceAgents
    from failover.grants.hearing import Hearing
    from failover.seal import Seal
    from failover.zookeeper import ZooKeeperStore, read_credentials

    daemon = Daemon("failover-leader", "stand for election and lead the cluster")
    host, cluster = daemon.options.host, load(daemon.options.config)
    credentials, timing = read_credentials(Path(cluster.zookeeper.credentials)), cluster.timing
    store = ZooKeeperStore(
        cluster.name,
        cluster.zookeeper.servers,
        credentials,
        role="leader",
        host=host,
        timing=timing,
        changed=daemon.wake,
        near=cluster.hosts[host].address if host in cluster.hosts else None,
    )
    granting, devices = Granting(store, timing, boot_time), FenceAgents(daemon.wake)
    seal = Seal.of(credentials, "grants", cluster.name)
    hearing = Hearing(granting, seal, partial(_address, store, host), daemon.wake)
    daemon.live(Leader(store, host, granting, hearing.read, devices=devices))
    devices.give_up()
    time.sleep(granting.resign())  # the next leader may be elected when this session has ended
    hearing.close()
    store.close()


def _address(store: Store, host: str) -> str | None:
    """As the cluster has it by now; None while that is not known."""
    try:
        known = store.view().cluster.hosts.get(host)
    except FailoverError:
        return None
    return known.address if known else None


if __name__ == "__main__":
    main()
