"""The machine of a simulated host, as its agent knows it: what it sees, and how a step is performed.

Rule 1: `begin` never waits. A step takes its time; one step of a name at a time per vserver, and of those that change
        its life (start, stop, kill, demote) one in all. What is shipped is sender.py's.
Rule 2: what a step came to is kept in this object only, and goes with the agent's process.
Rule 3: a start that finds another word or the lease over is dropped before it does anything; if it is done by then, it
        leaves nothing, like one that fails. What runs is left as it is.
These are the promises of agents/machine.py, which performs the same steps on a real host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Protocol

from agents.lease import NO_ANSWER, Asks, Granted
from agents.promise import Answer, Message, Question, lasting, under_way
from agents.steps import (
    FAILURES,
    Bond,
    Demote,
    Failure,
    Freeze,
    Kill,
    Seen,
    SeenVserver,
    Ship,
    Start,
    Step,
    Stop,
    Thaw,
    Tree,
    is_tried_again,
)
from failover.errors import FailoverError, Refused, Unreachable
from failover.grants.protocol import Footing
from failover.model import Assignment, Report, State, Told, Want, frozen_map
from failover.simulate.body import Body, Life
from failover.simulate.clock import EPOCH
from failover.simulate.letters import Letterbox
from failover.simulate.record import decoded
from failover.simulate.sender import NotNow, Phase, Sender, Wait

FREEZE_FAILS_S = 3.0  # until a freeze has failed, and the pause after it is over
CHECK_S = 15.0  # a health check fails for so long before it counts, where none is declared
_ALONE = ("start", "stop", "kill", "demote")


class Process(Protocol):
    """The agent's process: what is begun in it does not happen when it is dead, and later when it hangs."""

    def after(self, delay_s: float, action: Callable[[], None], *, soft: bool = False) -> object: ...

    def wake(self) -> None: ...


