"""What each event of a story does to the simulated cluster: one function per word of failover/stories/events.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from agents.steps import Tree
from failover.simulate.devices import MOODS, Outlets
from failover.simulate.host import Host
from failover.simulate.scene import Scene, Written
from failover.stories.events import Event

STORE_AGAIN_S = 4.0  # a restart of the ensemble takes so long
SHUTDOWN_POLL_S = 0.5
SHUTDOWN_SETTLED_S = 2.0  # nothing has run and no step was under way for so long: the power goes
SHUTDOWN_LONGEST_S = 180.0
REBOOT_S = 10.0  # between power off and power on


OFTEN_S = 900.0  # so long a failing check is looked at each second: by then all is decided


class Faults:
    def __init__(self, scene: Scene, hosts: Mapping[str, Host], outlets: Outlets) -> None:
        self._scene, self._hosts, self._outlets = scene, hosts, outlets
        self.play: Mapping[str, Callable[[Event], None]] = {
            "power-off": lambda event: self._host(event).power_off(),
            "power-on": lambda event: self._host(event).power_on(),
            "shutdown": lambda event: self._shut_down(event, reboot=False),
            "reboot": lambda event: self._shut_down(event, reboot=True),
            "isolate": lambda event: scene.links.isolate(event.host),
            "join": lambda event: scene.links.join(event.host),
            "cut": lambda event: scene.links.cut(event.links),
            "mend": lambda event: scene.links.mend(event.links),
            "store-down": lambda event: self._store(down=True),
            "store-up": lambda event: self._store(down=False),
            "store-restart": lambda event: self._restart_store(),
            "agent-stop": lambda event: self._host(event).agent_dies(),
            "agent-start": lambda event: self._host(event).agent_starts(),
            "agent-restart": lambda event: self._host(event).agent_restarts(),
            "agent-hang": lambda event: self._host(event).agent_hangs(event.length_s),
            "guard-stop": lambda event: self._host(event).guard_stops(),
            "guard-hang": lambda event: self._host(event).guard_hangs(event.length_s),
            "leader-stop": lambda event: self._to_the_leader(lambda host: host.leader_dies(again=True)),
            "leader-hang": lambda event: self._to_the_leader(lambda host: host.leader_hangs(event.length_s)),
            "stall": lambda event: self._host(event).stall(event.length_s),
            "clock": lambda event: self._host(event).clock.jump(event.length_s),
            "drift": lambda event: self._host(event).drift(event.drift),
            "disk-full": lambda event: self._disk(event, full=True),
            "disk-free": lambda event: self._disk(event),
            "disk-error": lambda event: self._disk(event, error=True),
            "crash": lambda event: self._end(event.vserver, "its init died"),
            "check-fails": self._check_fails,
            "write": self._write,
            "by-hand": self._by_hand,
            **dict.fromkeys(MOODS, self._fence),
            "fence-takes": self._fence_takes,
            "stop-by-hand": lambda event: self._end(event.vserver, "it was stopped by hand"),
        }

    def happen(self, event: Event) -> None:
        self._scene.say(f"event: {event.text}")
        self._scene.touch()
        self.play[event.word](event)

    def _host(self, event: Event) -> Host:
        return self._hosts[event.host]

    def _fence(self, event: Event) -> None:
        self._outlets.moods[event.host] = MOODS[event.word]

    def _fence_takes(self, event: Event) -> None:
        self._outlets.takes_s[event.host] = event.length_s

    # --- shutting down ------------------------------------------------------------------------------------------------

    def _shut_down(self, event: Event, *, reboot: bool) -> None:
        host = self._host(event)
        if host.body.powered and not host.body.leaving:
            host.body.leaving = True
            host.agent.wake()
            self._await_rest(host, reboot, self._scene.now, self._scene.now, host.power)

    def _await_rest(self, host: Host, reboot: bool, began: float, busy_at: float, power: int) -> None:
        if host.power != power:
            return
        now, machine = self._scene.now, host.machine
        if any(life.running for life in host.body.lives.values()) or (machine is not None and machine.busy):
            busy_at = now
        if now < began + SHUTDOWN_LONGEST_S and now < busy_at + SHUTDOWN_SETTLED_S:
            again = partial(self._await_rest, host, reboot, began, busy_at, power)
            self._scene.scheduler.after(SHUTDOWN_POLL_S, again)
            return
        host.power_off()
        if reboot:
            self._scene.scheduler.after(REBOOT_S, host.power_on)

    # --- the store and the leader -------------------------------------------------------------------------------------

    def _store(self, *, down: bool) -> None:
        world = self._scene.world
        if world.down != down:
            if down:
                world.fall()
            else:
                world.rise()
            self._scene.line_changed()

    def _restart_store(self) -> None:
        self._store(down=True)
        self._scene.scheduler.after(STORE_AGAIN_S, partial(self._store, down=False))

    def _to_the_leader(self, action: Callable[[Host], None]) -> None:
        holder = self._scene.world.nodes.get("leader/holder")
        for host in self._hosts.values():
            store = host.leader_store
            if holder is not None and store is not None and store.session == holder.session and host.leader.alive:
                action(host)
                return
        self._scene.say("nobody leads now")

    # --- disks and vservers -------------------------------------------------------------------------------------------

    def _disk(self, event: Event, *, full: bool = False, error: bool = False) -> None:
        body = self._host(event).body
        body.disk_full, body.disk_error = full, error

    def _end(self, vserver: str, because: str) -> None:
        if not any(host.body.crash(vserver, because) for host in self._hosts.values() if host.body.powered):
            self._scene.say(f"{vserver} runs nowhere")

    def _check_fails(self, event: Event) -> None:
        now = self._scene.now
        self._scene.check_fails[event.vserver] = now, now + event.length_s
        self._scene.ailing[event.vserver] = "its health check failed"
        self._scene.scheduler.after(event.length_s, self._scene.stir)
        self._check_again(event.vserver)

    def _check_again(self, vserver: str) -> None:
        """The checks go on while it fails."""
        began_at, ends_at = self._scene.check_fails[vserver]
        now = self._scene.now
        if now <= ends_at:
            self._wake_all()
            pause_s = 1.0 if now < began_at + OFTEN_S else 60.0
            self._scene.scheduler.after(pause_s, partial(self._check_again, vserver))

    def _wake_all(self) -> None:
        for host in self._hosts.values():
            if host.agent.alive:
                host.agent.wake()

    def _write(self, event: Event) -> None:
        running = [host for host in self._hosts.values() if host.body.runs(event.vserver)]
        if not running:
            self._scene.say(f"{event.vserver} runs nowhere, so it writes nothing")
        for host in running:
            if event.size_bytes <= host.body.free_bytes() and not host.body.disk_error:
                self._scene.written.append(Written(event.vserver, event.size_bytes, self._scene.now))
                host.body.write(event.vserver, len(self._scene.written) - 1)

    def _brought(self, name: str) -> frozenset[int]:
        """What a human who starts it on a host that never had a copy has brought there."""
        copies = [host.body.copy(name) for host in self._hosts.values()]
        return next(
            (copy.content for kind in (Tree.LIVE, Tree.REPLICA) for copy in copies if copy.kind is kind), frozenset()
        )

    def _by_hand(self, event: Event) -> None:
        body, name = self._host(event).body, event.vserver
        copy = body.copy(name)
        if copy.kind is Tree.NONE:
            copy.content = self._brought(name)
        if not body.powered or body.life(name).running or (copy.kind is Tree.NONE and not copy.content):
            self._scene.say(f"{name} cannot be started on {event.host}: there is nothing to start, or it runs")
            return
        copy.kind = Tree.LIVE
        body.run(name, 0, by_hand=True)
        body.noticed()
