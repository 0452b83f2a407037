"""What the leader must change now: plan(view) -> changes, holds and a verdict per host. Pure.

    a vserver is …                                     so the leader …
    ─────────────────────────────────────────────────  ──────────────────────────────────────────────────────────────
    not assigned yet                                   gives it to the host that runs it, else to the primary
    owned by a host whose session is gone              gives it to the first backup that may run it     (takeover)
    to be moved, or on a drained host                  asks its owner to hand it over                   (planned)
    being handed over, and the last changes shipped    gives it to the target
    being handed over, and something failed            leaves it where it is
    not able to start where it was moved to            gives it back to where it came from
    running where it was moved to                      forgets the way back: what it writes now is only there

Rule 1: an owner whose session exists is never taken over; only it can hand over. A session ends after the host's lease
        (failover/timing.py), and the lease's version is checked again by the commit.
Rule 2: every change is the next epoch of one vserver; it fails whole if the world has moved on, and is decided again.
        What is no longer declared keeps its word, so that its epochs go on if it is declared again.
Rule 3: doing nothing is an answer too, and has a reason (Hold).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from failover.model import (
    Assignment,
    Event,
    Hold,
    Kind,
    MoveWish,
    Report,
    State,
    Verdict,
    View,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.store import Change
from failover.timing import PROFILES


@dataclass(frozen=True)
class Plan:
    changes: tuple[Change, ...]
    holds: tuple[Hold, ...]
    verdicts: Mapping[str, tuple[Verdict, ...]]  # per vserver, for every host that may ever run it


def plan(view: View) -> Plan:
    """The changes that the leader must make now, what it holds back, and what it thinks of every host."""
    vservers = sorted(view.cluster.vservers.values(), key=lambda vserver: vserver.name)
    decisions = [_decide(view, vserver) for vserver in vservers]
    return Plan(
        changes=tuple(found for found in decisions if isinstance(found, Change)),
        holds=tuple(found for found in decisions if isinstance(found, Hold)),
        verdicts={vserver.name: verdicts(view, vserver) for vserver in vservers},
    )


def without(view: View, hosts: tuple[str, ...]) -> View:
    """The same cluster, had these hosts just been lost."""
    return replace(
        view,
        leases={name: replace(lease, alive=lease.alive and name not in hosts) for name, lease in view.leases.items()},
    )


# --- one vserver ------------------------------------------------------------------------------------------------------


def _decide(view: View, vserver: Vserver) -> Change | Hold | None:
    intent = view.intents.vservers.get(vserver.name, VserverIntent())
    want = intent.want or vserver.want
    now = view.assignments.get(vserver.name)
    if now is None:
        return None if want is Want.IGNORED else _first(view, vserver, want)
    wish = intent.move if intent.move is not None and intent.move.epoch == now.epoch else None
    if now.want is not want and not (wish and wish.accept_loss):
        return _assign(view, replace(now, want=want, target=None, unshipped=False), f"wanted {want}")
    if want is Want.IGNORED:
        return None
    now = replace(now, want=want)  # a wish that is obeyed takes it along in one change
    if now.failed_on and intent.cleared_epoch >= now.epoch and wish is None:
        return _assign(view, replace(now, failed_on=()), "an operator says: try again")
    return _owned(view, vserver, now, intent, wish)


def _owned(
    view: View, vserver: Vserver, now: Assignment, intent: VserverIntent, wish: MoveWish | None
) -> Change | Hold | None:
    if not alive(view, now.owner):
        return _owner_lost(view, vserver, now, wish)
    report = own_report(view, now)
    if report is None:
        return None  # the agent has not obeyed this epoch yet
    if now.target is not None:
        return _handing_over(view, vserver, now, report)
    if wish is not None:
        return _wished(view, vserver, now, wish)
    if report.state is State.ERROR:
        return _in_error(view, vserver, now, report, intent)
    if now.kind is Kind.PLANNED and now.source is not None and report.state is State.RUNNING:
        return _assign(view, replace(now, source=None), f"it has arrived on {now.owner}")
    if now.owner not in vserver.hosts:
        return _leave(view, vserver, now, f"{now.owner} may not run it any more")
    if _drained(view, now.owner):
        return _leave(view, vserver, now, f"{now.owner} is drained")
    return None


def _first(view: View, vserver: Vserver, want: Want) -> Change | Hold:
    having = {host: _reported(view, host, vserver.name) for host in vserver.hosts if alive(view, host)}
    running = [host for host, report in having.items() if report and report.state in (State.RUNNING, State.FROZEN)]
    if len(running) > 1:
        return Hold(
            vserver.name, f"it already runs on {' and '.join(running)}", "stop it by hand where it must not run"
        )
    new = Assignment(vserver.name, running[0] if running else "", 0, want=want, owned_at=view.now)
    if running:
        return _assign(view, replace(new, kind=Kind.ADOPTED), f"found running on {running[0]}")
    complete = [host for host, report in having.items() if report and not _drained(view, host)]
    if not complete:
        built = f"build it there: vserver {vserver.name} build, on {vserver.primary}"
        return Hold(vserver.name, f"no host that is up has its tree ({', '.join(vserver.hosts)})", built)
    where = "its primary" if complete[0] == vserver.primary else f"{vserver.primary} may not run it now"
    return _assign(view, replace(new, owner=complete[0]), f"first start: {where}")


def _owner_lost(view: View, vserver: Vserver, now: Assignment, wish: MoveWish | None) -> Change | Hold:
    """The owner's session is gone, so it has stopped or frozen the vserver, and its lease cannot be renewed unseen."""
    if now.owner not in view.leases:
        return Hold(vserver.name, f"nobody knows whether {now.owner}, its owner, is off", f"bring {now.owner} back")
    handed = own_report(view, now)
    if now.target is not None and handed is not None and handed.handed and alive(view, now.target):
        return _give(view, now, now.target, Kind.PLANNED, f"{now.owner} handed it over to {now.target}, then was lost")
    accepted = wish if wish is not None and wish.accept_loss else None
    judged = verdicts(view, vserver, accepted)
    able = [verdict.host for verdict in judged if verdict.may and verdict.host != now.owner]
    if accepted is not None:
        able = [host for host in able if host == accepted.target] or able
    chosen = next((host for host in able if host not in now.failed_on), next(iter(able), None))
    if chosen is None:
        reasons = "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged)
        return Hold(vserver.name, f"no host may run it: {reasons}", _way_out(view, vserver, now))
    because = f"{now.owner} is lost; {chosen} {_verdict_of(judged, chosen).because}"
    return _give(view, now, chosen, Kind.TAKEOVER, because, accept_loss=accepted is not None)


