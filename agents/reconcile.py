"""What this host must do now: reconcile(told, seen, until, now) -> steps; when to ask again: next_at(...) -> boot time;
what it has to say: describe(...) -> Report.

    told: the leader's words    seen: what this host sees of itself    until: the end of this host's lease (boot time)

Rule 1: after the lease nothing is started, thawed or shipped, and what runs is frozen. The same when there was none.
Rule 2: what another host owns is killed here before anything else is done with it; a frozen one is not thawed for it.
        Only a copy that a human has started is first reported: the leader has one turn, and answers with an epoch.
        What cannot be killed is frozen, and tried again after a pause.
Rule 3: only the owner ships. What is handed over is shipped a last time after it and its addresses are gone.
Rule 4: one step at a time per vserver, but ships to several backups run side by side. Stops come before starts.
Rule 5: what fails is started again here, after a pause, as often as `restart` says under one epoch; then it is in error
        and left to the leader. A stop that failed is tried again after the same pauses, for as long as it takes, when
        the leader wants it stopped; and so is setting a tree aside. Any other step that failed is not tried again under
        the same epoch (a ship that nobody waits for is, at the next round).
Rule 6: disarmed, nothing is started, stopped or set aside; leases, syncs and rule 2 go on.
Rule 7: while the host is being shut down nothing is started.
Rule 8: what may run on by promises of the others after the lease is left alone, and regular syncs go on.
Rule 9: what this host has promised to another is neither started nor thawed, whoever owns it by now; and its word has
        not been obeyed before the promise is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

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
)
from failover.model import (
    Assignment,
    Kind,
    Promised,
    Replica,
    Report,
    Shipment,
    Shutdown,
    State,
    Told,
    Vserver,
    VserverReport,
    Want,
    frozen_map,
)

WARM_S = 2.0  # a round this short is followed by the stop and the last round
WARM_ROUNDS = 4  # ... and so is this many, however long they take: a busy writer must not put off a move for ever
PAUSE_S = 30.0  # at most, before something that failed is tried again

_ORDER = (Freeze, Kill, Stop, Thaw, Demote, Start, Ship)
_ALONE = ("start", "stop", "kill", "demote")


@dataclass(frozen=True)
class _Case:
    """One vserver about which the leader has spoken, as it is here and now."""

    host: str
    vserver: Vserver
    word: Assignment
    seen: SeenVserver
    now: float
    leaving: bool = False
    disarmed: bool = False

    @property
    def bound(self) -> bool:
        return self.seen.bond is not None and self.now < self.seen.bond.until

    @property
    def mine(self) -> bool:
        return self.word.owner == self.host

    @property
    def concerned(self) -> bool:
        return self.host in self.vserver.hosts or self.mine or self.seen.state is not State.STOPPED

    @property
    def wanted(self) -> bool:
        return self.word.want is Want.STARTED

    @property
    def busy(self) -> bool:
        return any(step in self.seen.busy for step in _ALONE)

    @property
    def gone(self) -> bool:
        """Neither its processes nor its addresses can be met here."""
        return self.seen.state is State.STOPPED and not self.seen.networked

    @property
    def backups(self) -> tuple[str, ...]:
        return tuple(host for host in self.vserver.hosts if host != self.host)

    @property
    def stays_down(self) -> bool:
        """It is wanted started, but stopped for as long as its host is being shut down."""
        return self.leaving and self.wanted and self.vserver.on_host_shutdown is not Shutdown.MOVE

    def failed(self, step: str) -> str:
        """Why this step failed under this epoch."""
        epoch, why = self.seen.failed.get(step, (0, ""))
        return why if epoch == self.word.epoch else ""


def _cases(told: Told, seen: Seen, now: float) -> Iterator[_Case]:
    for name, vserver in told.cluster.vservers.items():
        own, word = seen.vservers.get(name, SeenVserver()), told.assignments.get(name)
        if word is not None:
            yield _Case(told.host, vserver, word, own, now, seen.leaving, told.disarmed)


# --- what to do -------------------------------------------------------------------------------------------------------


def reconcile(
    told: Told, seen: Seen, until: float, now: float, *, promised: Mapping[str, float] | None = None
) -> tuple[Step, ...]:
    """The steps to begin now, in order. `promised`: until when a vserver may run on here, if not by the lease."""
    may_run = {name for name, end in (promised or {}).items() if now < end}
    steps = [
        step
        for case in _cases(told, seen, now)
        for step in _steps(case, leased=now < until, promised=case.vserver.name in may_run)
        if not (case.bound and isinstance(step, Start | Thaw))
    ]
    return tuple(sorted(steps, key=lambda step: _ORDER.index(type(step))))


def _steps(case: _Case, *, leased: bool, promised: bool) -> Iterable[Step]:
    if case.word.want is Want.IGNORED or not case.concerned:
        return ()
    if not leased and promised:
        return _regular(case) if case.mine and case.word.target is None and not case.busy else ()
    if not leased:
        return (Freeze(case.vserver.name),) if case.seen.state is State.RUNNING else ()
    if case.seen.state is State.ERROR or case.busy:
        return ()
    if not case.mine:
        return _not_mine(case)
    if case.disarmed:
        return _disarmed(case)
    if case.word.target is not None:
        return _hand_over(case, case.word.target)
    return _leave(case) if case.stays_down else _mine(case)


def _not_mine(case: _Case) -> Iterable[Step]:
    seen, word = case.seen, case.word
    adopted = word.target == case.host and word.unshipped  # its owner lets go of it, and then it is ours
    if seen.state is State.RUNNING and seen.by_hand and (adopted or word.epoch <= seen.by_hand_epoch):
        return ()
    if not case.gone and case.failed("kill") and case.now < _again_at(case):
        return (Freeze(case.vserver.name),) if seen.state is State.RUNNING else ()
    if not case.gone:
        return (Kill(case.vserver.name, word.epoch),)
    waits = case.failed("demote") and case.now < _again_at(case)
    if seen.tree is Tree.LIVE and not case.disarmed and not waits:
        last = seen.shipped.get(word.owner)
        whole = last is not None and last.final and last.epoch < word.epoch
        return (Demote(case.vserver.name, word.epoch, last.generation if last and whole else None),)
    return ()


def _disarmed(case: _Case) -> Iterable[Step]:
    if case.seen.state is State.STOPPED and case.word.unshipped and not case.gone:
        return (Kill(case.vserver.name, case.word.epoch),)  # it runs elsewhere by hand: its addresses must be gone here
    if case.seen.state is State.FROZEN:
        return (Thaw(case.vserver.name),) if case.wanted else ()
    return _regular(case)


def _mine(case: _Case) -> Iterable[Step]:
    seen, word = case.seen, case.word
    if not case.wanted:
        if case.gone:
            return _regular(case)
        return () if case.failed("stop") and case.now < _again_at(case) else (Stop(case.vserver, word.epoch),)
    if seen.state is State.FROZEN:
        return (Thaw(case.vserver.name),)
    if seen.state is State.RUNNING:
        ill = seen.failing and not case.leaving and not _in_error(case)
        return (Stop(case.vserver, word.epoch, because=seen.failing),) if ill else _regular(case)
    if case.leaving or _in_error(case) or case.now < _again_at(case):
        return _regular(case)
    return (Start(case.vserver, word.epoch, case.host, anyway=word.accept_loss),)


def _leave(case: _Case) -> Iterable[Step]:
    """Stop it and ship the last changes to every backup; it waits for its host, or for the leader."""
    if not case.gone:
        return () if case.failed("stop") else (Stop(case.vserver, case.word.epoch),)
    last_round = (Ship(case.vserver, host, case.word.epoch, final=True) for host in case.backups)
    return [ship for ship in last_round if not _final(case, ship.target) and case.now >= _last_round_at(case, ship)]


def _hand_over(case: _Case, target: str) -> Iterable[Step]:
    """Ship while it runs, stop it, ship the last changes; the leader then gives it to the target."""
    stop = Stop(case.vserver, case.word.epoch)
    if case.word.unshipped:
        return () if case.gone or case.failed("stop") else (stop,)
    ship = Ship(case.vserver, target, case.word.epoch)
    if ship.name in case.seen.busy or case.failed(ship.name) or case.failed("stop"):
        return ()
    if case.gone:
        return () if _final(case, target) else (replace(ship, final=True),)
    return (stop,) if case.seen.state is State.STOPPED or _warm(case, target) else (ship,)


# --- syncs ------------------------------------------------------------------------------------------------------------


def _regular(case: _Case) -> list[Step]:
    """The syncs that are due: the pause is counted from the beginning of the round before."""
    arriving = case.wanted and case.word.kind is Kind.PLANNED and case.word.source is not None
    if arriving or case.seen.tree is not Tree.LIVE:  # for one that arrives the leader's next epoch is on its way
        return []
    ships = [Ship(case.vserver, host, case.word.epoch) for host in case.backups]
    return [ship for ship in ships if ship.name not in case.seen.busy and case.now >= _due_at(case, ship.target)]


def _due_at(case: _Case, backup: str) -> float:
    last = case.seen.shipped.get(backup)
    return float("-inf") if last is None else last.tried_at + case.vserver.sync.every_s


def _last_round_at(case: _Case, ship: Ship) -> float:
    """At once; after a failure soon again, for the host will not wait long."""
    if ship.name in case.seen.busy:
        return float("inf")
    last = case.seen.shipped.get(ship.target)
    if last is None or not case.failed(ship.name):
        return float("-inf")
    return last.tried_at + min(case.vserver.sync.every_s, PAUSE_S)


def _under_this_epoch(case: _Case, backup: str) -> Shipped | None:
    last = case.seen.shipped.get(backup)
    return last if last is not None and last.epoch == case.word.epoch else None


def _warm(case: _Case, target: str) -> bool:
    last = _under_this_epoch(case, target)
    return last is not None and (last.took_s <= WARM_S or last.rounds >= WARM_ROUNDS)


def _final(case: _Case, backup: str) -> bool:
    last = _under_this_epoch(case, backup)
    return last is not None and last.final


# --- failures ---------------------------------------------------------------------------------------------------------


def _failures(case: _Case) -> tuple[Failure, ...]:
    """Those that count, the newest last: under this epoch, and within `within_s` before the newest.

    Counted back from the newest and not from now, so what was given up stays so until the next epoch. Health checks
    that fail now are the newest.
    """
    found = [failure for failure in case.seen.failures if failure.epoch == case.word.epoch]
    if case.seen.failing and case.seen.state is State.RUNNING and not case.busy:
        found.append(Failure(case.word.epoch, case.now, case.seen.failing))
    return tuple(failure for failure in found if failure.at > found[-1].at - case.vserver.restart.within_s)


def _in_error(case: _Case) -> str:
    """Why it is left to the leader under this epoch: it failed once more than it is started again here, or it cannot be
    stopped, or is but can still be met here."""
    to_stop = not case.wanted or case.word.target is not None
    if to_stop and case.seen.state is State.STOPPED and not case.gone and case.failed("stop"):
        return case.failed("stop")
    runs = case.seen.state is State.RUNNING
    if runs and (case.failed("stop") or not case.seen.failing):
        return case.failed("stop")
    found = _failures(case)
    return found[-1].because or "it failed" if case.wanted and len(found) > case.vserver.restart.local else ""


def _again_at(case: _Case) -> float:
    """When it may be tried again: 1, 2, 4 … seconds after it failed for the first, second, third … time."""
    found = _failures(case)
    return found[-1].at + min(PAUSE_S, 2.0 ** min(len(found) - 1, 10)) if found else float("-inf")


# --- when to ask again ------------------------------------------------------------------------------------------------


def next_at(told: Told, seen: Seen, now: float) -> float:
    """The first moment after `now` (boot time) at which time alone may make reconcile say more; infinity: never."""
    times = (at for case in _cases(told, seen, now) if not case.busy for at in _moments(case))
    return min((at for at in times if at > now), default=float("inf"))


def _moments(case: _Case) -> Iterator[float]:
    if case.word.want is Want.IGNORED:
        return
    if not case.gone and case.failed("stop" if case.mine else "kill"):
        yield _again_at(case)
    if not case.mine:
        if case.gone and case.seen.tree is Tree.LIVE and case.failed("demote"):
            yield _again_at(case)
        return
    if case.seen.bond is not None:
        yield case.seen.bond.until
    if case.stays_down and case.gone and not case.disarmed:
        for backup in case.backups:
            if not _final(case, backup):
                yield _last_round_at(case, Ship(case.vserver, backup, case.word.epoch, final=True))
        return
    if case.seen.tree is Tree.LIVE and case.word.target is None:
        yield from (_due_at(case, backup) for backup in case.backups if f"ship {backup}" not in case.seen.busy)
    if case.disarmed or case.leaving or not case.wanted:
        return
    if case.seen.state is State.STOPPED and not _in_error(case):
        yield _again_at(case)
    if case.seen.state is State.RUNNING and case.seen.failing and _in_error(case):
        yield _failures(case)[0].at + case.vserver.restart.within_s  # then one restart more is allowed


# --- what the host has to say -----------------------------------------------------------------------------------------


def describe(told: Told, seen: Seen, now: float, *, version: str = "") -> Report:
    """The host's report. Ages are counted on this host's own clock, up to now."""
    said = {case.vserver.name: case for case in _cases(told, seen, now)}
    mine = {name: vs for name, vs in seen.vservers.items() if name in told.cluster.vservers}
    return Report(
        told.host,
        vservers=frozen_map(
            {
                name: _describe(said[name]) if name in said else _nobodys(vs)
                for name, vs in mine.items()
                if vs.tree is Tree.LIVE or vs.state is not State.STOPPED or _owns(told, name)
            }
        ),
        replicas=frozen_map({name: _aged(vs.replica, vs, now) for name, vs in mine.items() if vs.replica is not None}),
        leaving=seen.leaving,
        capacity=seen.capacity,
        promised=frozen_map(
            {
                name: Promised(vs.bond.holder, vs.bond.epoch, now - vs.bond.until)
                for name, vs in mine.items()
                if vs.bond is not None
            }
        ),
        version=version,
    )


def _aged(replica: Replica, seen: SeenVserver, now: float) -> Replica:
    return replica if seen.received_at is None else replace(replica, age_s=max(0.0, now - seen.received_at))


def _owns(told: Told, name: str) -> bool:
    word = told.assignments.get(name)
    return word is not None and word.owner == told.host


def _nobodys(seen: SeenVserver) -> VserverReport:
    return VserverReport(seen.state, 0, seen.since_at, seen.because, by_hand=seen.by_hand)


def _describe(case: _Case) -> VserverReport:
    seen, word = case.seen, case.word
    if not case.mine:
        epoch = seen.by_hand_epoch if seen.by_hand else word.epoch
        return VserverReport(seen.state, epoch, seen.since_at, seen.because, by_hand=seen.by_hand)
    if word.want is Want.IGNORED:
        return VserverReport(seen.state, word.epoch, seen.since_at, seen.because, shipments=_shipments(case))
    because = seen.because
    if case.bound and seen.bond is not None:  # rule 9
        return VserverReport(seen.state, min(seen.bond.epoch, word.epoch - 1), seen.since_at, _promised_to(seen.bond))
    broken = "" if seen.state is State.FROZEN else _in_error(case)
    if case.wanted and seen.state is State.STOPPED:
        because = next((failure.because for failure in reversed(_failures(case))), because)
    shipping = case.failed(f"ship {word.target}") if word.target and _handed(case) is None else ""
    return VserverReport(
        State.ERROR if broken else seen.state,
        word.epoch,
        seen.since_at,
        broken or because,
        handed=_handed(case),
        handing_failed=shipping or (case.failed("stop") if word.target else ""),
        shipments=_shipments(case),
        marks=seen.marks,
        failing=seen.failing,
    )


def _shipments(case: _Case) -> Mapping[str, Shipment]:
    return frozen_map(
        {
            backup: Shipment(
                shipped.generation,
                max(0.0, case.now - shipped.at),
                shipped.because,
                final=shipped.final and case.gone,
            )
            for backup, shipped in case.seen.shipped.items()
            if shipped.generation or shipped.because
        }
    )


def _promised_to(bond: Bond) -> str:
    return f"it was promised to {bond.holder}" if bond.holder else "this host may have promised it before it was booted"


def _handed(case: _Case) -> int | None:
    """The generation with which all is done that the owner has to do for a hand-over; 0 when none was asked for."""
    if case.word.target is None or not case.gone or case.busy:
        return None
    if case.word.unshipped:
        return 0
    last = _under_this_epoch(case, case.word.target)
    return last.generation if last is not None and last.final else None
