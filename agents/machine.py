"""The one door to this host: what it sees of itself, and how a step is performed.

What has failed is remembered in failures.py, what the health checks find in checks.py.

Rule 1: `begin` never waits. A step runs in a thread of its own; one step of a name at a time per vserver, and of those
        that change its life (start, stop, kill, demote) one in all.
Rule 2: what a step came to is kept in memory only. A new agent tries again: every step is idempotent.
Rule 3: a start that finds the lease over, or its word, is dropped before it does anything; if it is done by then, it
        leaves nothing, like one that fails.
Rule 4: what is promised to another host is neither started nor thawed; and while a step that may make it run is under
        way nothing is promised. One lock sees to both.
Rule 5: whose word a vserver runs under is written down with its first process. One that a human has started is by hand,
        unless the leader has given it to this host: then that is written down, and it is as if we had started it.
Rule 6: no round is the last one of what runs, or has been started since the round began.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from agents import capacity, lease, network
from agents.bonds import Bonds
from agents.checks import Checks, Subject
from agents.failures import Failures
from agents.isolation import vserver as isolation
from agents.isolation.record import Ended
from agents.lease import NOTHING, Asks, Granted
from agents.peers import UdpPeers
from agents.promise import Answer, Message, Question, under_way
from agents.replication import generation, received, ship
from agents.replication.record import Place
from agents.steps import (
    Bond,
    Demote,
    Failure,
    Freeze,
    Kill,
    Seen,
    SeenVserver,
    Ship,
    Shipped,
    Start,
    Step,
    Stop,
    Thaw,
    Tree,
    is_tried_again,
)
from agents.supervisor import replace_file
from failover import wire
from failover.boot import boot_time
from failover.errors import FailoverError, Refused
from failover.grants.protocol import Footing
from failover.model import Assignment, State, Told, Want, frozen_map
from failover.seal import Seal

log = logging.getLogger("failover.machine")

VSERVERS = Path("/vservers")
RUN = Path("/run/failover")
TOLD = RUN / "told.json"
WORDS = RUN / "words.json"  # all that was told, for the next agent
LEAVING = RUN / "leaving"  # exists while this host is being shut down; a boot clears it

REAPED_S = 0.05
FREEZE_AGAIN_S = 1.0  # the pause after a freeze that failed
PROBED_S = 1.0  # a word that names nothing is for so long
ANNOUNCE_AGAIN_S = (0.2, 1.0, 3.0)  # after the first announcement: a lost frame must not cost an outage

_ALONE = ("start", "stop", "kill", "demote")


class NotNow(Refused):
    """A step that could not be done for a reason that passes by itself: it is no failure, and is decided again."""


class RealMachine:
    """`changed` is called, from any thread, whenever a step has ended."""

    def __init__(self, host: str, changed: Callable[[], None], bonds: Bonds, peers: UdpPeers, seal: Seal) -> None:
        """`seal`: of the questions for grants."""
        self._host, self._changed, self._bonds, self._peers, self._seal = host, changed, bonds, peers, seal
        self._lock = threading.Lock()
        self._busy: dict[str, set[str]] = {}
        self._failed: dict[str, dict[str, tuple[int, str]]] = {}
        self._shipped: dict[str, dict[str, Shipped]] = {}
        self._starts: dict[str, int] = {}  # how many have begun
        self._failures, self._checks, self._capacity = Failures(), Checks(changed), capacity.measure()
        self._by_hand: dict[str, tuple[int | None, int]] = {}  # the first process, and the epoch when it was first seen
        self._marks: dict[str, dict[str, float]] = {}
        self._until = float("-inf")
        self._footing: Footing | None = None
        self.granted = NOTHING
        self._silent = False  # the guard, when it was asked last
        self._told: Told | None = None

    def now(self) -> float:
        return boot_time()

    # --- seeing -------------------------------------------------------------------------------------------------------

    def observe(self, names: Collection[str]) -> Seen:
        networked = frozenset(network.prepared())
        self._checks.forget_others(names)
        seen = {name: self._observe(name, name in networked) for name in names}
        return Seen(frozen_map(seen), leaving=LEAVING.exists(), capacity=self._capacity)

    def _observe(self, name: str, networked: bool) -> SeenVserver:
        """One vserver of which nothing can be seen must not keep the others waiting."""
        try:
            return self._look(name, networked)
        except (FailoverError, OSError) as error:
            return SeenVserver(State.ERROR, networked=networked, because=str(error))

    def _look(self, name: str, networked: bool) -> SeenVserver:
        with self._lock:
            busy = tuple(sorted(self._busy.get(name, ())))
            failed = dict(self._failed.get(name, {}))
            bond = self._bonds.of(name)
        status, word = self._status(name), self._word(name)
        shipped = self._shipped_by_now(name, runs=status.state is not State.STOPPED)
        mine = word if word is not None and word.owner == self._host and word.want is not Want.IGNORED else None
        changing = any(step in busy for step in _ALONE)
        if not changing:
            self._failures.look(name, status, mine.epoch if mine else None, self.now())
        self._check_health(name, status, None if changing else mine)
        by_hand = self._is_by_hand(name, status, word, mine)
        live = (VSERVERS / name).is_dir()
        replica = None if live else generation.replica(name, VSERVERS)
        return SeenVserver(
            status.state,
            Tree.LIVE if live else Tree.REPLICA if replica else Tree.NONE,
            status.since_at,
            status.because,
            networked,
            busy,
            replica,
            shipped=frozen_map(shipped),
            failed=frozen_map(failed),
            marks=frozen_map(self._how_far(name, status)),
            failures=self._failures.of(name),
            failing=self._checks.failing(name),
            by_hand=by_hand is not None,
            by_hand_epoch=by_hand or 0,
            bond=bond,
            received_at=received.at(Place(name, VSERVERS)) if replica else None,
        )

    def _status(self, name: str) -> isolation.Status:
        """How one has ended that nobody has stopped is written down by the spawner, a moment after it has."""
        status = isolation.status(name)
        if status.ended is Ended.UNKNOWN and self._failures.lives(name):
            time.sleep(REAPED_S)
            status = isolation.status(name)
        return status

    def _how_far(self, name: str, status: isolation.Status) -> dict[str, float]:
        """What runs by `status` has all its marks: they are written before it can be seen running."""
        with self._lock:
            marks = dict(self._marks.get(name, {}))
        begun = bool(marks) and status.state is State.RUNNING and status.since_at > 0
        return marks | {"started": status.since_at} if begun else marks

    def _word(self, name: str) -> Assignment | None:
        return self._told.assignments.get(name) if self._told else None

    def _is_by_hand(
        self, name: str, status: isolation.Status, word: Assignment | None, mine: Assignment | None
    ) -> int | None:
        """If it runs and nobody but a human has said so: the epoch of the word when it was first seen."""
        if status.pid is None or status.epoch:
            self._by_hand.pop(name, None)
            return None
        if mine is not None and self.now() < self._right():
            with suppress(OSError):  # again at the next look
                isolation.adopt(name, mine.epoch)
        if self._by_hand.get(name, (None, 0))[0] != status.pid:
            self._by_hand[name] = status.pid, word.epoch if word else 0
        return self._by_hand[name][1]

    def _check_health(self, name: str, status: isolation.Status, mine: Assignment | None) -> None:
        """Have it checked while it is to run here and does; a new life, or one that was frozen, is checked anew."""
        vserver = self._told.cluster.vservers.get(name) if self._told else None
        if vserver is None or mine is None or mine.want is not Want.STARTED or status.state is not State.RUNNING:
            self._checks.forget(name)
            return
        subject = Subject(name, (status.pid, status.since_at), vserver.checks)
        if vserver.addresses:
            subject = replace(subject, address=vserver.addresses[0])
        if status.pid is not None:
            subject = replace(subject, netns=Path(f"/proc/{status.pid}/ns/net"))
        self._checks.watch(subject)

    # --- doing --------------------------------------------------------------------------------------------------------

    def begin(self, step: Step) -> None:
        name = _vserver_of(step)
        with self._lock:
            busy = self._busy.setdefault(name, set())
            if step.name in busy or (step.name in _ALONE and busy.intersection(_ALONE)):
                return
            if isinstance(step, Start | Thaw) and self._bonds.binds(name):
                return
            busy.add(step.name)
            self._starts[name] = self._starts.get(name, 0) + isinstance(step, Start)
        if step.name in _ALONE:
            self._failures.forget_life(name)
        if isinstance(step, Stop) and step.because:
            log.error("%s: is stopped, to be started again: %s", name, step.because)
            self._failures.note(name, Failure(step.epoch, self.now(), step.because))
        threading.Thread(target=self._run, args=(name, step), name=f"{name} {step.name}", daemon=True).start()

    def _run(self, name: str, step: Step) -> None:
        failure, began = "", self.now()
        try:
            self._perform(name, step)
            if not isinstance(step, Ship) or step.final:
                log.info("%s: %s took %.2f s", name, step.name, self.now() - began)
        except NotNow as later:
            log.info("%s: no %s now: %s", name, step.name, later)
        except FailoverError as error:
            failure = str(error)
        except Exception as error:
            log.exception("%s: %s", name, step.name)
            failure = f"{type(error).__name__}: {error}"
        if failure and isinstance(step, Start | Stop | Kill | Demote) and is_tried_again(step):
            self._failures.note(name, Failure(step.epoch, self.now(), failure))
        with self._lock:
            self._busy[name].discard(step.name)
            failed = self._failed.setdefault(name, {})
            failed.pop(step.name, None)
            if failure:
                failed[step.name] = (getattr(step, "epoch", 0), failure)
        if failure:
            log.error("%s: %s failed: %s", name, step.name, failure)
        self._changed()

    def _perform(self, name: str, step: Step) -> None:
        match step:
            case Start():
                self._start_or_leave_nothing(step)
            case Stop():
                isolation.stop(name, timeout_s=step.timeout_s)
                network.remove(name)
            case Kill():
                if name in network.prepared():
                    network.down(name)
                isolation.kill(name)
                network.remove(name)
            case Freeze():
                _freeze_or_pause(name)
            case Thaw():
                self._thaw(name)
            case Ship():
                self._ship(step)
            case Demote():
                generation.demote(name, step.epoch, VSERVERS, whole=step.generation)

    def _start_or_leave_nothing(self, step: Start) -> None:
        self._check_word(step)
        try:
            self._start(step)
        except Exception as error:
            isolation.kill(step.vserver.name)
            network.remove(step.vserver.name)
            if not isinstance(error, NotNow):
                self._check_word(step)  # what was too late has not failed
            raise

    def _start(self, step: Start) -> None:
        vserver, told = step.vserver, self._told
        live, marks = VSERVERS / vserver.name, {"begun": time.time()}
        if not live.is_dir():
            generation.promote(vserver.name, step.epoch, VSERVERS, anyway=step.anyway)
            marks["promoted"] = time.time()
        if told is None:
            raise NotNow("nothing was told yet")
        where = told.cluster.hosts[self._host].network
        netns = network.prepare(vserver.name, where, vserver.addresses, vserver.gateway)
        self._check_word(step)
        network.up(vserver.name)
        marks["address"] = time.time()
        with self._lock:
            self._marks[vserver.name] = marks
        isolation.start(
            isolation.Settings(name=vserver.name, tree=live, netns=netns, until=self._right(), epoch=step.epoch)
        )
        self._check_word(step)
        self._failures.started(vserver.name, self.now())
        self._shipped_by_now(vserver.name, runs=True)
        self._announce_again(vserver.name)

    def _check_word(self, step: Start) -> None:
        """A start may have waited long: the word that it obeys must be the present one, and the lease must run."""
        word = self._word(step.vserver.name)
        if word is None or (word.owner, word.epoch) != (step.host, step.epoch):
            raise NotNow(f"epoch {step.epoch} is over")
        if self.now() >= self._right():
            raise NotNow("the lease is over")

    def _thaw(self, name: str) -> None:
        """The lease is looked at on both sides: this thread may have been held up."""
        if self.now() >= self._right() or isolation.status(name).state is State.STOPPED:
            return
        isolation.thaw(name)
        if self.now() >= self._right():
            isolation.freeze(name)
            return
        network.announce(name)

    def _announce_again(self, name: str) -> None:
        for delay in ANNOUNCE_AGAIN_S:
            timer = threading.Timer(delay, _announce_quietly, (name,))
            timer.daemon = True
            timer.start()

    def _ship(self, step: Ship) -> None:
        name, told, began = step.vserver.name, self._told, self.now()
        if told is None:
            raise NotNow("nothing was told yet")
        with self._lock:
            before = self._shipped.get(name, {}).get(step.target) or Shipped(0, step.epoch, began, rounds=0)
            starts, starting = self._starts.get(name, 0), "start" in self._busy[name]
        try:
            if step.final and (starting or isolation.status(name).state is not State.STOPPED):
                raise Refused(f"{name} runs: this cannot be the last round")
            done = ship.ship(step.vserver, VSERVERS / name, told.cluster.hosts[step.target], step.epoch, step.final)
        except Exception as error:
            word = self._word(name)
            if word is not None and word.epoch != step.epoch:
                raise NotNow(f"epoch {step.epoch} is over") from error
            self._note(name, step.target, replace(before, because=str(error), tried_at=self.now()), starts)
            raise
        rounds = before.rounds + 1 if before.epoch == step.epoch else 1
        done = replace(done, took_s=self.now() - began, rounds=rounds, tried_at=began)
        self._note(name, step.target, done, starts)

    def _note(self, name: str, target: str, shipped: Shipped, starts: int) -> None:
        with self._lock:
            final = shipped.final and starts == self._starts.get(name, 0)
            self._shipped.setdefault(name, {})[target] = replace(shipped, final=final)

    def _shipped_by_now(self, name: str, *, runs: bool) -> dict[str, Shipped]:
        with self._lock:
            shipped = self._shipped.setdefault(name, {})
            if runs:
                shipped.update({host: replace(last, final=False) for host, last in shipped.items()})
            return dict(shipped)

    # --- the guard and the receiving end of a sync --------------------------------------------------------------------

    def hold(
        self,
        until: float,
        told: Told,
        promised: Mapping[str, float] = MappingProxyType({}),
        footing: Footing | None = None,
    ) -> bool:
        self._told = told
        owned = [name for name, word in told.assignments.items() if word.owner == told.host]
        released = [name for name in owned if not _is_ours(told, name)]
        held = {name: network.mac_of(name) for name in owned if name not in released}
        later = {name: end for name, end in promised.items() if name in held and end > until}
        where, asks, taken = told.cluster.hosts[told.host].network, self._asks(told, footing), list[bool]()
        wait_s = self._answer_s(footing) if self._silent else lease.ANSWER_S
        if self.now() < until or asks is not None:
            by_lease = {name: mac for name, mac in held.items() if name not in later}
            held_by_lease = lease.hold(until, by_lease, where, released=released, asks=asks, timeout_s=wait_s)
            taken.append(self._heard_guard(held_by_lease))
            self._until, self._footing = (until, footing) if taken[0] else (self._until, self._footing)
        for end in sorted(set(later.values())):
            by_promise = {name: held[name] for name in later if later[name] == end}
            taken.append(self._heard_guard(lease.hold(end, by_promise, where, extends=True)))
        if not taken:
            self.live()
        return bool(taken) and all(taken)

    def _asks(self, told: Told, footing: Footing | None) -> Asks | None:
        leader = told.cluster.hosts.get(told.leader or "")
        if footing is None or leader is None:
            return None
        return Asks(told.host, leader.address, footing, self._seal.key.hex(), told.cluster.timing)

    def _heard_guard(self, granted: Granted | None) -> bool:
        self.granted, self._silent = granted or self.granted, granted is None
        return granted is not None

    def _right(self) -> float:
        """Until when something may run, by what the guard has taken and by what it was granted since."""
        if self._footing is None:
            return self._until
        self.live()
        return max(self._until, self.granted.until if self.granted.footing == self._footing else self._until)

    def live(self) -> None:
        """A guard that does not answer, for it has ended or hangs, asks nobody any more."""
        said = lease.alive(timeout_s=self._answer_s(self._footing))
        self._silent = said is None
        self.granted = said or replace(self.granted, troubled=True, because=lease.NO_ANSWER)

    def _answer_s(self, footing: Footing | None) -> float:
        """One that is silent is not waited for while the rest of a grant goes by."""
        if footing is None or self._told is None:
            return lease.ANSWER_S
        return min(lease.ANSWER_S, self._told.cluster.timing.grant_s / 8)

    def takes_words(self, told: Told) -> bool:
        return self._heard_guard(lease.hold(self.now() + PROBED_S, {}, told.cluster.hosts[told.host].network))

    def publish(self, told: Told) -> None:
        words = {name: {"owner": word.owner, "epoch": word.epoch} for name, word in told.assignments.items()}
        TOLD.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(TOLD, json.dumps({"host": told.host, "assignments": words}))
        replace_file(WORDS, wire.encode(told).decode())
        self._peers.know(told.cluster)

    def recall(self) -> Told | None:
        try:
            told = wire.decode(Told, WORDS.read_bytes())
        except FileNotFoundError:
            return None
        except (FailoverError, OSError) as error:
            log.warning("what was told before is not known: %s", error)
            return None
        if told.host != self._host or told.host not in told.cluster.hosts:
            return None
        self._told = told
        self._peers.know(told.cluster)
        return told

    # --- the other hosts ----------------------------------------------------------------------------------------------

    def ask(self, host: str, question: Question) -> None:
        self._peers.ask(host, question)

    def answer(self, host: str, answer: Answer) -> None:
        self._peers.answer(host, answer)

    def heard(self) -> tuple[tuple[str, Message], ...]:
        return self._peers.heard()

    def promise(self, name: str, bond: Bond) -> bool:
        with self._lock:
            return not under_way(self._busy.get(name, ())) and self._bonds.keep(name, bond)


def recover(names: Collection[str]) -> None:
    """Finish or drop, once at the agent's start, what a crash has left half done."""
    for name in names:
        try:
            generation.recover(name, VSERVERS)
        except (FailoverError, OSError) as error:
            log.error("%s: %s", name, error)


def _is_ours(told: Told, name: str) -> bool:
    """Whether the manager has anything to do with it: what is ignored or not declared any more is left alone."""
    return name in told.cluster.vservers and told.assignments[name].want is not Want.IGNORED


def _announce_quietly(name: str) -> None:
    """It may be gone again by now."""
    try:
        if isolation.status(name).state is State.RUNNING:
            network.announce(name)
    except (FailoverError, OSError) as error:
        log.info("%s: not announced again: %s", name, error)


def _freeze_or_pause(name: str) -> None:
    """It is wanted at each turn, and the end of a step wakes the agent: what fails at once must not spin."""
    try:
        with suppress(Refused):  # it does not run
            isolation.freeze(name)
    except Exception:
        time.sleep(FREEZE_AGAIN_S)
        raise


def _vserver_of(step: Step) -> str:
    return step.vserver if isinstance(step.vserver, str) else step.vserver.name