def _handing_over(view: View, vserver: Vserver, now: Assignment, report: VserverReport) -> Change | None:
    assert now.target is not None
    stays = replace(now, target=None, unshipped=False, accept_loss=False)
    hopeless = _unfit(view, vserver, now.target)
    if hopeless:
        return _assign(view, stays, f"the move was given up: {now.target} {hopeless}")
    if report.handed is not None:
        kind = Kind.TAKEOVER if now.accept_loss else Kind.PLANNED
        return _give(view, now, now.target, kind, now.because, accept_loss=now.accept_loss)
    if report.handing_failed:
        failed = f"the move to {now.target} failed and it stays on {now.owner}: {report.handing_failed}"
        return _assign(view, replace(stays, failed_on=_with(now.failed_on, now.target)), failed)
    return None


def _wished(view: View, vserver: Vserver, now: Assignment, wish: MoveWish) -> Change:
    """An operator's word for this very epoch: obeyed, or answered by an epoch that says why not."""
    if wish.accept_loss and wish.target:
        verdict = judge(view, vserver, wish.target, wish)
        if not verdict.may:
            return _assign(view, now, f"not started on {wish.target}: it {verdict.because}")
        because = f"an operator starts the replica of {wish.target} as it is"
        return _assign(view, replace(now, target=wish.target, unshipped=True, accept_loss=True), because)
    fresh = replace(now, failed_on=()) if wish.target else now
    hosts = (wish.target,) if wish.target else vserver.hosts
    judged = [judge_move(view, vserver, fresh, host) for host in hosts if host != now.owner]
    chosen = next((verdict.host for verdict in judged if verdict.may), None)
    if chosen is None:
        reasons = "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged) or "it is there already"
        return _assign(view, now, f"not moved: {reasons}")
    return _assign(view, replace(fresh, target=chosen), f"an operator moves it to {chosen}")


