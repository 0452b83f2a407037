"""One simulated host: its power, its guard, and the production agent and leader as processes on it.

Rule 1: an agent's session outlives its process (the session file), but not the host's power.
Rule 2: a stalled host does nothing. When it goes on, the guard's overdue freeze comes first.
Rule 3: whoever supervises a process starts it again: the guard the agent, the system the guard and the leader. What an
        operator has stopped stays stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agents.agent import Agent
from agents.steps import Seen, Shipped
from failover.daemon import Turner
from failover.grants.granting import Granting
from failover.leader import Leader
from failover.model import Told
from failover.simulate.body import Body
from failover.simulate.clock import Action, Clock
from failover.simulate.devices import Outlets, SimulatedDevices
from failover.simulate.line import Wire
from failover.simulate.machine import SimulatedMachine
from failover.simulate.memory import MemoryStore
from failover.simulate.process import Process
from failover.simulate.questions import Ear, Questions
from failover.simulate.scene import Scene
from failover.simulate.watchdog import Watchdog
from failover.stories.events import STORE

BOOT_S = (2.0, 5.0)  # from power on until the daemons run
AGENT_AGAIN_S = 1.0  # after its death
GUARD_AGAIN_S = 1.0
LEADER_AGAIN_S = 10.0
SILENCE_S = 5.0  # then the guard kills an agent that hangs
DELAY_S = 0.003  # one message on its way, on average; now and then much more
LONGEST_DELAY_S = 0.2
RETRY_S = (0.05, 0.8)  # before the next attempt to connect
RESET_S = 10.0  # from a reset until it has power again


class Host:
    def __init__(
        self,
        name: str,
        scene: Scene,
        peer: Callable[[str], Body],
        ear: Callable[[str], Ear | None],
        outlets: Outlets,
    ) -> None:
        self.name, self._scene, self._peer, self._outlets = name, scene, peer, outlets
        self.clock = Clock(scene.scheduler)
        self._random = scene.random(name)
        self.body = Body(name, scene, self.clock, Questions(name, scene, ear, self._random))
        self.session: int | None = None  # of the agent, as its session file has it
        self.shipped: dict[str, dict[str, Shipped]] = {}  # what the first agent knows of the backups
        self.machine: SimulatedMachine | None = None
        self.agent_store: MemoryStore | None = None
        self.leader_store: MemoryStore | None = None
        self.ear: Ear | None = None  # of its leader's process
        self.agent = self._process("agent", self._make_agent)
        self.leader = self._process("leader", self._make_leader)
        self.power = self._guards = 0  # counts, so that what is overtaken does not happen
        self._stalled_until = 0.0
        self._watchdog: Watchdog | None = None

    def _process(self, name: str, make: Callable[[], Turner]) -> Process:
        troubled = partial(self._scene.breach, 0)
        return Process(
            name,
            self._scene.scheduler,
            self.clock,
            self._random,
            make,
            lambda text: troubled(f"{self.name}: {text}"),
        )

    # --- power --------------------------------------------------------------------------------------------------------

    def begin(self, *, at_once: bool, uptime_s: float = 0.0) -> None:
        """It is on already; its daemons start within half a second."""
        self._power_on(uptime_s)
        self.body.bonds = {}
        self._scene.scheduler.after(0.0 if at_once else self._random.uniform(0.0, 0.5), self._if_same_power(self._run))

    def power_on(self) -> None:
        if self.body.powered:
            return
        self._power_on()
        self._scene.say(f"{self.name} is switched on")
        self._scene.scheduler.after(self._random.uniform(*BOOT_S), self._if_same_power(self._run))

    def _power_on(self, uptime_s: float = 0.0) -> None:
        self.clock.boot(uptime_s)
        self.body.power_on()

    def _if_same_power(self, action: Action) -> Action:
        power = self.power
        return lambda: action() if power == self.power else None

    def _run(self) -> None:
        self._scene.stir()
        self.body.recover()
        self.body.guard.begin()
        if self._watchdog is not None:
            self._watchdog.begin()
        self.agent.start()
        self.leader.start()

    def power_off(self) -> None:
        if not self.body.powered:
            return
        self.power += 1
        self._stalled_until = 0.0
        self._guards += 1
        self._scene.say(f"{self.name} has no power")
        self.agent_dies()
        self.leader_dies()
        self.agent.stalled = self.leader.stalled = False
        self.session = None
        if self._watchdog is not None:
            self._watchdog.end()
        self.body.power_off()

    def has_watchdog(self) -> None:
        self._watchdog = Watchdog(self._scene.scheduler, self._is_in_hand, self._reset)

    def _is_in_hand(self) -> bool:
        return self.body.stalled or (self.body.guard.works and not self.body.at_large())

    def _reset(self) -> None:
        self._scene.say(f"{self.name} is reset by its watchdog")
        self.power_off()
        self._scene.scheduler.after(RESET_S, self._if_same_power(self.power_on))

    # --- what its processes are made of -------------------------------------------------------------------------------

    def _make_agent(self) -> Turner:
        scene = self._scene
        self.machine = self._make_machine()
        self.shipped = {}
        self.agent_store = MemoryStore(
            scene.world,
            role="agent",
            timing=scene.timing,
            host=self.name,
            changed=self.agent.wake,
            session=self.session,
            clock=self.clock.now,
            line=self._line(self.agent),
        )
        return Agent(self.agent_store, self.machine, scene.timing, wall=self.clock.wall)

    def _make_machine(self) -> SimulatedMachine:
        machine = SimulatedMachine(self.body, self._peer, self.agent, self._random)
        machine.sender.shipped = dict(self.shipped)
        return machine

    def observe(self, told: Told) -> Seen:
        """What the agent saw before the story."""
        return self._make_machine().observe(told.cluster.vservers)

    def _make_leader(self) -> Turner:
        self.leader_store = MemoryStore(
            self._scene.world,
            role="leader",
            timing=self._scene.timing,
            host=self.name,
            changed=self.leader.wake,
            clock=self.clock.now,
            line=self._line(self.leader),
        )
        granting = Granting(self.leader_store, self._scene.timing, self.clock.now)
        self.ear = Ear(self.name, self._scene, self.leader, granting, self._random)
        devices = SimulatedDevices(self._outlets, self.leader, lambda: self.body.powered, self._random)
        return Leader(self.leader_store, self.name, granting, self.ear.read, clock=self.clock.now, devices=devices)

    def _line(self, process: Process) -> Wire:
        scene, life = self._scene, process.life

        def lives() -> bool:
            return process.works and process.life == life

        return Wire(
            lambda: lives() and not scene.world.down and scene.links.reaches(self.name, STORE),
            lambda: lives() and not scene.world.down and scene.links.reaches(STORE, self.name),
            partial(scene.scheduler.after, soft=True),
            partial(process.after, soft=True),
            self._delay_s,
            lambda: self._random.uniform(*RETRY_S),
            lambda: scene.scheduler.now,
        )

    def _delay_s(self) -> float:
        return min(LONGEST_DELAY_S, self._random.expovariate(1 / DELAY_S))

    def line_changed(self) -> None:
        for process, store in ((self.agent, self.agent_store), (self.leader, self.leader_store)):
            if store is not None and process.alive:
                store.line_changed()

    # --- processes that die, come back, or hang -----------------------------------------------------------------------

    def agent_dies(self) -> None:
        if self.agent_store is not None and self.agent.alive:
            self._scene.stir()
            self.agent.die()
            self.session = self.agent_store.session
            self.agent_store.die()
        self.machine = self.agent_store = None

    def agent_starts(self, after_s: float = 0.0) -> None:
        if self.body.powered:
            self._scene.scheduler.after(after_s, self._if_same_power(self.agent.start))

    def agent_restarts(self) -> None:
        if self.agent.alive:
            self.agent_dies()
            self.agent_starts(AGENT_AGAIN_S)

    def drift(self, share: float) -> None:
        self.clock.drift(share)
        self.body.guard.rearm()
        self.agent.wake()
        self.leader.wake()

    def agent_hangs(self, length_s: float) -> None:
        """A guard that works kills it when it is silent for too long."""
        if not self.agent.alive:
            return
        self._hang(self.agent, length_s)
        life = self.agent.life

        def look() -> None:
            if self.agent.life == life and self.agent.hung and self.body.guard.works:
                self._scene.say(f"{self.name}: the agent is silent for too long and is killed")
                self.agent_dies()
                self.agent_starts(AGENT_AGAIN_S)
            elif self.agent.life == life and self.agent.hung:
                self._scene.scheduler.after(1.0, look)

        if length_s > SILENCE_S:
            self._scene.scheduler.after(SILENCE_S, look)

    def leader_dies(self, *, again: bool = False) -> None:
        if self.leader_store is not None and self.leader.alive:
            self._scene.stir()
            self.leader.die()
            self.leader_store.die()
        self.leader_store = self.ear = None
        if again:
            self._scene.scheduler.after(LEADER_AGAIN_S, self._if_same_power(self.leader.start))

    def leader_hangs(self, length_s: float) -> None:
        if self.leader.alive:
            self._hang(self.leader, length_s)

    def _hang(self, process: Process, length_s: float) -> None:
        """Of several hangs at once the last one's end counts."""
        life, scheduler = process.life, self._scene.scheduler
        process.hung, process.hung_until = True, max(process.hung_until, scheduler.now + length_s)
        self.line_changed()

        def over() -> None:
            if process.life == life and process.hung and scheduler.now >= process.hung_until:
                self._scene.stir()
                process.hung = False
                self.line_changed()
                process.go_on()

        scheduler.at(scheduler.now + length_s, over)

    def guard_stops(self) -> None:
        self._guards += 1
        self.body.guard.stop()
        self.body.noticed()
        self._scene.scheduler.after(GUARD_AGAIN_S, self._if_same_guard(self.body.guard.begin))

    def guard_hangs(self, length_s: float) -> None:
        guard, scheduler = self.body.guard, self._scene.scheduler
        if not guard.running:
            return
        guard.hang()
        guard.hung_until = max(guard.hung_until, scheduler.now + length_s)

        def over() -> None:
            self._scene.stir()
            if scheduler.now >= guard.hung_until:
                guard.hung = False
                guard.go_on()

        scheduler.at(scheduler.now + length_s, self._if_same_guard(over))

    def _if_same_guard(self, action: Action) -> Action:
        guards = self._guards
        return lambda: action() if guards == self._guards else None

    def stall(self, length_s: float) -> None:
        if not self.body.powered:
            return
        scheduler = self._scene.scheduler
        self._stalled_until = max(self._stalled_until, scheduler.now + length_s)
        self._stand_still(True)

        def over() -> None:
            if scheduler.now >= self._stalled_until:
                self._scene.say(f"{self.name} goes on")
                self._stand_still(False)

        scheduler.at(scheduler.now + length_s, self._if_same_power(over))

    def _stand_still(self, still: bool) -> None:
        self.body.stalled = self.agent.stalled = self.leader.stalled = still
        self.body.guard.stalled = still
        self._scene.touch()
        if not still:
            self.body.guard.go_on()
        self.line_changed()
        if not still:
            self.agent.go_on()
            self.leader.go_on()
