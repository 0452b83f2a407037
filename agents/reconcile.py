"""What this host must do now: reconcile(told, seen, until, now) -> steps; what it has to say: describe(...) -> Report.

    told: the leader's words    seen: what this host sees of itself    until: the end of this host's lease (boot time)

Rule 1: after the lease nothing is started, thawed or shipped, and what runs is frozen. The same when there was none.
Rule 2: what another host owns is killed here before anything else is done with it; a frozen one is not thawed for it.
Rule 3: only the owner ships. What is handed over is shipped a last time after it and its addresses are gone.
Rule 4: one step at a time per vserver, but ships to several backups run side by side. Stops come before starts.
Rule 5: a step that failed is not tried again under the same epoch (a regular ship is, at the next round).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agents.steps import Demote, Freeze, Kill, Seen, SeenVserver, Ship, Shipped, Start, Step, Stop, Thaw, Tree
from failover.model import Assignment, Kind, Report, Shipment, State, Told, Vserver, VserverReport, Want, frozen_map

WARM_S = 2.0  # a round this short is followed by the stop and the last round
WARM_ROUNDS = 4  # ... and so is this many, however long they take: a busy writer must not put off a move for ever

_ORDER = (Freeze, Kill, Stop, Thaw, Demote, Start, Ship)
_ALONE = ("start", "stop", "kill", "demote")


def reconcile(told: Told, seen: Seen, until: float, now: float) -> tuple[Step, ...]:
    """The steps to begin now, in order."""
    steps: list[Step] = []
    for name, vserver in told.cluster.vservers.items():
        own, word = seen.vservers.get(name, SeenVserver()), told.assignments.get(name)
        if told.host in vserver.hosts or own.state is not State.STOPPED or (word and word.owner == told.host):
            steps.extend(_steps(told, vserver, word, own, now, leased=now < until))
    return tuple(sorted(steps, key=lambda step: _ORDER.index(type(step))))


def _steps(
    told: Told, vserver: Vserver, word: Assignment | None, seen: SeenVserver, now: float, *, leased: bool
) -> Iterable[Step]:
    if word is None or word.want is Want.IGNORED:
        return ()
    if not leased:
        return (Freeze(vserver.name),) if seen.state is State.RUNNING else ()
    if seen.state is State.ERROR or any(step in seen.busy for step in _ALONE):
        return ()
    if word.owner != told.host:
        return _not_mine(vserver, word, seen)
    if word.target is not None:
        return _hand_over(told, vserver, word, seen, now)
    return _mine(told, vserver, word, seen, now)


def _not_mine(vserver: Vserver, word: Assignment, seen: SeenVserver) -> Iterable[Step]:
    if seen.state in (State.FROZEN, State.RUNNING) or seen.networked:
        return (Kill(vserver.name, word.epoch),)
    if seen.tree is Tree.LIVE and not _failed(seen, "demote", word):
        last = seen.shipped.get(word.owner)
        whole = last is not None and last.final and last.epoch < word.epoch
        return (Demote(vserver.name, word.epoch, last.generation if last and whole else None),)
    return ()


def _mine(told: Told, vserver: Vserver, word: Assignment, seen: SeenVserver, now: float) -> Iterable[Step]:
    if word.want is Want.STOPPED:
        if seen.state in (State.RUNNING, State.FROZEN) or seen.networked:
            return (Stop(vserver, word.epoch),)
        return _regular(told, vserver, word, seen, now) if seen.tree is Tree.LIVE else ()
    if seen.state is State.FROZEN:
        return (Thaw(vserver.name),)
    if seen.state is State.RUNNING:
        arriving = word.kind is Kind.PLANNED and word.source is not None  # the leader's next epoch is on its way
        return () if arriving else _regular(told, vserver, word, seen, now)
    return () if _failed(seen, "start", word) else (Start(vserver, word.epoch, told.host, anyway=word.accept_loss),)


def _regular(told: Told, vserver: Vserver, word: Assignment, seen: SeenVserver, now: float) -> Iterable[Step]:
    """The syncs that are due: the pause is counted from the beginning of the round before."""
    for backup in vserver.hosts:
        last = seen.shipped.get(backup)
        due = last is None or now >= last.tried_at + vserver.sync.every_s
        if backup != told.host and due and f"ship {backup}" not in seen.busy:
            yield Ship(vserver, backup, word.epoch)


def _hand_over(told: Told, vserver: Vserver, word: Assignment, seen: SeenVserver, now: float) -> Iterable[Step]:
    """Ship while it runs, stop it, ship the last changes; the leader then gives it to the target."""
    assert word.target is not None
    if word.unshipped:
        gone = seen.state is State.STOPPED and not seen.networked
        return () if gone or _failed(seen, "stop", word) else (Stop(vserver, word.epoch),)
    ship = Ship(vserver, word.target, word.epoch)
    if ship.name in seen.busy or _failed(seen, ship.name, word) or _failed(seen, "stop", word):
        return ()
    last = seen.shipped.get(word.target)
    mine = last if last is not None and last.epoch == word.epoch else None
    if seen.state in (State.RUNNING, State.FROZEN):
        return (Stop(vserver, word.epoch),) if _warm(mine) else (ship,)
    if seen.networked:
        return (Stop(vserver, word.epoch),)
    return () if mine is not None and mine.final else (replace(ship, final=True),)


def _warm(last: Shipped | None) -> bool:
    return last is not None and (last.took_s <= WARM_S or last.rounds >= WARM_ROUNDS)


def _failed(seen: SeenVserver, step: str, word: Assignment) -> str:
    epoch, why = seen.failed.get(step, (0, ""))
    return why if epoch == word.epoch else ""


# --- what the host has to say -----------------------------------------------------------------------------------------


def describe(told: Told, seen: Seen, now: float, *, version: str = "") -> Report:
    """The host's report. Ages are counted on this host's own clock, up to now."""
    mine = {name: vs for name, vs in seen.vservers.items() if name in told.cluster.vservers}
    return Report(
        told.host,
        vservers=frozen_map(
            {
                name: _describe(told.host, told.assignments.get(name), vs, now)
                for name, vs in mine.items()
                if vs.tree is Tree.LIVE or vs.state is not State.STOPPED or _owns(told, name)
            }
        ),
        replicas=frozen_map({name: vs.replica for name, vs in mine.items() if vs.replica is not None}),
        version=version,
    )


def _handed(word: Assignment, seen: SeenVserver) -> int | None:
    """The generation with which all is done that the owner has to do for a hand-over; 0 when none was asked for."""
    gone = seen.state is State.STOPPED and not seen.networked and not any(step in seen.busy for step in _ALONE)
    last = seen.shipped.get(word.target or "")
    if word.target is None or not gone:
        return None
    if word.unshipped:
        return 0
    return last.generation if last and last.final and last.epoch == word.epoch else None


def _owns(told: Told, name: str) -> bool:
    word = told.assignments.get(name)
    return word is not None and word.owner == told.host


def _describe(host: str, word: Assignment | None, seen: SeenVserver, now: float) -> VserverReport:
    if word is None or word.owner != host:
        return VserverReport(seen.state, word.epoch if word else 0, seen.since_at, seen.because)
    start, stop = _failed(seen, "start", word), _failed(seen, "stop", word)
    broken = start if seen.state is State.STOPPED else stop if seen.state is State.RUNNING else ""
    handed = _handed(word, seen)
    shipping = _failed(seen, f"ship {word.target}", word) if word.target and handed is None else ""
    return VserverReport(
        State.ERROR if broken else seen.state,
        word.epoch,
        seen.since_at,
        broken or seen.because,
        handed=handed,
        handing_failed=shipping or (stop if word.target else ""),
        shipments=frozen_map(
            {
                backup: Shipment(shipped.generation, max(0.0, now - shipped.at), shipped.because)
                for backup, shipped in seen.shipped.items()
                if shipped.generation or shipped.because
            }
        ),
        marks=seen.marks,
    )