def _in_error(
    view: View, vserver: Vserver, now: Assignment, report: VserverReport, intent: VserverIntent
) -> Change | Hold:
    if intent.cleared_epoch >= now.epoch:
        return _assign(view, replace(now, failed_on=()), "an operator says: try again")
    back = now.source if now.kind is Kind.PLANNED and now.source not in now.failed_on else None
    if back and back in vserver.hosts and alive(view, back):
        tried = replace(now, target=back, unshipped=True, failed_on=_with(now.failed_on, now.owner))
        return _assign(view, tried, f"{now.owner} could not start it ({report.because}); it goes on at {back}")
    why = f"{now.owner} cannot start it: {report.because}"
    return Hold(vserver.name, why, f"mend it, then: failover start {vserver.name}; or {_way_out(view, vserver, now)}")


def _leave(view: View, vserver: Vserver, now: Assignment, why: str) -> Change | Hold:
    judged = [judge_move(view, vserver, now, host) for host in vserver.hosts if host != now.owner]
    chosen = next((verdict.host for verdict in judged if verdict.may), None)
    if chosen is None:
        reasons = "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged) or "it has no backup"
        return Hold(vserver.name, f"{why}, but it must stay there: {reasons}", "add or repair a backup")
    return _assign(view, replace(now, target=chosen), f"{why}; it moves to {chosen}")


# --- verdicts ---------------------------------------------------------------------------------------------------------


def verdicts(view: View, vserver: Vserver, accepted: MoveWish | None = None) -> tuple[Verdict, ...]:
    """Whether each of its hosts could take it over now, in the order of preference."""
    return tuple(judge(view, vserver, host, accepted) for host in vserver.hosts)


def judge(view: View, vserver: Vserver, host: str, accepted: MoveWish | None = None) -> Verdict:
    """Whether `host` could start its replica now. `accepted`: the age of one target's replica is accepted."""
    now = view.assignments.get(vserver.name)
    hopeless = _unfit(view, vserver, host)
    if hopeless:
        return Verdict(host, False, hopeless)
    if now is not None and now.owner == host:
        return Verdict(host, True, "owns it")
    accepts = accepted is not None and accepted.target == host and accepted.accept_loss
    replica = view.reports[host].replicas.get(vserver.name)
    if replica is None:
        return Verdict(host, False, "has no complete replica")
    if accepts:
        return Verdict(host, True, "was named by an operator who accepts the loss")
    if replica.diverged:
        return Verdict(host, False, "has the tree of a former owner, which does not follow the new one yet")
    age = replica_age(view, vserver, host)
    if age is None:
        return Verdict(host, False, "has a replica, but the last owner never said how old it is")
    if age > vserver.max_data_loss_s:
        limit = f"max_data_loss is {vserver.max_data_loss_s:g} s"
        return Verdict(host, False, f"has a replica that is {age:.0f} s old, and {limit}")
    return Verdict(host, True, f"has a complete replica, generation {replica.generation}, {age:.1f} s old")


def judge_move(view: View, vserver: Vserver, now: Assignment, host: str) -> Verdict:
    """Whether the owner may hand it over to `host`: all is shipped before it starts there, so no age matters."""
    hopeless = _unfit(view, vserver, host) or ("failed to take it before" if host in now.failed_on else "")
    return Verdict(host, not hopeless, hopeless or "may take it")


