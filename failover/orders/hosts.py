"""Commands about a host: takeover, drain, undrain, fence (by an operator's word), cut (by its device).

Rule: an operator may vouch that a host is off; a host that renews its lease after that makes the word void.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from failover.errors import BadInput, Refused, Unsafe
from failover.model import Assignment, CutWish, HostIntent, MoveWish, Stale, Verdict, View, frozen_map
from failover.orders.order import (
    Awaited,
    Order,
    counted,
    host_of,
    moving,
    must_be_obeyed,
    owned_by,
    pending,
    taken,
)
from failover.plan import alive, fenced, is_drained, judge, judge_move, without
from failover.plan.fencing import takes_part


def takeover(view: View, host: str, *, confirmed_off: bool = False) -> Order:
    """Everything away from `host`: handed over while it takes part, else once its lease has provably ended, or at once
    when an operator vouches that it is off."""
    must_be_obeyed(view)
    owned = owned_by(view, host_of(view, host))
    awaited = tuple(Awaited(word.vserver, word.epoch, lambda word: word.owner != host) for word in owned)
    fenced = Order()
    if confirmed_off:
        fenced, view = fence(view, host), without(view, (host,))
    elif not owned:
        return Order(notice=f"{host} owns nothing")
    going = [word for word in owned if word.target is None and pending(view, word) is None]
    if alive(view, host):
        stuck = [f"{word.vserver} has nowhere to go: {why}" for word in going if (why := _stuck(view, word))]
        if stuck:
            raise Refused("; ".join(stuck), hint="add or repair a backup, or move the others one by one")
    else:
        going = [word for word in going if not _stuck(view, word)]
        if not confirmed_off and all(_stuck(view, word) for word in owned):
            why = "; ".join(f"{word.vserver}: {_stuck(view, word)}" for word in owned)
            raise Refused(f"{host} is lost, and nobody may take over what it owns: {why}", hint=_way_out(view, owned))
    wishes = {word.vserver: moving(MoveWish(None, word.epoch)) for word in going}
    return replace(fenced, vservers=frozen_map(wishes), awaited=awaited)


def _stuck(view: View, word: Assignment) -> str:
    """Why no host could take it; empty when one can."""
    vserver = view.cluster.vservers[word.vserver]
    taking_part = alive(view, word.owner)
    if not taking_part and vserver.when_stale is Stale.TAKE:
        return ""

    def judged(other: str) -> Verdict:
        return judge_move(view, vserver, word, other) if taking_part else judge(view, vserver, other)

    verdicts = [judged(other) for other in vserver.hosts if other != word.owner]
    if any(verdict.may for verdict in verdicts):
        return ""
    return "; ".join(f"{verdict.host} {verdict.because}" for verdict in verdicts) or "it has no backup"


def _way_out(view: View, owned: Iterable[Assignment]) -> str:
    """The command that starts an old replica, for the first vserver that has one."""
    for word in owned:
        for host in view.cluster.vservers[word.vserver].hosts:
            report = view.reports.get(host)
            if host != word.owner and alive(view, host) and report and word.vserver in report.replicas:
                return f"start an old replica all the same: failover start {word.vserver} --on {host} --accept-loss"
    return "bring it back, or repair a backup"


def drain(view: View, host: str, *, reason: str = "", until_at: float | None = None) -> Order:
    """Move everything off it and keep it free, until `until_at` on the store's clock if that is given."""
    if until_at is not None and until_at <= view.now:
        raise BadInput("this drain would be over already", hint="name an end in the future")
    drained = is_drained(view, host_of(view, host))
    before = view.intents.hosts[host] if drained else HostIntent()
    because = reason or before.reason
    if drained and (because, until_at) == (before.reason, before.until_at):
        return Order(notice=f"{host} is drained already")
    owned = owned_by(view, host)
    leaving = owned if alive(view, host) else []  # what a lost host owns is taken over or waits, drained or not
    awaited = tuple(Awaited(word.vserver, word.epoch, lambda word: word.owner != host) for word in leaving)
    wish = frozen_map({host: lambda old: replace(old, drained=True, reason=because, until_at=until_at)})
    return taken(
        view, Order(hosts=wish, notice=f"{host} is drained; it owns {counted(len(owned), 'vserver')}", awaited=awaited)
    )


def undrain(view: View, host: str) -> Order:
    """Let it run vservers again."""
    if not is_drained(view, host_of(view, host)):
        return Order(notice=f"{host} is not drained")
    homeward = sorted(
        word.vserver
        for word in view.assignments.values()
        if (vserver := view.cluster.vservers.get(word.vserver)) is not None
        and vserver.primary == host != word.owner
        and vserver.failback_s is not None
        and not word.pinned
    )
    returns = f"what returns by itself: {', '.join(homeward)}" if homeward else "nothing moves back by itself"
    wish = frozen_map({host: lambda old: replace(old, drained=False, reason="", until_at=None)})
    return taken(view, Order(hosts=wish, notice=f"{host} may run vservers again; {returns}"))


def fence(view: View, host: str) -> Order:
    """An operator vouches that it is off: it counts as lost from its second missed renewal, until it renews."""
    lease = view.leases.get(host_of(view, host))
    if lease is None:
        raise Refused(f"{host} has never joined: there is nothing to vouch for")
    if view.intents.hosts.get(host, HostIntent()).vouched == lease.version:
        return Order(notice=f"{host} counts as off already")
    wish = frozen_map({host: lambda old: replace(old, vouched=lease.version)})
    notice = f"{host} counts as off once it has missed two renewals; if it renews, this word is void"
    return taken(view, Order(hosts=wish, notice=notice))


def cut(view: View, host: str, *, though_alive: bool = False) -> Order:
    """Have the leader cut its power, once. Not that of a host that takes part, unless that is wanted."""
    fence = view.cluster.hosts[host_of(view, host)].fence
    if fence is None:
        raise Unsafe(
            f"only a person can know that {host} is off: it has no fence in cluster.yaml",
            hint=f"when you have seen that it is: failover fence {host} --confirmed",
        )
    must_be_obeyed(view)
    lease = view.leases.get(host)
    if lease is None:
        raise Refused(f"{host} has never joined: nothing waits for it")
    if view.leader == host:
        raise Refused(
            f"{host} leads the cluster, and could not see how it ends", hint="stop failover-leader there first"
        )
    if fenced(view, host):
        return Order(notice=f"{host} is off already, says {fence.agent}")
    if takes_part(view, host) and not though_alive:
        raise Unsafe(
            f"{host} is up: it renewed its lease {max(0.0, view.now - lease.store_at):.1f} s ago",
            hint=f"first: failover drain {host}; or cut its power all the same: failover fence {host} --though-alive",
        )
    wish = frozen_map({host: lambda old: replace(old, cut=CutWish(view.now, though_alive))})
    return Order(hosts=wish, notice=f"{fence.agent} is to cut the power of {host}")
