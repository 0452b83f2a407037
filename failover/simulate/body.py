"""What lies and runs on one simulated host and outlives its agent: processes, addresses, trees, the guard.

Rule 1: a vserver runs here if its processes run, are not frozen, and the fence lets its traffic pass.
Rule 2: the receiving end of a sync obeys only the owner of the epoch that it was told, never writes into a live tree,
        and keeps aside what only it has.
Rule 3: power off ends all processes and forgets what was told; the trees stay as they are at that moment, and so does
        what has arrived of a generation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from agents.steps import Bond, Tree
from failover.errors import FailoverError, Refused, Unsafe
from failover.model import State, Told
from failover.simulate.clock import Clock
from failover.simulate.copies import Copy, Incoming
from failover.simulate.guard import Guard
from failover.simulate.letters import Letterbox
from failover.simulate.questions import Questions
from failover.simulate.scene import Scene

DISK_BYTES = 1 << 40  # of each host
MOVED_S = 0.05  # between the commit of a generation and its last file's move into place
LAPSED = "without a word of the lease for too long, it was killed by the guard"


@dataclass
class Life:
    """One vserver's processes and addresses."""

    running: bool = False
    frozen: bool = False
    by_hand: bool = False
    prepared: bool = False  # its network is there
    address: bool = False  # its addresses are up
    since_at: float = 0.0
    since: float = 0.0  # the same in boot time
    because: str = ""
    epoch: int = 0  # the word that it was started under
    number: int = 0  # of this life
    accept_loss: bool = False

    @property
    def state(self) -> State:
        if not self.running:
            return State.STOPPED
        return State.FROZEN if self.frozen else State.RUNNING


