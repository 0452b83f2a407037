"""Commands about the cluster: disarm, arm, apply."""

from __future__ import annotations

from dataclasses import replace

from failover.errors import Refused
from failover.model import Assignment, Cluster, State, View, VserverIntent, frozen_map
from failover.orders.order import Order
from failover.plan import alive, intent_of, is_drained


def disarm(view: View, *, reason: str = "") -> Order:
    """Stop all the manager's own starts, stops and moves."""
    before = view.intents.cluster
    if before.disarmed and reason in ("", before.reason):
        return Order(notice="the cluster is disarmed already")
    asked = {name: _forget for name, intent in view.intents.vservers.items() if intent.move or intent.restart_epoch}
    return Order(
        frozen_map(asked),
        cluster=lambda old: replace(old, disarmed=True, reason=reason),
        notice="the manager starts, stops and moves nothing by itself until: failover arm",
    )


def _forget(intent: VserverIntent) -> VserverIntent:
    """What was to be done once and is not answered yet must not be done when the cluster is armed again."""
    return replace(intent, move=None, restart_epoch=0)


def arm(view: View) -> Order:
    if not view.intents.cluster.disarmed:
        return Order(notice="the cluster is armed already")
    return Order(
        cluster=lambda old: replace(old, disarmed=False, reason=""),
        notice="the manager starts, stops and moves vservers again",
    )


def refuse_losses(view: View, new: Cluster) -> None:
    """What still owns or runs something is not taken away by a file: the command that must come first is named."""
    managed = [word for _, word in sorted(view.assignments.items()) if not intent_of(view, word.vserver).removed]
    reasons = [reason for word in managed if (reason := _loses_vserver(view, new, word))]
    reasons += [reason for host in view.cluster.hosts if host not in new.hosts and (reason := _loses_host(view, host))]
    if reasons:
        raise Refused(f"this file takes away what is still in use: {'; '.join(reasons)}")


def _loses_vserver(view: View, new: Cluster, word: Assignment) -> str:
    name, kept = word.vserver, new.vservers.get(word.vserver)
    if kept is None:
        on = [host for host in view.reports if _runs_on(view, host, name)]
        return f"{name} runs on {' and '.join(on)} (first: failover remove {name})" if on else ""
    if word.target is not None and word.target not in kept.hosts:
        return f"{name} is being moved to {word.target} right now (wait until it is there)"
    if word.owner in kept.hosts or word.owner not in new.hosts:
        return ""  # or its host is named below
    first = f"failover move {name} {kept.primary}" if alive(view, word.owner) else f"failover takeover {word.owner}"
    return f"{name} is owned by {word.owner} (first: {first})"


def _loses_host(view: View, host: str) -> str:
    declared = [vserver for vserver in view.cluster.vservers.values() if not intent_of(view, vserver.name).removed]
    first = f"failover drain {host}"
    owns = [word.vserver for word in view.assignments.values() if word.owner == host]
    owns = sorted(vserver.name for vserver in declared if vserver.name in owns or _runs_on(view, host, vserver.name))
    if owns:
        return f"{host} owns {' and '.join(owns)} (first: {first})"
    may = sorted(vserver.name for vserver in declared if host in vserver.hosts)
    if may and alive(view, host) and not is_drained(view, host):
        return f"{host} may run {' and '.join(may)} (first: {first})"
    return ""


def _runs_on(view: View, host: str, name: str) -> bool:
    report = view.reports.get(host)
    seen = report.vservers.get(name) if report else None
    return seen is not None and seen.state in (State.RUNNING, State.FROZEN)


def restore(view: View, new: Cluster) -> Order:
    """What was removed and is in the file that was applied is managed again, as the file says."""

    def change(intent: VserverIntent) -> VserverIntent:
        return replace(intent, removed=False, want=None) if intent.removed else intent

    back = [name for name in new.vservers if intent_of(view, name).removed]
    said = f"managed again: {', '.join(sorted(back))}" if back else ""
    return Order(frozen_map(dict.fromkeys(back, change)), notice=said)
