"""Commands about one vserver: move, failback, start, stop, restart, ignore, remove, clear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from failover.errors import BadInput, Refused
from failover.model import Assignment, MoveWish, State, View, Vserver, VserverIntent, VserverReport, Want, frozen_map
from failover.orders.order import (
    Awaited,
    Order,
    host_of,
    moving,
    must_be_at_rest,
    must_be_obeyed,
    pending,
    taken,
    vserver_of,
    word_of,
)
from failover.plan import alive, companions, forgiven, intent_of, judge, judge_move, own_report, wanted

# --- where it is ------------------------------------------------------------------------------------------------------


def move(view: View, name: str, host: str) -> Order:
    """To `host`, and it stays there until the next failure."""
    return _move(view, vserver_of(view, name), host_of(view, host), stay=True)


def failback(view: View, name: str) -> Order:
    """Back to its primary."""
    vserver = vserver_of(view, name)
    return _move(view, vserver, vserver.primary, stay=False)


def _move(view: View, vserver: Vserver, host: str, *, stay: bool) -> Order:
    must_be_obeyed(view)
    name, now = vserver.name, word_of(view, vserver)
    if now.target == host:
        return Order(notice=f"{name} is being moved to {host} already")
    if not now.unstarted:
        must_be_at_rest(view, now)
    awaited = [Awaited(name, now.epoch, lambda word: word.owner == host)]
    if now.owner == host:
        if pending(view, now) is None:
            return Order(notice=f"{name} is on {host} already")
        return Order(_wish(name, moving(None)), notice=f"{name} stays on {host}", awaited=tuple(awaited))
    if not alive(view, now.owner):
        raise Refused(
            f"{now.owner}, its owner, is lost: it cannot hand over",
            hint=f"failover start {name} --on {host} --accept-loss",
        )
    verdict = judge_move(view, vserver, replace(now, failed_on=()), host)
    if not verdict.may:
        raise Refused(f"{name} may not go to {host}: {host} {verdict.because}")
    along = companions(view, vserver, host)
    awaited += [Awaited(word.vserver, word.epoch, lambda word: word.owner == host) for word in along]
    notice = f"{name} takes {' and '.join(word.vserver for word in along)} along" if along else ""
    return Order(_wish(name, moving(MoveWish(host, now.epoch, stay=stay))), notice=notice, awaited=tuple(awaited))


# --- what it does -----------------------------------------------------------------------------------------------------


def start(view: View, name: str, *, on: str | None = None, accept_loss: bool = False) -> Order:
    """Want it started, and forgive its errors. `on`, `accept_loss`: start the replica there as it is, however old."""
    if (on is not None) != accept_loss:
        raise BadInput(
            "--on HOST and --accept-loss go together", hint="a host with a fresh replica is chosen without them"
        )
    vserver = vserver_of(view, name)
    must_be_obeyed(view)
    now = view.assignments.get(name)
    wish = _accepting(view, vserver, now, host_of(view, on)) if on else None
    if wish is None and now is not None and _runs_well(view, vserver, now):
        return Order(notice=f"{name} is running on {now.owner} already")
    epoch = now.epoch if now else 0

    def change(intent: VserverIntent) -> VserverIntent:
        return replace(intent, want=Want.STARTED, move=wish or intent.move, cleared_epoch=epoch)

    def reached(word: Assignment) -> bool:
        return word.want is Want.STARTED and on in (None, word.owner)

    return Order(_wish(name, change), awaited=(Awaited(name, epoch, reached),))


def _accepting(view: View, vserver: Vserver, now: Assignment | None, host: str) -> MoveWish:
    name = vserver.name
    if now is None:
        raise Refused(f"{name} was never started: there is nothing to lose", hint=f"failover start {name}")
    if now.owner == host:
        raise Refused(f"{name} belongs to {host} already", hint=f"failover start {name}")
    report = own_report(view, now)
    if alive(view, now.owner) and (report is None or report.state in (State.RUNNING, State.FROZEN)):
        raise Refused(f"{name} belongs to {now.owner}, which is up", hint=f"failover move {name} {host}")
    wish = MoveWish(host, now.epoch, accept_loss=True)
    verdict = judge(view, vserver, host, wish)
    if not verdict.may:
        raise Refused(f"{name} cannot be started on {host}: it {verdict.because}")
    return wish


def _runs_well(view: View, vserver: Vserver, now: Assignment) -> bool:
    """It runs as wanted, and there is nothing to forgive."""
    report = own_report(view, now)
    runs = alive(view, now.owner) and report is not None and report.state is State.RUNNING
    return runs and wanted(view, vserver) is now.want is Want.STARTED and not _to_forgive(now, report)


def stop(view: View, name: str) -> Order:
    vserver = vserver_of(view, name)
    must_be_obeyed(view)
    now = view.assignments.get(name)
    awaited = (Awaited(name, now.epoch if now else 0, lambda word: word.want is Want.STOPPED),)
    if wanted(view, vserver) is Want.STOPPED:
        return Order(notice=f"{name} is wanted stopped already", awaited=awaited)

    wish = _wish(name, lambda intent: replace(intent, want=Want.STOPPED, restart_epoch=0))
    return Order(wish, awaited=awaited)


def restart(view: View, name: str) -> Order:
    """Stop it and start it again where it is."""
    vserver = vserver_of(view, name)
    must_be_obeyed(view)
    now = word_of(view, vserver)
    if now.again or intent_of(view, name).restart_epoch == now.epoch:
        return Order(notice=f"{name} is being restarted already")
    must_be_at_rest(view, now)
    if (wish := pending(view, now)) is not None:
        raise Refused(f"{name} is being moved to {wish.target or 'another host'} right now")
    if wanted(view, vserver) is Want.STOPPED:
        raise Refused(f"{name} is stopped", hint=f"failover start {name}")
    if not alive(view, now.owner):
        raise Refused(f"{now.owner}, its owner, is lost: it cannot restart {name}")
    report = own_report(view, now)
    if report is not None and report.state is State.ERROR:
        raise Refused(f"{name} is in error on {now.owner}: {report.because}", hint=f"failover clear {name}")

    def reached(word: Assignment) -> bool:
        return word.epoch > now.epoch and word.want is Want.STARTED

    change = _wish(name, lambda intent: replace(intent, restart_epoch=now.epoch))
    return Order(change, awaited=(Awaited(name, now.epoch, reached),))


def ignore(view: View, name: str) -> Order:
    """Leave it alone entirely, as it is now."""
    vserver = vserver_of(view, name)
    if wanted(view, vserver) is Want.IGNORED:
        return Order(notice=f"{name} is ignored already")
    said = f"{name} is left alone as it is, until: failover start {name}"
    wish = _wish(name, lambda intent: replace(intent, want=Want.IGNORED, move=None, restart_epoch=0))
    return taken(view, Order(wish, notice=said, awaited=_ignoring(view, name)))


def remove(view: View, name: str) -> Order:
    """Forget it; its processes and tree are left alone."""
    if name in view.cluster.vservers and intent_of(view, name).removed:
        return Order(notice=f"{name} is removed already")
    vserver_of(view, name)
    said = f"{name} is forgotten: its processes and its tree are left alone, and failover apply brings it back"

    def change(intent: VserverIntent) -> VserverIntent:
        return replace(intent, removed=True, want=Want.IGNORED, move=None, restart_epoch=0)

    return taken(view, Order(_wish(name, change), notice=said, awaited=_ignoring(view, name)))


def _ignoring(view: View, name: str) -> tuple[Awaited, ...]:
    now = view.assignments.get(name)
    return (Awaited(name, now.epoch, lambda word: word.want is Want.IGNORED),) if now else ()


def clear(view: View, name: str) -> Order:
    """Forgive its errors, and the hosts on which it failed: it is tried again."""
    now = word_of(view, vserver_of(view, name))
    if not _to_forgive(now, own_report(view, now)):
        return Order(notice=f"{name} has no errors")
    wish = _wish(name, lambda intent: replace(intent, cleared_epoch=now.epoch))
    return taken(view, Order(wish, awaited=(Awaited(name, now.epoch, lambda word: word.epoch > now.epoch),)))


def _to_forgive(now: Assignment, report: VserverReport | None) -> bool:
    return now != forgiven(now) or (report is not None and report.state is State.ERROR)


def _wish(
    name: str, change: Callable[[VserverIntent], VserverIntent]
) -> Mapping[str, Callable[[VserverIntent], VserverIntent]]:
    return frozen_map({name: change})
