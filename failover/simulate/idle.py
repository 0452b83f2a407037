"""Idle time, which costs nothing: when nothing but renewals, regular rounds and promises has happened for a while, all
that is regular moves along to just before the next moment that decides something.

Rule 1: it changes nothing in the outcome: the fakes are brought up as if all that is regular had gone on meanwhile.
Rule 2: of production code only the promises that an agent holds are touched: they are renewed like everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agents.agent import Agent
from agents.reconcile import next_at
from agents.talk import owned
from failover.errors import FailoverError
from failover.model import Told, Vserver, frozen_map
from failover.plan import plan
from failover.simulate.host import Host
from failover.simulate.scene import Scene

QUIET_S = 12.0  # so long nothing but regular rounds has happened before idle time is left out
REGULAR_S = 10.0  # a vserver that is synced more rarely keeps its moments
LANDING_S = 1.0  # so long before the moment that decides something time goes on as usual
WORTH_S = 3.0
ON_ITS_WAY_S = 0.03  # what was written on its way so long ago has come; an age in it must not be left behind
FAILED_S = 35.0  # after a failure the next start is awaited


class Idle:
    def __init__(self, scene: Scene, hosts: Mapping[str, Host]) -> None:
        self.scene, self.hosts = scene, hosts
        self._next_try = 0.0

    def leave_out(self, until_s: float) -> None:
        """Jump to just before the next moment that decides something, if nothing is going on."""
        now, scheduler = self.scene.now, self.scene.scheduler
        if now < max(self.scene.stirred_at + QUIET_S, self._next_try) or scheduler.busy_until(ON_ITS_WAY_S):
            return
        moments = self._moments()
        if moments is None:
            self._next_try = now + 1.0
            return
        hard = scheduler.next_hard()
        target = min([until_s, *([hard] if hard is not None else []), *moments]) - LANDING_S
        if target < now + WORTH_S:
            self._next_try = max(now + 1.0, target + LANDING_S)
            return
        self._skip(target - now)

    def _moments(self) -> list[float] | None:
        """When time alone will decide something; None while something is going on."""
        found: list[float] = []
        for host in self.hosts.values():
            if (kills_at := host.body.guard.kills_at()) is not None:
                found.append(kills_at)
            machine, store = host.machine, host.agent_store
            if machine is None or store is None:
                continue
            if machine.busy or machine.sender.sends or machine.youngest_failure_s() < FAILED_S:
                return None
            if isinstance(host.agent.turner, Agent) and host.agent.turner.changes:
                return None
            if self.scene.now - machine.letterbox.asked_at < QUIET_S and not self._goes_by_promises(host):
                return None
            if store.fresh and machine.told is not None and host.agent.works:
                found += self._agents_moment(host)
        for host in self.hosts.values():
            if host.leader.works and host.leader_store is not None and not self._add_leaders_moment(host, found):
                return None
        return [at for at in found if at > self.scene.now]

    def _goes_by_promises(self, host: Host) -> bool:
        """Whether all that runs there may run on, and was not only just promised."""
        assert host.machine is not None
        told, agent, now = host.machine.told, host.agent.turner, host.clock.now()
        if told is None or not isinstance(agent, Agent) or not host.agent.works:
            return False
        rights = agent._talk.rights(told, told.cluster.timing, now)
        return all(name in rights for name in owned(told) if host.body.runs(name))

    def _agents_moment(self, host: Host) -> list[float]:
        """Of its regular rounds only those that are rare."""
        assert host.machine is not None and host.machine.told is not None
        told = host.machine.told
        rare = {name: vserver for name, vserver in told.cluster.vservers.items() if name not in self._regular()}
        if not rare:
            return []
        at = next_at(told_of(told, rare), host.machine.observe(rare), host.clock.now())
        return [host.clock.when(at)] if at != float("inf") else []

    def _regular(self) -> list[str]:
        vservers = self.scene.cluster.vservers
        return [name for name, vserver in vservers.items() if vserver.sync.every_s <= REGULAR_S]

    def _add_leaders_moment(self, host: Host, found: list[float]) -> bool:
        """False while it has something to do."""
        store = host.leader_store
        assert store is not None
        holder = self.scene.world.nodes.get("leader/holder")
        if not store.fresh or holder is None or holder.session != store.session:
            return True
        assert host.ear is not None
        try:
            view = store.view()
            if not host.ear.granting.settled(view):
                return False
            decided = plan(host.ear.granting.seen(view))
        except FailoverError:
            return True
        if decided.changes or decided.cuts.begin:
            return False
        if decided.again_s is not None:
            found.append(self.scene.now + decided.again_s)
        return True

    def _skip(self, length_s: float) -> None:
        scene, regular = self.scene, self._regular()
        written = [f"reports/{host}" for host in self._working()]
        written += [f"leases/{host}" for host in self._working() if not self._granted(host)]
        scene.scheduler.skip(length_s)
        scene.world.skip(length_s, written)
        for host in self.hosts.values():
            clock_s = length_s * host.clock.rate
            host.body.guard.skip(clock_s)
            if host.machine is not None:
                host.machine.skip(clock_s, regular)
            if host.ear is not None:
                host.ear.granting.skip(host.clock.now() - clock_s, clock_s)
            if isinstance(host.agent.turner, Agent):
                _skip_promises(host.agent.turner, host.clock.now() - clock_s, clock_s)
            for store in (host.agent_store, host.leader_store):
                if store is not None:
                    store.skip(length_s, clock_s, written)
        self._next_try = scene.now + WORTH_S

    def _granted(self, name: str) -> bool:
        store = self.hosts[name].agent_store
        return store is not None and store.rest.granted

    def _working(self) -> list[str]:
        stores = ((name, host.agent_store) for name, host in self.hosts.items() if host.agent.works)
        return [name for name, store in stores if store is not None and store.fresh]


def told_of(told: Told, vservers: Mapping[str, Vserver]) -> Told:
    """What was told, of these only."""
    return replace(told, cluster=replace(told.cluster, vservers=frozen_map(vservers)))


def _skip_promises(agent: Agent, before: float, length_s: float) -> None:
    """As if its questions had been answered all the time; those that had ended before stay ended."""
    talk, holder = agent._talk, agent._talk._holder
    talk._asked_at += length_s
    holder._asked = {number: replace(one, sent_at=one.sent_at + length_s) for number, one in holder._asked.items()}
    holder._ends = {key: end + length_s if end > before else end for key, end in holder._ends.items()}
