"""A whole cluster on a virtual clock: the production leader and agent of every host, played through a story.

    simulate(cluster, initial=…, traits=…, events=…, until_s=…, seed=…) ──▶ Outcome

Rule 1: equal arguments give equal outcomes, in any process: no wall clock, no thread, one seed, no order of a set.
Rule 2: after every action that touched what an invariant speaks of, the invariants are checked.
Rule 3: idle time is left out (`fast_forward`, failover/simulate/idle.py). It changes nothing in the outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from failover import wire
from failover.model import Assignment, Cluster, Report, State, VserverIntent, Want, frozen_map
from failover.simulate import setup
from failover.simulate.body import Body
from failover.simulate.checks import Checks
from failover.simulate.clock import EPOCH
from failover.simulate.commands import obey
from failover.simulate.devices import Outlets
from failover.simulate.faults import Faults
from failover.simulate.host import Host
from failover.simulate.idle import Idle
from failover.simulate.questions import Ear
from failover.simulate.record import Record, decoded
from failover.simulate.scene import Scene
from failover.stories.events import COMMANDS, Event
from failover.stories.outcome import Outcome
from failover.stories.story import Initial, Traits


def simulate(
    cluster: Cluster,
    *,
    initial: Initial | None = None,
    traits: Mapping[str, Traits] | None = None,
    events: Sequence[Event] = (),
    until_s: float,
    seed: int = 0,
    fast_forward: bool = True,
) -> Outcome:
    """Play a story; `events` in the order of time. Raises only for what is a mistake in the simulator itself."""
    with _quiet():
        universe = Universe(cluster, initial or Initial(), traits or {}, seed, fast_forward=fast_forward)
        for event in events:
            universe.schedule(event)
        universe.run(until_s)
        return universe.outcome()


@contextmanager
def _quiet() -> Iterator[None]:
    """What the production code logs stands in the story already."""
    log = logging.getLogger("failover")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


class Universe:
    def __init__(
        self,
        cluster: Cluster,
        initial: Initial,
        traits: Mapping[str, Traits],
        seed: int,
        *,
        fast_forward: bool = True,
    ) -> None:
        self.scene = Scene(cluster, traits, seed)
        self.hosts: dict[str, Host] = {}
        self.bodies: dict[str, Body] = {}
        self.rejected = 0
        self.outlets = Outlets(self.scene, lambda host: self.hosts[host])
        self._idle = Idle(self.scene, self.hosts) if fast_forward else None
        self._expiry: float | None = None
        for name in cluster.hosts:
            self._add_host(name)
        self.record = Record(self.scene, self.bodies)
        self.checks = Checks(self.scene, self.hosts, self.record)
        self.faults = Faults(self.scene, self.hosts, self.outlets)
        self.scene.line_changed = self._line_changed
        self.scene.world.silent = self._await_expiry
        self.scene.scheduler.after_each = self._after_each
        setup.begin(self.scene, self.hosts, initial)
        self.record.begin()

    def _add_host(self, name: str) -> None:
        host = Host(name, self.scene, lambda other: self.hosts[other].body, self._ear, self.outlets)
        self.hosts[name], self.bodies[name] = host, host.body

    def _ear(self, name: str) -> Ear | None:
        host = self.hosts.get(name)
        return host.ear if host else None

    # --- time ---------------------------------------------------------------------------------------------------------

    def schedule(self, event: Event) -> None:
        self.scene.scheduler.at(event.at_s, partial(self.happen, event))

    def happen(self, event: Event) -> None:
        self.checks.troubled_at = self.scene.now
        if event.word not in COMMANDS:
            self.faults.happen(event)
        elif not obey(self.scene, event):
            self.rejected += 1
        elif event.cluster is not None:
            self._applied(event.cluster)

    def _applied(self, cluster: Cluster) -> None:
        for name in cluster.hosts:
            if name not in self.hosts:
                self._add_host(name)
                self.hosts[name].begin(at_once=False)
        for vserver in cluster.vservers.values():
            setup.build_tree(self.scene, self.hosts, vserver)

    def run(self, until_s: float) -> None:
        scheduler = self.scene.scheduler
        while scheduler.step(until_s):
            if self._idle is not None:
                self._idle.leave_out(until_s)

    def _after_each(self) -> None:
        if self.scene.dirty:
            self.scene.dirty = False
            self.record.look()
            self.checks.look()

    def _line_changed(self) -> None:
        for host in self.hosts.values():
            host.line_changed()

    def _await_expiry(self) -> None:
        """Sessions end when nobody is heard of for too long."""
        at = self.scene.world.next_expiry()
        if at is not None and (self._expiry is None or at < self._expiry):
            self._expiry = at
            self.scene.scheduler.at(at - EPOCH, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self.scene.world.expire()
        self._await_expiry()

    # --- the end ------------------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        self._after_each()
        self.checks.finish()
        self.record.finish()
        scene = self.scene
        return Outcome(
            final={name: self.final(name) for name in self._known()},
            fenced=frozenset(self.record.fenced),
            moves=tuple(self.record.moves),
            rejected=self.rejected,
            violations=tuple(scene.violations),
            story=tuple(f"{at:9.3f} s  {text}" for at, text in scene.story),
            outages=frozen_map({name: tuple(found) for name, found in self.record.outages.items()}),
            lost=frozen_map({name: tuple(found) for name, found in self.record.lost.items()}),
            started=frozenset(scene.started),
            stopped=frozenset(scene.stopped),
        )

    def _known(self) -> list[str]:
        """Those that are declared, and those that were removed."""
        removed = [
            name
            for path in self.scene.world.nodes
            if path.startswith("intent/vservers/") and (name := path.rpartition("/")[2])
            if (wish := decoded(VserverIntent, self.scene.world.nodes, path)) is not None and wish.removed
        ]
        return list(dict.fromkeys((*self.scene.cluster.vservers, *removed)))

    def final(self, name: str) -> str:
        nodes = self.scene.world.nodes
        word = decoded(Assignment, nodes, f"assignments/{name}")
        intent = decoded(VserverIntent, nodes, f"intent/vservers/{name}") or VserverIntent()
        if intent.removed:
            return "removed"
        vserver = self.scene.cluster.vservers[name]
        runs = [host for host, body in self.bodies.items() if body.runs(name)]
        want = intent.want or vserver.want
        if want is Want.IGNORED:
            return f"ignored@{[*runs, word.owner if word else vserver.primary][0]}"
        if word is None:
            return f"started@{runs[0]}" if runs else "waiting" if want is Want.STARTED else f"stopped@{vserver.primary}"
        owner = self.bodies.get(word.owner)
        if self._in_error(word):
            return f"error@{word.owner}"
        if self._held(name) and f"alive/{word.owner}" not in nodes:
            return "waiting"  # though it may run on there, when no other host may ever run it
        if runs:
            return f"started@{word.owner if word.owner in runs else runs[0]}"
        if want is Want.STARTED and self._held(name):
            return "waiting"
        if owner is not None and owner.life(name).running:
            return f"frozen@{word.owner}"
        return f"stopped@{word.owner}"

    def _in_error(self, word: Assignment) -> bool:
        report = decoded(Report, self.scene.world.nodes, f"reports/{word.owner}")
        seen = report.vservers.get(word.vserver) if report else None
        return seen is not None and seen.state is State.ERROR and seen.epoch == word.epoch

    def _held(self, name: str) -> bool:
        holds = decoded(wire.Holds, self.scene.world.nodes, "holds")
        held = holds is not None and any(hold.subject == name for hold in holds.holds)
        return held and not self.scene.world.down
