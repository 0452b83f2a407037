"""Two hosts, alpha and beta, for the contract of a machine: in the simulation, or real in namespaces of their own.

A vserver's tree lies on alpha. No agent is at work: the test says what an agent would, and looks.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents import capacity, network
from agents.command import run
from agents.isolation import cgroup
from agents.isolation import vserver as isolation
from agents.isolation.vserver import Settings
from agents.lease import Granted
from agents.machine import LEAVING, VSERVERS, RealMachine
from agents.replication.channel import Channel
from agents.replication.record import Place, Record
from agents.steps import Seen, SeenVserver, Start, Step, Tree
from failover.model import Assignment, Capacity, Cluster, Host, Told, Vserver
from failover.simulate.body import Body
from failover.simulate.clock import Clock
from failover.simulate.copies import Copy
from failover.simulate.machine import SimulatedMachine
from failover.simulate.process import Process
from failover.simulate.questions import Questions
from failover.simulate.scene import Scene, Written
from failover.stories.story import Traits
from tests import trees, wires
from tests.real_host import CLUSTER, RealHost

ADDRESS = "10.0.0.101"
WEB = "busybox httpd -f -p 80 -h /var & echo $! > /httpd"
DEAF = "trap '' TERM; while :; do sleep 1; done"
HOSTS = {"alpha": Host("alpha", "10.0.0.1"), "beta": Host("beta", "10.0.0.2")}


class Machines:
    def __init__(self, name: str) -> None:
        self.vserver = Vserver(name, "alpha", ("beta",), (f"{ADDRESS}/24",))
        self.machine: dict[str, Any] = {}
        self.woken = dict.fromkeys(HOSTS, 0)  # how often the agents were

    # --- what an agent does -------------------------------------------------------------------------------------------

    def told(self, host: str = "alpha", *, lease_s: float = 30.0, **word: Any) -> None:
        """It hears that alpha owns it under epoch 7, or what differs from that; and the guard has taken it."""
        self.until(lambda: self.hears(host, lease_s=lease_s, **word))

    def hears(self, host: str = "alpha", *, lease_s: float, promised_s: float = 0.0, **word: Any) -> bool:
        """The same; whether the guard has taken it. `promised_s`: beta has promised it for so long."""
        name = self.vserver.name
        assignment = Assignment(**{"vserver": name, "owner": "alpha", "epoch": 7, **word})
        told = Told(host, Cluster(CLUSTER, HOSTS, {name: self.vserver}), {name: assignment})
        self.machine[host].publish(told)
        now = self.machine[host].now()
        ends = {name: now + promised_s} if promised_s else {}
        return bool(self.machine[host].hold(now + lease_s, told, ends))

    def in_trouble(self) -> bool:
        """Whether the grants of alpha are, as it knows once it has spoken with its guard."""
        self.machine["alpha"].live()
        return self.granted().troubled

    def granted(self) -> Granted:
        raise NotImplementedError

    def see(self, host: str = "alpha") -> SeenVserver:
        return self.look(host).vservers[self.vserver.name]

    def look(self, host: str = "alpha") -> Seen:
        seen: Seen = self.machine[host].observe([self.vserver.name])
        return seen

    def begin(self, *steps: Step, host: str = "alpha") -> None:
        for step in steps:
            self.machine[host].begin(step)

    def do(self, *steps: Step, host: str = "alpha") -> SeenVserver:
        """One after another; what is seen when the last is over."""
        for step in steps:
            self.begin(step, host=host)
            self.until(lambda name=step.name: name not in self.see(host).busy)  # type: ignore[misc]
        return self.see(host)

    def start(self, host: str = "alpha", epoch: int = 7, **rest: Any) -> SeenVserver:
        return self.do(Start(self.vserver, epoch, host, **rest), host=host)

    # --- the world ----------------------------------------------------------------------------------------------------

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for what must become true in a moment."""
        raise NotImplementedError

    def elapse(self, length_s: float) -> None:
        raise NotImplementedError

    def new_agent(self, host: str = "alpha") -> None:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether its address answers a client."""
        raise NotImplementedError

    def capacity(self) -> Capacity:
        """What alpha has."""
        raise NotImplementedError

    def write(self, what: str, host: str = "alpha") -> None:
        raise NotImplementedError

    def has(self, what: str, host: str) -> bool:
        """Whether the tree there has what was written."""
        raise NotImplementedError

    def has_aside(self, what: str, host: str) -> bool:
        """Whether it is among what was kept aside there."""
        raise NotImplementedError

    def lay(self, host: str) -> None:
        """A live tree."""
        raise NotImplementedError

    def set_aside(self, **record: Any) -> None:
        """The tree on alpha is a replica from the beginning, with what is recorded of one."""
        raise NotImplementedError

    def start_by_hand(self, host: str = "alpha") -> None:
        raise NotImplementedError

    def die(self) -> None:
        """Its init does."""
        raise NotImplementedError

    def cannot_start(self, broken: bool = True) -> None:
        raise NotImplementedError

    def does_not_listen(self) -> None:
        """Its init ignores that it is to stop."""
        raise NotImplementedError

    def serves(self) -> None:
        """What its health check asks for is there, once it runs."""
        raise NotImplementedError

    def is_well(self) -> bool:
        """Whether its health check has found that once."""
        raise NotImplementedError

    def fails(self) -> None:
        """What its health check asks for is there no more."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Alpha is about to be."""
        raise NotImplementedError

    def slow_start(self) -> Any:
        """Within it no start on alpha comes to its end."""
        raise NotImplementedError

    def guard_hanging(self) -> Any:
        """Within it that of alpha is."""
        raise NotImplementedError

    def guard_ended(self) -> Any:
        """Within it that of alpha is, and no other one follows."""
        raise NotImplementedError

    def guard_killing(self, after_s: float) -> Any:
        """Within it that of alpha kills what has had no word for so long."""
        raise NotImplementedError

    def cut_off(self) -> Any:
        """Within it alpha and beta do not reach each other."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


# --- simulated --------------------------------------------------------------------------------------------------------


class _Idle:
    """An agent that does nothing when it is woken."""

    def __init__(self, woken: Callable[[], None]) -> None:
        self._woken = woken

    def turn(self) -> float:
        self._woken()
        return 3600.0


class InSimulation(Machines):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        hosts = HOSTS | {"alpha": replace(HOSTS["alpha"], capacity=Capacity(8 << 30, 4.0))}
        self._scene = Scene(Cluster(CLUSTER, hosts, {name: self.vserver}), {}, seed=0)
        self._traits: dict[str, Traits] = {}
        self._scene.traits = self._traits
        self._bodies, self._agents = dict[str, Body](), dict[str, Process]()
        for host in HOSTS:
            self._boot(host)
        self.lay("alpha")

    def _boot(self, host: str) -> None:
        scene, clock = self._scene, Clock(self._scene.scheduler)
        clock.boot(uptime_s=1000.0)
        self._bodies[host] = body = Body(
            host, scene, clock, Questions(host, scene, lambda other: None, scene.random(host))
        )
        body.power_on()
        body.guard.begin()
        body.bonds = {}

        def woken() -> None:
            self.woken[host] += 1

        self._agents[host] = Process("agent", scene.scheduler, clock, scene.random(host), lambda: _Idle(woken), print)
        self.new_agent(host)

    def new_agent(self, host: str = "alpha") -> None:
        process = self._agents[host]
        process.die()
        process.start()
        random = self._scene.random(f"{host} machine")
        self.machine[host] = SimulatedMachine(self._bodies[host], self._bodies.__getitem__, process, random)
        self.elapse(0.01)  # its first turn

    def until(self, holds: Callable[[], object]) -> None:
        for _ in range(3000):
            if holds():
                return
            self.elapse(0.02)
        raise AssertionError("it did not become true within 60 s of the simulation's time")

    def elapse(self, length_s: float) -> None:
        end = self._scene.now + length_s
        while self._scene.scheduler.step(end):
            pass

    def answers(self) -> bool:
        return any(body.answers_at(self.vserver.name) for body in self._bodies.values())

    def capacity(self) -> Capacity:
        return self._scene.cluster.hosts["alpha"].capacity

    def write(self, what: str, host: str = "alpha") -> None:
        self._scene.written.append(Written(what, 1, self._scene.now))
        self._bodies[host].write(self.vserver.name, len(self._scene.written) - 1)

    def has(self, what: str, host: str) -> bool:
        return self._is_in(what, self._bodies[host].copy(self.vserver.name).content)

    def has_aside(self, what: str, host: str) -> bool:
        return self._is_in(what, self._bodies[host].copy(self.vserver.name).kept)

    def _is_in(self, what: str, content: frozenset[int]) -> bool:
        return any(self._scene.written[number].vserver == what for number in content)

    def lay(self, host: str) -> None:
        self._bodies[host].copies[self.vserver.name] = Copy(Tree.LIVE)

    def set_aside(self, **record: Any) -> None:
        self._bodies["alpha"].copies[self.vserver.name] = Copy(Tree.REPLICA, **record)

    def start_by_hand(self, host: str = "alpha") -> None:
        self._bodies[host].run(self.vserver.name, 0, by_hand=True)

    def die(self) -> None:
        assert any(body.crash(self.vserver.name, "its init died") for body in self._bodies.values())

    def cannot_start(self, broken: bool = True) -> None:
        self._traits[self.vserver.name] = Traits(fails_start=1_000_000 if broken else 0)

    def does_not_listen(self) -> None:
        self._traits[self.vserver.name] = Traits(hangs=True)

    def serves(self) -> None:
        self._scene.check_fails.clear()

    def is_well(self) -> bool:
        return True

    def fails(self) -> None:
        self._scene.check_fails[self.vserver.name] = (self._scene.now, float("inf"))

    def shut_down(self) -> None:
        self._bodies["alpha"].leaving = True

    @contextmanager
    def slow_start(self) -> Iterator[None]:
        process = self._agents["alpha"]
        process.hung = True
        yield
        process.hung = False
        process.go_on()

    @contextmanager
    def guard_hanging(self) -> Iterator[None]:
        guard = self._bodies["alpha"].guard
        guard.hung = True
        yield
        guard.hung = False
        guard.go_on()

    def granted(self) -> Granted:
        granted: Granted = self.machine["alpha"].granted
        return granted

    @contextmanager
    def guard_ended(self) -> Iterator[None]:
        guard = self._bodies["alpha"].guard
        guard.stop()
        yield
        guard.begin()

    @contextmanager
    def guard_killing(self, after_s: float) -> Iterator[None]:
        guard = self._bodies["alpha"].guard
        before, guard.kill_after_s = guard.kill_after_s, after_s
        yield
        guard.kill_after_s = before

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        both = (("alpha", "beta"), ("beta", "alpha"))
        self._scene.links.cut(both)
        yield
        self._scene.links.mend(both)

    def close(self) -> None:
        assert self._scene.violations == []


# --- real -------------------------------------------------------------------------------------------------------------


class _There:
    """A machine all of whose calls are made on its host."""

    def __init__(self, host: RealHost, machine: Any) -> None:
        self._host, self._machine = host, machine

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._host(lambda: getattr(self._machine, name)(*arguments))


class OnRealHosts(Machines):
    """`client`: a network namespace from which the hosts' vservers can be reached."""

    def __init__(self, name: str, hosts: Mapping[str, RealHost], client: Path) -> None:
        super().__init__(name)
        self._hosts, self._client, self._place = hosts, client, Place(name, VSERVERS)
        self._init = self._place.live / "sbin/init"
        self._made: dict[str, RealMachine] = {}
        for host in hosts:
            self.new_agent(host)
        self.lay("alpha")

    def _on(self, host: str, work: Callable[[], Any]) -> Any:
        return self._hosts[host](work)

    def new_agent(self, host: str = "alpha") -> None:
        def changed() -> None:
            self.woken[host] += 1

        self._made[host] = self._on(host, lambda: self._hosts[host].machine(changed))
        self.machine[host] = _There(self._hosts[host], self._made[host])

    def until(self, holds: Callable[[], object]) -> None:
        trees.wait_until(holds, "it became true")

    def elapse(self, length_s: float) -> None:
        time.sleep(length_s)

    def answers(self) -> bool:
        return wires.answers(self._client, ADDRESS, timeout_s=0.3)

    def capacity(self) -> Capacity:
        measured: Capacity = self._on("alpha", capacity.measure)
        return measured

    def write(self, what: str, host: str = "alpha") -> None:
        self._on(host, lambda: (self._place.live / what).write_text(what))

    def has(self, what: str, host: str) -> bool:
        return bool(
            self._on(host, lambda: any((tree / what).exists() for tree in (self._place.live, self._place.tree)))
        )

    def has_aside(self, what: str, host: str) -> bool:
        return bool(self._on(host, lambda: [*self._place.salvage.glob(f"*/{what}")]))

    def lay(self, host: str) -> None:
        self._on(host, lambda: trees.busybox_tree(self._place.live))

    def set_aside(self, **record: Any) -> None:
        def move() -> None:
            self._place.make_home()
            self._place.live.rename(self._place.tree)
            self._place.save(Record(**record))

        self._on("alpha", move)

    def start_by_hand(self, host: str = "alpha") -> None:
        self._on(host, lambda: isolation.start(Settings(self.vserver.name, self._place.live)))

    def die(self) -> None:
        status = self._on("alpha", lambda: isolation.status(self.vserver.name))
        os.kill(status.pid, signal.SIGKILL)

    def cannot_start(self, broken: bool = True) -> None:
        self._on("alpha", lambda: self._init.chmod(0o600 if broken else 0o755))

    def does_not_listen(self) -> None:
        self._on("alpha", lambda: trees.script(self._init, DEAF))

    def serves(self) -> None:
        self._on("alpha", lambda: trees.script(self._init, f"{WEB}; {trees.IDLE}"))

    def is_well(self) -> bool:
        (tally,) = self._made["alpha"]._checks._watches[self.vserver.name]._tallies
        return tally.healthy

    def fails(self) -> None:
        pid = self._on("alpha", lambda: (self._place.live / "httpd").read_text().strip())
        self._on("alpha", lambda: isolation.execute(self.vserver.name, ["kill", pid]))

    def shut_down(self) -> None:
        self._on("alpha", LEAVING.touch)

    def slow_start(self) -> Any:
        return _stopped(self._hosts["alpha"].spawner.pid)

    def guard_hanging(self) -> Any:
        return _stopped(self._hosts["alpha"].guard.pid)

    def granted(self) -> Granted:
        granted: Granted = self._made["alpha"].granted
        return granted

    @contextmanager
    def guard_ended(self) -> Iterator[None]:
        self._on("alpha", self._hosts["alpha"].end_guard)
        try:
            yield
        finally:
            self._on("alpha", self._hosts["alpha"].start_guard)

    @contextmanager
    def guard_killing(self, after_s: float) -> Iterator[None]:
        self._hosts["alpha"].new_guard("--kill-after", str(after_s))
        try:
            yield
        finally:
            self._hosts["alpha"].new_guard()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self._on("alpha", Channel("beta", HOSTS["beta"].address).reset)
        self._on("alpha", lambda: run(["ip", "link", "set", "eth0", "down"], timeout_s=10))
        try:
            yield
        finally:
            self._on("alpha", lambda: run(["ip", "link", "set", "eth0", "up"], timeout_s=10))

    def close(self) -> None:
        for host in self._hosts:
            self._on(host, self._clear)

    def _clear(self) -> None:
        isolation.kill(self.vserver.name)
        network.remove(self.vserver.name)
        cgroup.remove(self.vserver.name)
        LEAVING.unlink(missing_ok=True)
        for place in (self._place.live, self._place.home):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