def _unfit(view: View, vserver: Vserver, host: str) -> str:
    """Why a host may not run it, whatever its replica is like; empty when there is nothing."""
    if host not in vserver.hosts:
        return "is neither its primary nor one of its backups"
    if not alive(view, host):
        return "is lost" if host in view.leases else "has never joined"
    if host not in view.reports:
        return "has not reported yet"
    if _drained(view, host):
        reason = view.intents.hosts[host].reason
        return f"is drained ({reason})" if reason else "is drained"
    return ""


def replica_age(view: View, vserver: Vserver, host: str) -> float | None:
    """Seconds between the last moment at which the replica was known to be complete and now, or the end of the
    owner's lease if that is lost. None: unknown. Both ends are on the store's clock or on one host's own clock."""
    now = view.assignments.get(vserver.name)
    report = view.reports.get(now.owner) if now else None
    known = report.vservers.get(vserver.name) if report else None
    shipment = known.shipments.get(host) if known else None
    if now is None or report is None or shipment is None or not shipment.generation:
        return None
    lease = view.leases.get(now.owner)
    end = view.now
    if lease is not None and not lease.alive:
        end = lease.store_at + PROFILES[view.cluster.timing].lease_s
    return shipment.age_s + max(0.0, end - report.store_at)


# --- small words ------------------------------------------------------------------------------------------------------


def alive(view: View, host: str) -> bool:
    lease = view.leases.get(host)
    return lease is not None and lease.alive


def own_report(view: View, now: Assignment) -> VserverReport | None:
    """What the owner says, once it has obeyed the present epoch."""
    report = _reported(view, now.owner, now.vserver)
    return report if report is not None and report.epoch == now.epoch else None


def _reported(view: View, host: str, vserver: str) -> VserverReport | None:
    report: Report | None = view.reports.get(host)
    return report.vservers.get(vserver) if report else None


def _drained(view: View, host: str) -> bool:
    intent = view.intents.hosts.get(host)
    return intent is not None and intent.drained


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)


def _verdict_of(judged: tuple[Verdict, ...], host: str) -> Verdict:
    return next(verdict for verdict in judged if verdict.host == host)


def _way_out(view: View, vserver: Vserver, now: Assignment) -> str:
    """The command that helps when the manager may not decide by itself."""
    stale = [
        host
        for host in vserver.hosts
        if host != now.owner
        and alive(view, host)
        and host in view.reports
        and vserver.name in view.reports[host].replicas
    ]
    if stale:
        return f"start an old replica all the same: failover start {vserver.name} --on {stale[0]} --accept-loss"
    return f"bring {now.owner} back"


def _give(view: View, now: Assignment, host: str, kind: Kind, because: str, *, accept_loss: bool = False) -> Change:
    """`host` becomes the owner. From an owner whose session is gone only while its lease record stays what it is."""
    new = replace(
        now,
        owner=host,
        target=None,
        unshipped=False,
        kind=kind,
        source=now.owner,
        accept_loss=accept_loss,
        owned_at=view.now,
    )
    lease = view.leases.get(now.owner)
    gone = ((now.owner, lease.version),) if lease is not None and not lease.alive else ()
    return replace(_assign(view, new, because), leases=gone)


def _assign(view: View, new: Assignment, because: str) -> Change:
    decided = replace(new, epoch=new.epoch + 1, because=because, at=view.now)
    event = Event(_kind_of(view, decided), view.now, because, decided.vserver, decided.owner, decided.epoch)
    return Change(assignments=(decided,), events=(event,))


def _kind_of(view: View, new: Assignment) -> str:
    old = view.assignments.get(new.vserver)
    if old is None or old.owner != new.owner:
        return str(new.kind)
    if new.target is not None:
        return "moving"
    if old.source is not None and new.source is None:
        return "arrived"
    return str(new.want) if old.want is not new.want else "stays"