class Body:
    """`noticed` wakes the agent; `ended` tells it of a vserver that ended by itself."""

    def __init__(self, host: str, scene: Scene, clock: Clock, questions: Questions) -> None:
        self.host, self.scene, self.clock = host, scene, clock
        self.questions = questions
        self.guard = Guard(
            scene.scheduler,
            clock,
            self._freeze_at_end,
            self._thaw,
            self._kill_at_last,
            scene.touch,
            self._late,
            questions.send,
            lambda: self.noticed(),
        )
        questions.heard = self.guard.hear
        self.lives: dict[str, Life] = {}
        self.copies: dict[str, Copy] = {}
        self.told: Told | None = None
        self.bonds: dict[str, Bond] | None = None  # what it has promised; None: it does not know
        self.unknown = Bond("", 0, float("-inf"))  # what it may have promised
        self.letterbox: Letterbox | None = None  # that of its agent
        self.powered = False
        self.known_off = False  # its device has told so since the power was cut
        self.lost_rights: dict[
            str, float
        ] = {}  # what ran when the power was cut: until when it might have, virtual time
        self._boots = 0
        self.stalled = False
        self.leaving = False
        self.disk_full = False
        self.disk_error = False
        self.noticed: Callable[[], None] = lambda: None
        self.ended: Callable[[str, str], None] = lambda name, because: None

    def life(self, name: str) -> Life:
        return self.lives.setdefault(name, Life())

    def copy(self, name: str) -> Copy:
        return self.copies.setdefault(name, Copy())

    def runs(self, name: str) -> bool:
        life = self.lives.get(name)
        if life is None or not life.running or life.frozen:
            return False
        return self.powered and not self.stalled and self.guard.open(name)

    def may_run(self, name: str) -> bool:
        """Whether it could go on here for all that can be known elsewhere: a host that stands still, or has lost its
        power and no device has told so, has its right until the end of it."""
        if not self.powered:
            return not self.known_off and self.scene.now < self.lost_rights.get(name, 0.0)
        life = self.lives.get(name)
        return bool(life and life.running and not life.frozen and self.guard.open(name))

    def answers_at(self, name: str) -> bool:
        """Whether its addresses can be met here."""
        life = self.lives.get(name)
        return bool(life and life.address and self.powered and not self.stalled and self.guard.open(name))

    def check_fails_since(self, name: str) -> float | None:
        """The virtual time since which its health check fails; None: it does not."""
        since, until = self.scene.check_fails.get(name, (0.0, 0.0))
        return since if since <= self.scene.now < until else None

    # --- power --------------------------------------------------------------------------------------------------------

    def power_off(self) -> None:
        self.powered = self.stalled = self.leaving = False
        self._boots += 1
        for name in sorted(self.lives):
            if self.lives[name].running:
                self.scene.say(f"{name} ends with {self.host}")
        running = [name for name, life in self.lives.items() if life.running and not life.frozen]
        self.lost_rights = {name: self.clock.when(end) for name, end in self.guard.ends.items() if name in running}
        self.lives, self.told = {}, None
        for copy in self.copies.values():
            copy.received_at = None
        self.bonds = self.letterbox = None
        self.guard.power_off()
        self.scene.touch()

    def power_on(self) -> None:
        self.powered, self.known_off = True, False
        self._boots += 1
        self.scene.touch()

    # --- promises -----------------------------------------------------------------------------------------------------

    def bind_if_unknown(self, longest_s: float) -> None:
        if self.bonds is None:
            self.bonds, self.unknown = {}, Bond("", 0, self.clock.now() + longest_s)

    def skip_bonds(self, length_s: float) -> None:
        """As if what it has promised had been asked for again all the time."""
        before = self.clock.now() - length_s
        kept = {} if self.bonds is None else self.bonds
        for name, bond in kept.items():
            kept[name] = replace(bond, until=bond.until + length_s) if bond.until > before else bond

    def bond(self, name: str) -> Bond | None:
        found = max(self.unknown, (self.bonds or {}).get(name, self.unknown), key=lambda bond: bond.until)
        return found if found.until > float("-inf") else None

    def binds(self, name: str) -> bool:
        """Whether it has promised not to start it, or may have and would wait for the end of that."""
        if self.bonds is None:
            return True
        bond = self.bond(name)
        return bond is not None and self.clock.now() < bond.until

    # --- processes ----------------------------------------------------------------------------------------------------

    def run(self, name: str, epoch: int, *, by_hand: bool = False) -> None:
        life = self.life(name)
        life.running, life.frozen, life.by_hand, life.epoch = True, False, by_hand, epoch
        life.number += 1
        life.since_at, life.since, life.because = self.clock.wall(), self.clock.now(), ""
        life.prepared = life.address = True
        self.scene.say(f"{name} runs on {self.host}" + (", started by hand" if by_hand else ""))
        self.scene.touch()
        self.guard.look()

    def end(self, name: str, because: str = "") -> None:
        """Its processes are gone."""
        life = self.life(name)
        if life.running:
            self.scene.say(f"{name} has stopped on {self.host}" + (f": {because}" if because else ""))
        if life.by_hand:
            life.prepared = life.address = False  # nobody keeps its network for it
        life.running = life.frozen = life.by_hand = False
        life.because, life.since_at = because, self.clock.wall()
        self.scene.touch()

    def disconnect(self, name: str) -> None:
        life = self.life(name)
        life.prepared = life.address = False
        self.scene.touch()

    def crash(self, name: str, because: str) -> bool:
        life = self.life(name)
        if not life.running:
            return False
        self.scene.ailing[name] = because
        self.end(name, because)
        self.ended(name, because)
        self.noticed()
        return True

    def freeze(self, name: str) -> bool:
        """Whether it is frozen now."""
        life = self.life(name)
        if not life.running:
            return False
        if not life.frozen:
            if self.scene.traits_of(name).fails_freeze:
                return False
            life.frozen = True
            self.scene.say(f"{name} is frozen on {self.host}")
            self.scene.touch()
        return True

    def thaw(self, name: str) -> None:
        life = self.life(name)
        if life.running and life.frozen:
            life.frozen = False
            self.scene.say(f"{name} goes on on {self.host}")
            self.scene.touch()

    def _freeze_at_end(self, names: Collection[str]) -> list[str]:
        """Those of them that are there."""
        there = [name for name in names if name in self.lives and self.lives[name].running]
        for name in there:
            if not self.lives[name].frozen:
                self.freeze(name)
                self.noticed()
        return there

    def _thaw(self, names: Collection[str]) -> None:
        for name in names:
            self.thaw(name)

    def _kill_at_last(self, names: Collection[str]) -> None:
        """It is no failure of theirs, and their addresses stay, as those of what ends by itself."""
        for name in names:
            if not self.scene.traits_of(name).fails_stop:
                self.end(name, LAPSED)
                self.noticed()

    def at_large(self) -> list[str]:
        """What is not frozen although its end is past."""
        return [name for name, life in self.lives.items() if self.guard.due(name) and life.state is State.RUNNING]

    def _late(self, names: Collection[str]) -> None:
        for name in self.at_large():
            if name in names and not self.scene.traits_of(name).fails_freeze:
                self.scene.breach(1, f"{name} is not frozen on {self.host} although the lease is over")

    # --- trees --------------------------------------------------------------------------------------------------------

    def write(self, name: str, number: int) -> None:
        copy = self.copy(name)
        copy.content |= {number}

    def promote(self, name: str, epoch: int, *, anyway: bool = False) -> None:
        """It needs room for its record."""
        copy = self.copy(name)
        if epoch < copy.epoch:
            raise Unsafe(f"epoch {epoch} of {name} is over; epoch {copy.epoch} has begun")
        if copy.kind is not Tree.LIVE:
            self.may_be_written(name)
            copy.settle()
            if not copy.complete:
                raise Refused(f"there is no complete replica of {name} here", hint="sync it from the owner first")
            if copy.diverged and not anyway:
                raise Unsafe(f"the tree of {name} here was left by a former owner", hint="let it sync first")
        copy.kind, copy.epoch, copy.diverged, copy.received_at = Tree.LIVE, epoch, False, None

    def demote(self, name: str, epoch: int, whole: int | None) -> None:
        copy = self.copy(name)
        if copy.kind is not Tree.LIVE:
            return
        self.may_be_written(name)
        if self.life(name).running:
            self.scene.breach(7, f"the tree of {name} on {self.host} is set aside while it runs there")
        copy.kind, copy.generation = Tree.REPLICA, whole or copy.generation
        copy.epoch, copy.diverged = max(epoch, copy.epoch), not whole

    def begin(self, name: str, new: Incoming) -> None:
        """Make an empty staging for a generation. Raises FailoverError when it is refused."""
        copy = self.receivable(name, new.source, new.epoch)
        copy.settle()
        self.may_be_written(name, new.need_bytes)
        copy.incoming = new

    def commit(self, name: str, new: Incoming) -> None:
        """All of it has arrived: a moment later it is in place. Raises FailoverError when it is refused."""
        copy = self.receivable(name, new.source, new.epoch)
        if copy.incoming is not new:
            raise Refused(f"generation {new.generation} of {name} was not begun here", hint="begin again")
        if new.arrived_bytes < new.need_bytes:
            raise Refused(f"generation {new.generation} of {name} has not arrived", hint="the next round tries again")
        self.may_be_written(name)
        if copy.set_aside(new):
            self.scene.say(f"what only {self.host} had of {name} is kept aside")
        new.committed = True
        self.scene.scheduler.after(MOVED_S, partial(self._move, copy, new, self._boots))

    def _move(self, copy: Copy, new: Incoming, boots: int) -> None:
        """Unless the power was cut meanwhile: then the tree is left half moved, and somebody finishes it."""
        if copy.incoming is not new or boots != self._boots:
            return
        if self.stalled:
            self.scene.scheduler.after(MOVED_S, partial(self._move, copy, new, boots))
        else:
            copy.settle()

    def recover(self) -> None:
        """After a boot: what a power cut has left half done."""
        for copy in self.copies.values():
            if not self.disk_full and not self.disk_error:
                copy.settle()
            copy.received_at = None

    def receivable(self, name: str, source: str, epoch: int) -> Copy:
        """Its copy here, if that host may send it now."""
        word = self.told.assignments.get(name) if self.told else None
        if word is None or (word.owner, word.epoch) != (source, epoch):
            raise Unsafe(f"{self.host} was not told that {source} owns {name} under epoch {epoch}")
        self.may_be_read()
        copy = self.copy(name)
        if copy.kind is Tree.LIVE:
            raise Refused(f"{self.host} has a live tree of {name}")
        return copy

    def may_be_written(self, name: str, size_bytes: int = 0) -> None:
        """Raises FailoverError when the disk has no room for so much."""
        self.may_be_read()
        if self.disk_full or size_bytes > self.free_bytes():
            raise Refused(f"no space left on {self.host} for {name}", hint="make room there")

    def free_bytes(self) -> float:
        if self.disk_full:
            return 0.0
        used = sum(
            copy.used_bytes(lambda number: self.scene.written[number].size_bytes) for copy in self.copies.values()
        )
        return max(0.0, DISK_BYTES - used)

    def may_be_read(self) -> None:
        if self.disk_error:
            raise FailoverError(f"{self.host} cannot read its disk")
