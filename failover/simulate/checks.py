"""The invariants of a story. Those of a single step stand where it is performed (machine.py, body.py); here are those
that need the whole cluster.

    1  a vserver runs on at most one host            6  a command is carried out once
    2  its address is up only where it runs          9  every decision has a reason
    3  nothing moves before the old owner let go    11  once all is well, all that is wanted started runs
    4  nobody writes under an older epoch

A copy that a human started counts once the leader has had its turn about it, and that has had time to be obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping

from failover import wire
from failover.model import Assignment, HostIntent, Kind, Report, State, VserverIntent, Want
from failover.simulate.clock import EPOCH
from failover.simulate.excuses import excuse
from failover.simulate.host import Host
from failover.simulate.record import Record, decoded
from failover.simulate.scene import Scene

BY_HAND_S = 10.0  # so long after it was reported a copy started by hand counts
DECIDED_S = 60.0  # so long after the leader's last word it is obeyed
HEALED_S = 180.0  # so long after the last trouble everything runs


class Checks:
    def __init__(self, scene: Scene, hosts: Mapping[str, Host], record: Record) -> None:
        self._scene, self._hosts, self._record = scene, hosts, record
        self._reported_by_hand: dict[tuple[str, str], float] = {}  # (vserver, host) -> since when
        self._obeyed: dict[tuple[str, int], None] = {}  # wishes to move, by vserver and epoch
        self.troubled_at = 0.0
        record.assigned = self.assigned

    # --- after every step ---------------------------------------------------------------------------------------------

    def look(self) -> None:
        for name in self._scene.cluster.vservers:
            running = [host for host, one in self._hosts.items() if one.body.runs(name) and self._counts(name, host)]
            if len(running) > 1:
                self._scene.breach(1, f"{name} runs on {' and '.join(running)}")
            met = [host for host, one in self._hosts.items() if one.body.answers_at(name) and self._counts(name, host)]
            if len(met) > 1:
                self._scene.breach(2, f"the address of {name} is up on {' and '.join(met)}")
            for host in met:
                if running and host not in running:
                    self._scene.breach(2, f"the address of {name} is up on {host}, but it runs on {running[0]}")

    def _counts(self, name: str, host: str) -> bool:
        life = self._hosts[host].body.life(name)
        word = self._word(name)
        if word is None or word.want is Want.IGNORED:
            return False
        if not life.by_hand:
            self._reported_by_hand.pop((name, host), None)
            return True
        report = decoded(Report, self._scene.world.nodes, f"reports/{host}")
        seen = report.vservers.get(name) if report else None
        if seen is None or not seen.by_hand or not self._can_be_answered(host):
            self._reported_by_hand.pop((name, host), None)
            return False
        since = self._reported_by_hand.get((name, host))
        if since is None:
            since = self._reported_by_hand[name, host] = self._scene.now
            self._scene.scheduler.at(since + BY_HAND_S, self._scene.touch)
        return self._scene.now >= since + BY_HAND_S

    def _can_be_answered(self, host: str) -> bool:
        nodes = self._scene.world.nodes
        return f"alive/{host}" in nodes and "leader/holder" in nodes and not self._scene.world.down

    def _word(self, name: str) -> Assignment | None:
        return decoded(Assignment, self._scene.world.nodes, f"assignments/{name}")

    # --- every word of the leader -------------------------------------------------------------------------------------

    def assigned(self, old: Assignment | None, new: Assignment, session: int) -> None:
        name, nodes = new.vserver, self._scene.world.nodes
        holder = nodes.get("leader/holder")
        if holder is None or holder.session != session:
            self._scene.breach(4, f"{name}: who does not lead has written epoch {new.epoch}")
        if new.epoch != (old.epoch if old else 0) + 1:
            self._scene.breach(4, f"{name}: epoch {new.epoch} follows {old.epoch if old else 0}")
        if not new.because.strip():
            self._scene.breach(9, f"{name}: epoch {new.epoch} has no reason")
        if old is not None and old.owner != new.owner:
            self._let_go(old, new)
        if old is not None:
            self._once(old, new)

    def _let_go(self, old: Assignment, new: Assignment) -> None:
        host = self._hosts.get(old.owner)
        if host is None or new.kind is Kind.ADOPTED or not host.body.may_run(old.vserver):
            return
        if new.owner in self._hosts and self._hosts[new.owner].body.binds(new.vserver):
            return  # it has promised not to start it yet
        intent = decoded(HostIntent, self._scene.world.nodes, f"intent/hosts/{old.owner}")
        if intent is not None and intent.vouched is not None:
            return
        if not host.body.life(old.vserver).by_hand:
            still = "still runs" if host.body.runs(old.vserver) else "may still run for all that is known"
            self._scene.breach(3, f"{old.vserver} goes to {new.owner}, but it {still} on {old.owner}")

    def _once(self, old: Assignment, new: Assignment) -> None:
        name = new.vserver
        intent = decoded(VserverIntent, self._scene.world.nodes, f"intent/vservers/{name}") or VserverIntent()
        if new.again and not old.again and intent.restart_epoch != old.epoch:
            self._scene.breach(6, f"{name} is restarted, but nobody has said so under epoch {old.epoch}")
        wish = intent.move
        if wish is None or new.target is None or old.target is not None:
            return
        if wish.epoch == old.epoch:
            self._obeyed[name, wish.epoch] = None
        elif (name, wish.epoch) in self._obeyed and wish.target == new.target and not self._other_reason(old, new):
            self._scene.breach(6, f"{name} is moved to {new.target} once more")

    def _other_reason(self, old: Assignment, new: Assignment) -> bool:
        """Whether something else than the command could have moved it."""
        nodes, vserver = self._scene.world.nodes, self._scene.cluster.vservers.get(new.vserver)
        drained = decoded(HostIntent, nodes, f"intent/hosts/{old.owner}") or HostIntent()
        report = decoded(Report, nodes, f"reports/{old.owner}")
        seen = report.vservers.get(new.vserver) if report else None
        failed = seen is not None and (seen.state is State.ERROR or bool(seen.failing))
        bound = vserver is None or vserver.together_with or vserver.apart_from or new.target == vserver.primary
        leaving = report is not None and report.leaving
        return bool(drained.drained or leaving or failed or bound or new.failed_at != old.failed_at)

    # --- at the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Invariant 11, if all has been well for long enough."""
        if self._troubles() or self._scene.now < self.troubled_at + HEALED_S:
            return
        holds = decoded(wire.Holds, self._scene.world.nodes, "holds")
        held = {hold.subject: hold.because for hold in holds.holds} if holds else {}
        for name, vserver in self._scene.cluster.vservers.items():
            word = self._word(name)
            intent = decoded(VserverIntent, self._scene.world.nodes, f"intent/vservers/{name}") or VserverIntent()
            want = Want.IGNORED if intent.removed else intent.want or vserver.want
            runs = any(host.body.runs(name) for host in self._hosts.values())
            if want is not Want.STARTED or runs:
                continue
            said = held.get(name, "it is in error" if word is not None and self._in_error(word) else "")
            if said and excuse(self._scene, self._hosts, name, word):
                continue
            if word is not None and word.at > EPOCH + self._scene.now - DECIDED_S:
                continue  # it is just being done
            why = f"; what is said is no reason: {said}" if said else ""
            self._scene.breach(11, f"{name} is wanted started and all is well, but it runs nowhere{why}")

    def _in_error(self, word: Assignment) -> bool:
        report = decoded(Report, self._scene.world.nodes, f"reports/{word.owner}")
        seen = report.vservers.get(word.vserver) if report else None
        return seen is not None and seen.state is State.ERROR

    def _troubles(self) -> bool:
        if self._scene.world.down or not self._scene.links.whole():
            return True
        return any(
            not host.body.powered
            or not host.agent.works
            or not host.leader.works
            or not host.body.guard.works
            or host.body.disk_error
            or host.body.disk_full
            or host.body.leaving
            for name, host in self._hosts.items()
            if name in self._scene.cluster.hosts
        )
