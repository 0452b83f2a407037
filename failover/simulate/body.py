"""What lies and runs on one simulated host and outlives its agent: processes, addresses, trees, the guard.

Rule 1: a vserver runs here if its processes run, are not frozen, and the fence lets its traffic pass.
Rule 2: the receiving end of a sync obeys only the owner of the epoch that it was told, never writes into a live tree,
        and keeps aside what only it has.
Rule 3: power off ends all processes and forgets what was told; the trees stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from agents.steps import Bond, Tree
from failover.errors import FailoverError, Refused, Unsafe
from failover.model import Replica, State, Told
from failover.simulate.clock import Clock
from failover.simulate.guard import Guard
from failover.simulate.letters import Letterbox
from failover.simulate.scene import Scene


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


@dataclass
class Copy:
    """One vserver's tree. `content`: which of the scene's writes it has; `kept`: those in what was set aside."""

    kind: Tree = Tree.NONE
    generation: int = 0
    epoch: int = 0
    content: frozenset[int] = frozenset()
    diverged: bool = False
    salvaged: tuple[str, ...] = ()
    kept: frozenset[int] = frozenset()
    received_at: float | None = None  # when the newest round began that it has whole, by its host's clock

    @property
    def complete(self) -> bool:
        return self.kind is Tree.LIVE or (self.kind is Tree.REPLICA and (self.generation > 0 or self.diverged))

    def replica(self) -> Replica | None:
        if self.kind is not Tree.REPLICA or not self.complete:
            return None
        return Replica(self.generation, self.epoch, self.diverged, self.salvaged)


class Body:
    """`noticed` wakes the agent; `ended` tells it of a vserver that ended by itself."""

    def __init__(self, host: str, scene: Scene, clock: Clock) -> None:
        self.host, self.scene, self.clock = host, scene, clock
        self.guard = Guard(scene.scheduler, clock, self._freeze_at_end, self._thaw, scene.touch, self._late)
        self.lives: dict[str, Life] = {}
        self.copies: dict[str, Copy] = {}
        self.told: Told | None = None
        self.bonds: dict[str, Bond] | None = None  # what it has promised; None: it does not know
        self.unknown = Bond("", 0, float("-inf"))  # what it may have promised
        self.letterbox: Letterbox | None = None  # that of its agent
        self.powered = False
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
        for name in sorted(self.lives):
            if self.lives[name].running:
                self.scene.say(f"{name} ends with {self.host}")
        self.lives, self.told = {}, None
        for copy in self.copies.values():
            copy.received_at = None
        self.bonds = self.letterbox = None
        self.guard.power_off()
        self.scene.touch()

    def power_on(self) -> None:
        self.powered = True
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

    def _freeze_at_end(self, names: Collection[str]) -> None:
        for name in names:
            life = self.lives.get(name)
            if life and life.running and not life.frozen:
                self.freeze(name)
                self.noticed()

    def _thaw(self, names: Collection[str]) -> None:
        for name in names:
            self.thaw(name)

    def _late(self, names: Collection[str]) -> None:
        for name in names:
            life = self.lives.get(name)
            if life and life.running and not life.frozen and not self.scene.traits_of(name).fails_freeze:
                self.scene.breach(1, f"{name} is not frozen on {self.host} although the lease is over")

    # --- trees --------------------------------------------------------------------------------------------------------

    def write(self, name: str, number: int) -> None:
        copy = self.copy(name)
        copy.content |= {number}

    def promote(self, name: str, epoch: int, *, anyway: bool = False) -> None:
        copy = self.copy(name)
        if epoch < copy.epoch:
            raise Unsafe(f"epoch {epoch} of {name} is over; epoch {copy.epoch} has begun")
        if copy.kind is not Tree.LIVE:
            if not copy.complete:
                raise Refused(f"there is no complete replica of {name} here", hint="sync it from the owner first")
            if copy.diverged and not anyway:
                raise Unsafe(f"the tree of {name} here was left by a former owner", hint="let it sync first")
        copy.kind, copy.epoch, copy.diverged, copy.received_at = Tree.LIVE, epoch, False, None

    def demote(self, name: str, epoch: int, whole: int | None) -> None:
        copy = self.copy(name)
        if copy.kind is not Tree.LIVE:
            return
        if self.life(name).running:
            self.scene.breach(7, f"the tree of {name} on {self.host} is set aside while it runs there")
        copy.kind, copy.generation = Tree.REPLICA, whole or copy.generation
        copy.epoch, copy.diverged = max(epoch, copy.epoch), not whole

    def receive(self, name: str, source: str, epoch: int, generation: int, content: frozenset[int]) -> int:
        """A generation has arrived; returns which it has now. Raises FailoverError when it is refused."""
        word = self.told.assignments.get(name) if self.told else None
        if word is None or (word.owner, word.epoch) != (source, epoch):
            raise Unsafe(f"{self.host} was not told that {source} owns {name} under epoch {epoch}")
        copy = self.copy(name)
        if self.disk_full or self.disk_error:
            raise Refused(
                f"no space left on {self.host} for {name}" if self.disk_full else f"disk error on {self.host}"
            )
        if copy.kind is Tree.LIVE:
            raise Refused(f"{self.host} has a live tree of {name}")
        known = copy.kind is Tree.REPLICA and copy.epoch == epoch and not copy.diverged and copy.generation
        if known and copy.content == content:
            return copy.generation
        only_here = copy.content - content - copy.kept
        if only_here:
            copy.salvaged = (*copy.salvaged, f"{epoch}-{generation}")
            copy.kept |= only_here
            self.scene.say(f"what only {self.host} had of {name} is kept aside")
        copy.kind, copy.generation, copy.epoch, copy.diverged = Tree.REPLICA, generation, epoch, False
        copy.content = content
        return generation

    def may_be_read(self) -> None:
        if self.disk_error:
            raise FailoverError(f"{self.host} cannot read its disk")