class SimulatedMachine:
    """`peer` gives another host's body."""

    def __init__(self, body: Body, peer: Callable[[str], Body], process: Process, random: Random) -> None:
        self._body, self._peer, self._process, self._random = body, peer, process, random
        self._host, self._scene = body.host, body.scene
        self._busy: dict[str, dict[str, bool]] = {}  # vserver -> steps under way, and whether each is regular
        self._failed: dict[str, dict[str, tuple[int, str]]] = {}
        self._failures: dict[str, list[Failure]] = {}
        self._by_hand: dict[str, tuple[int, int]] = {}  # the life of a copy, and the word's epoch at its first sight
        self._marks: dict[str, dict[str, float]] = {}
        self._starts: dict[str, dict[str, float]] = {}  # under way, and no more to be dropped -> their marks
        self._until = float("-inf")
        self._footing: Footing | None = None
        self._told: Told | None = None
        self._made_at = self._scene.now
        self.sender = Sender(body, peer, random, self._word, lambda name: "start" in self._busy[name])
        body.noticed, body.ended = process.wake, self._ended
        body.bind_if_unknown(self._scene.timing.promise_s)
        self.letterbox = Letterbox(
            body.host,
            body.scene,
            lambda host: peer(host).letterbox,
            process.wake,
            body.scene.random(f"{body.host} says"),
        )
        body.letterbox = self.letterbox

    def now(self) -> float:
        return self._body.clock.now()

    @property
    def busy(self) -> bool:
        """Something else than a regular round is under way."""
        return any(not regular for steps in self._busy.values() for regular in steps.values())

    @property
    def told(self) -> Told | None:
        return self._told

    # --- seeing -------------------------------------------------------------------------------------------------------

    def observe(self, names: Collection[str]) -> Seen:
        capacity = self._scene.cluster.hosts[self._host].capacity if self._host in self._scene.cluster.hosts else None
        seen = frozen_map({name: self._observe(name) for name in names})
        return Seen(seen, leaving=self._body.leaving, **({"capacity": capacity} if capacity else {}))

    def _observe(self, name: str) -> SeenVserver:
        life, copy = self._body.life(name), self._body.copy(name)
        by_hand = self._is_by_hand(name, life)
        if life.running:
            self.sender.runs_again(name)
        return SeenVserver(
            life.state,
            copy.kind if copy.complete else Tree.NONE,
            life.since_at,
            life.because,
            life.prepared,
            tuple(sorted(self._busy.get(name, ()))),
            copy.replica(),
            shipped=frozen_map(self.sender.shipped.get(name, {})),
            failed=frozen_map(self._failed.get(name, {})),
            marks=frozen_map(self._marks.get(name, {})),
            failures=tuple(self._failures.get(name, ())),
            failing=self._failing(name, life),
            by_hand=by_hand,
            by_hand_epoch=self._by_hand.get(name, (0, 0))[1],
            bond=self._body.bond(name),
            received_at=copy.received_at if copy.kind is Tree.REPLICA else None,
        )

    def _is_by_hand(self, name: str, life: Life) -> bool:
        """Once it is ours it is adopted; else we remember under which word it was first seen."""
        word, mine = self._word(name), self._mine(name)
        if life.by_hand and life.running and mine is not None and self.now() < self._right():
            life.by_hand, life.epoch = False, mine.epoch
        if not (life.by_hand and life.running):
            self._by_hand.pop(name, None)
            return False
        if self._by_hand.get(name, (0, 0))[0] != life.number:
            self._by_hand[name] = life.number, word.epoch if word else 0
        return True

    def _mine(self, name: str) -> Assignment | None:
        """The word under which this host owns it, and that is not to leave it alone."""
        word = self._word(name)
        return word if word is not None and word.owner == self._host and word.want is not Want.IGNORED else None

    def _is_changing(self, name: str) -> bool:
        return any(step in self._busy.get(name, {}) for step in _ALONE)

    def _failing(self, name: str, life: Life) -> str:
        since, mine = self._body.check_fails_since(name), self._mine(name)
        if since is None or life.state is not State.RUNNING or self._is_changing(name):
            return ""
        if mine is None or mine.want is not Want.STARTED:
            return ""
        declared = self._told.cluster.vservers.get(name) if self._told else None
        checks = declared.checks if declared else ()
        patience_s = min((check.every_s * check.fails for check in checks), default=CHECK_S)
        running_s = self._body.clock.now() - life.since
        return "its health check fails" if min(self._scene.now - since, running_s) >= patience_s else ""

    def _ended(self, name: str, because: str) -> None:
        mine = self._mine(name)
        if mine is not None and not self._is_changing(name):
            self._fail(name, mine.epoch, because)

    def _fail(self, name: str, epoch: int, because: str) -> None:
        failures = self._failures.setdefault(name, [])
        failures.append(Failure(epoch, self.now(), because))
        del failures[:-FAILURES]
        self._scene.stir()

    # --- doing --------------------------------------------------------------------------------------------------------

    def begin(self, step: Step) -> None:
        name = step.vserver if isinstance(step.vserver, str) else step.vserver.name
        busy = self._busy.setdefault(name, {})
        if step.name in busy or (step.name in _ALONE and self._is_changing(name)):
            return
        if isinstance(step, Start | Thaw) and self._body.binds(name):
            return
        self._judge(name, step)
        regular = isinstance(step, Ship) and not step.final and self._is_regular(name)
        busy[step.name] = regular
        if isinstance(step, Start):
            self._scene.started[name, self._host] = None
        elif isinstance(step, Kill) and self._body.life(name).running:
            self._scene.stopped[name, self._host] = None
        elif isinstance(step, Stop):
            self._scene.stopped[name, self._host] = None
            if step.because:
                self._fail(name, step.epoch, step.because)
        if not regular and not (isinstance(step, Freeze) and step.name in self._failed.get(name, {})):
            self._scene.say(f"{self._host}: {step.name} {name}" + (" for the last time" if _is_final(step) else ""))
        self._next(name, step, self._phases(step), regular)

    def _is_regular(self, name: str) -> bool:
        word = self._word(name)
        return word is not None and word.target is None

    def _judge(self, name: str, step: Step) -> None:
        """Invariant 5, of what this agent was told."""
        word = self._word(name)
        if word is not None and word.want is Want.IGNORED:
            self._scene.breach(5, f"{self._host}: {step.name} {name}, which is ignored")
        if isinstance(step, Start) and word is not None and word.want is not Want.STARTED:
            self._scene.breach(5, f"{self._host}: {name} is started, which is wanted {word.want}")
        if isinstance(step, Start) and self._said_in_error(name, step.epoch):
            self._scene.breach(
                5, f"{self._host}: {name} is started under epoch {step.epoch}, under which it is in error"
            )
        if isinstance(step, Start | Stop) and self._told is not None and self._told.disarmed:
            self._scene.breach(5, f"{self._host}: {step.name} {name} while the cluster is disarmed")

    def _said_in_error(self, name: str, epoch: int) -> bool:
        """Whether this very agent has said so: the next one tries again."""
        path = f"reports/{self._host}"
        report, node = decoded(Report, self._scene.world.nodes, path), self._scene.world.nodes.get(path)
        said = report.vservers.get(name) if report else None
        if said is None or node is None or node.at < EPOCH + self._made_at:
            return False
        return said.state is State.ERROR and said.epoch == epoch

    def _next(self, name: str, step: Step, phases: list[Phase], regular: bool) -> None:
        if not phases:
            self._over(name, step, "", regular)
            return
        (delay_s, action), *rest = phases
        self._process.after(delay_s, partial(self._do, name, step, action, rest, regular), soft=regular)

    def _do(self, name: str, step: Step, action: Callable[[], None], rest: list[Phase], regular: bool) -> None:
        try:
            action()
        except Wait as wait:
            self._next(name, step, [(wait.delay_s, wait.action), *rest], regular)
        except NotNow:
            self._undo(step)
            self._over(name, step, "", regular)
        except FailoverError as error:
            self._undo(step)
            late = isinstance(step, Start) and not self._is_present(step)
            self._over(name, step, "" if late else str(error), regular)
        else:
            self._next(name, step, rest, regular)

    def _undo(self, step: Step) -> None:
        """A start that fails leaves nothing."""
        name = step.vserver if isinstance(step.vserver, str) else step.vserver.name
        if isinstance(step, Start) and name in self._starts:
            self._body.end(name, "its start failed")
            self._body.disconnect(name)

    def _over(self, name: str, step: Step, failure: str, regular: bool) -> None:
        self._busy[name].pop(step.name, None)
        if isinstance(step, Ship):
            self.sender.over(step)
        elif isinstance(step, Start):
            self._starts.pop(name, None)
        failed = self._failed.setdefault(name, {})
        known = failed.pop(step.name, None)
        if failure:
            epoch = int(getattr(step, "epoch", 0))
            failed[step.name] = (epoch, failure)
            if is_tried_again(step):
                self._fail(name, epoch, failure)
            if not (regular or isinstance(step, Freeze)) or known != (epoch, failure):
                self._scene.say(f"{self._host}: {step.name} {name} failed: {failure}")
        self._process.wake()

    def _phases(self, step: Step) -> list[Phase]:
        draw = self._random.uniform
        match step:
            case Start():
                whole = draw(0.05, 2.0)
                return [
                    (0.0, partial(self._check_word, step)),
                    (0.7 * whole, partial(self._prepare, step, {"begun": self._body.clock.wall()})),
                    (0.3 * whole, partial(self._start, step)),
                ]
            case Stop():
                hangs = self._scene.traits_of(step.vserver.name).hangs
                frozen = self._body.life(step.vserver.name).frozen
                took = 0.1 if frozen else step.timeout_s + 0.1 if hangs else draw(0.3, 3.0)
                return [(took, partial(self._stop, step.vserver.name))]
            case Kill():
                self._body.life(step.vserver).address = False
                return [(0.1, partial(self._stop, step.vserver))]
            case Freeze():
                return [(0.001, partial(self._freeze, step.vserver))]
            case Thaw():
                return [(0.001, partial(self._thaw, step.vserver))]
            case Demote():
                return [(0.05, partial(self._body.demote, step.vserver, step.epoch, step.generation))]
            case Ship():
                return self.sender.phases(step)

    # --- starting and stopping ----------------------------------------------------------------------------------------

    def _prepare(self, step: Start, marks: dict[str, float]) -> None:
        name = step.vserver.name
        self._starts[name] = marks
        if self._body.disk_full or self._body.disk_error:
            self._scene.ailing[name] = f"the disk of {self._host} keeps it from starting"
        self._body.may_be_read()
        if self._body.copy(name).kind is not Tree.LIVE:
            self._body.promote(name, step.epoch, anyway=step.anyway)
            marks["promoted"] = self._body.clock.wall()
        self._body.life(name).prepared = True
        self._check_word(step)

    def _start(self, step: Start) -> None:
        name = step.vserver.name
        self._check_word(step)
        marks = self._starts[name]
        marks["address"] = self._body.clock.wall()
        if not self._body.life(name).running:
            self._run(step)
        self._marks[name] = marks | {"started": self._body.clock.wall()}
        self.sender.runs_again(name)

    def _run(self, step: Start) -> None:
        name, traits = step.vserver.name, self._scene.traits_of(step.vserver.name)
        here = not traits.fails_start_on or self._host in traits.fails_start_on
        if here and self._scene.fails(name, "start", traits.fails_start):
            raise Refused(f"the init of {name} does not start")
        copy = self._body.copy(name)
        if copy.kind is not Tree.LIVE or not copy.whole:
            self._scene.breach(8, f"{name} is started on {self._host} from a tree that is not complete")
        told = self._body.told.assignments.get(name) if self._body.told else None
        if told is not None and told.epoch > step.epoch:
            self._scene.breach(4, f"{self._host} starts {name} under epoch {step.epoch}; it was told {told.epoch}")
        self._body.run(name, step.epoch)

    def _check_word(self, step: Start) -> None:
        """A start may have waited long: the word that it obeys must be the present one, and the lease must run."""
        if not self._is_present(step):
            raise NotNow(f"epoch {step.epoch} is over, or the lease")

    def _is_present(self, step: Start) -> bool:
        word = self._word(step.vserver.name)
        return word is not None and (word.owner, word.epoch) == (step.host, step.epoch) and self.now() < self._right()

    def _word(self, name: str) -> Assignment | None:
        return self._told.assignments.get(name) if self._told else None

    def _stop(self, name: str) -> None:
        if self._body.life(name).running and self._scene.traits_of(name).fails_stop:
            self._scene.ailing[name] = "it cannot be stopped"
            raise FailoverError(f"{name} cannot be stopped: a process hangs in the kernel")
        self._body.end(name)
        self._body.disconnect(name)

    def _freeze(self, name: str) -> None:
        if self._body.life(name).running and not self._body.freeze(name):
            raise Wait(partial(self._not_frozen, name), FREEZE_FAILS_S)

    def _not_frozen(self, name: str) -> None:
        if self._body.life(name).running:
            raise Unreachable(f"{name} could not be frozen", hint="a process hangs in the kernel")

    def _thaw(self, name: str) -> None:
        if self.now() < self._right():
            self._body.thaw(name)

    # --- the guard and the receiving end of a sync --------------------------------------------------------------------

    @property
    def granted(self) -> Granted:
        guard = self._body.guard
        return guard.granted() if guard.works else replace(guard.granted(), troubled=True, because=NO_ANSWER)

    def hold(self, until: float, told: Told, promised: Mapping[str, float], footing: Footing | None = None) -> bool:
        self._told = told
        owned = [name for name, word in told.assignments.items() if word.owner == told.host]
        released = [name for name in owned if not _is_ours(told, name)]
        later = {name: end for name, end in promised.items() if name in owned and end > until}
        guard, taken, was_over = self._body.guard, [], self.now() >= self._until
        asks = self._asks(told, footing)
        if self.now() < until or asks is not None:
            by_lease = [name for name in owned if name not in released and name not in later]
            taken.append(guard.obey(until, by_lease, released, asks))
            self._until, self._footing = (until, footing) if taken[0] else (self._until, self._footing)
        taken += [guard.extend(end, [name]) for name, end in sorted(later.items())]
        if was_over or released or later:
            self._scene.touch()  # the fence opens
        return bool(taken) and all(taken)

    def _asks(self, told: Told, footing: Footing | None) -> Asks | None:
        if footing is None or told.leader is None:
            return None
        return Asks(told.host, told.leader, footing, "", self._scene.timing)

    def _right(self) -> float:
        """Until when something may run, by what the guard has taken and by what it was granted since."""
        granted = self.granted
        by_grants = granted.until if self._footing is not None and granted.footing == self._footing else self._until
        return max(self._until, by_grants)

    def live(self) -> None:
        """The guard hears that this agent does not hang; whoever simulates the hang knows."""

    def takes_words(self, told: Told) -> bool:
        return self._body.guard.works

    def publish(self, told: Told) -> None:
        self._body.told = told
        self._scene.stir()

    def recall(self) -> Told | None:
        self._told = self._body.told
        return self._told

    # --- the other hosts ----------------------------------------------------------------------------------------------

    def ask(self, host: str, question: Question) -> None:
        self.letterbox.ask(host, question)

    def answer(self, host: str, answer: Answer) -> None:
        self.letterbox.answer(host, answer)

    def heard(self) -> tuple[tuple[str, Message], ...]:
        return self.letterbox.heard()

    def promise(self, name: str, bond: Bond) -> bool:
        bonds = self._body.bonds
        if under_way(self._busy.get(name, ())) or bonds is None:
            return False
        bonds[name] = lasting(bonds.get(name), bond)
        return True

    # --- idle time that is left out -----------------------------------------------------------------------------------

    def skip(self, length_s: float, regular: Collection[str]) -> None:
        """As if the regular rounds of these vservers had gone on as they went."""
        if self._until > self.now() - length_s:
            self._until += length_s
        self._body.skip_bonds(length_s)
        self.sender.skip(length_s, regular)

    def youngest_failure_s(self) -> float:
        """How long ago something failed last."""
        times = [failures[-1].at for failures in self._failures.values() if failures]
        return self.now() - max(times) if times else float("inf")


def _is_ours(told: Told, name: str) -> bool:
    """Whether the manager has anything to do with it: what is ignored or not declared any more is left alone."""
    return name in told.cluster.vservers and told.assignments[name].want is not Want.IGNORED


def _is_final(step: Step) -> bool:
    return isinstance(step, Ship) and step.final
