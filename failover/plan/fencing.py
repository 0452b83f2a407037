"""Which host's power is cut from outside (failover/fencing), and what is known by that. Pure.

    silent for a lease, or lost and ──▶ UNDER_WAY ──▶ OFF     its device says so: a proof, while its lease record is
    its end is not proved otherwise        │                  what it was before
    an operator's wish                     ├──▶ FAILED        proves nothing; tried again after 5, 10, 20, … 300 s
                                           └──▶ FAILED        given up: it has renewed its lease meanwhile

Rule 1: nothing waits for this. What a lease or an operator proves counts as ever; a success only comes before it.
Rule 2: only what is wanted started and has somewhere to go is worth a power cut, and only a host that has been silent
        for a whole lease: it has frozen by then what it ran. Silence counts only while the leader hears the store, and
        not by the store's clock alone, for that may jump: the lease must also have been the same for two renewals by
        the leader's own.
Rule 3: the leader's own host is not cut: it could not see the end of it. Nor is anything while the cluster is disarmed.
Rule 4: a wish is obeyed once, and soon or never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from failover.model import Cut, CutWish, Event, Fence, Fencing, Hold, Memory, View, Want, frozen_map
from failover.plan.board import MISSED, Board, fenced, off, terms, wanted
from failover.plan.decide import decide
from failover.plan.patience import clock
from failover.store import Change

DEADLINE_S = 50.0  # an attempt that has not ended by then is killed
UNSEEN_S = DEADLINE_S + 10.0  # then its end will never be known: its leader is gone
SHORTEST_S, LONGEST_S = 5.0, 300.0
WISH_S = 30.0
LATE_S = 0.01  # so long after a lease has ended it is certain
CAME_BACK = "it has renewed its lease"


@dataclass(frozen=True)
class Ended:
    """An attempt has ended. `began_at` says which. `because`: why it failed."""

    host: str
    began_at: float
    off: bool
    because: str = ""


@dataclass(frozen=True)
class Cuts:
    """`begin`: whose power is to be cut now, once this is written down; `spare`: whose is not any more."""

    begin: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    fencings: Mapping[str, Fencing] = field(default_factory=frozen_map)
    holds: tuple[Hold, ...] = ()


def device(view: View, host: str) -> Fence | None:
    declared = view.cluster.hosts.get(host)
    return declared.fence if declared else None


def tried_by(fence: Fence | None) -> str:
    return fence.agent if fence else "its fence agent"


# --- what the leader must hear ----------------------------------------------------------------------------------------


def listens_at(view: View) -> float:
    """When the leases must be read again, for somebody may be silent; leases are not watched. Never: infinity."""
    missed_s = MISSED * view.cluster.timing.renew_s
    return min((at + missed_s for at in _watched(view)), default=math.inf)


def listens_again_s(view: View) -> float:
    """After how long it is to be looked again: when a lease is over that was renewed last then, or, once somebody has
    missed renewals, a renewal later."""
    timing = view.cluster.timing
    waits = [
        at + length_s - view.now for at in _watched(view) for length_s in (MISSED * timing.renew_s, timing.lease_s)
    ]
    ahead = [wait_s + LATE_S for wait_s in waits if wait_s > 0]
    return min([*ahead, timing.renew_s] if len(ahead) < len(waits) else ahead, default=math.inf)


def _watched(view: View) -> Iterator[float]:
    """When whose lease counts was last renewed; long ago, where each moment counts: also of who is said to be off, and
    has a session, for it may be back."""
    for host, lease in view.leases.items():
        if not device(view, host):
            continue
        if _asked(view, host) or (lease.alive and fenced(view, host)):
            yield -math.inf
        elif lease.alive and not off(view, host) and _owns(view, host):
            yield lease.store_at


def _asked(view: View, host: str) -> bool:
    last = view.memory.fencings.get(host)
    return wish_for(view, host) is not None or (last is not None and last.state is Cut.UNDER_WAY)


def _owns(view: View, host: str) -> bool:
    return any(word.owner == host and word.want is Want.STARTED for word in view.assignments.values())


def wish_for(view: View, host: str) -> CutWish | None:
    """An operator's wish that has no answer yet."""
    intent, last = view.intents.hosts.get(host), view.memory.fencings.get(host)
    wish = intent.cut if intent else None
    if wish is None or view.now >= wish.at + WISH_S or (last is not None and last.wish_at >= wish.at):
        return None
    return wish


# --- what is to be done -----------------------------------------------------------------------------------------------


def decided(board: Board, decisions: Iterable[Change | Hold], *, armed: bool) -> Cuts:
    """`decisions`: about the vservers, in this planning."""
    view, known = board.view, board.view.memory.fencings
    if not known and not any(host.fence for host in view.cluster.hosts.values()):
        return Cuts()
    held = [found.subject for found in decisions if isinstance(found, Hold)]
    kept, begin, spare, holds = {}, [], [], []
    for host in view.cluster.hosts:
        last = _as_known_now(board, known.get(host))
        now = last
        if last is not None and last.state is Cut.UNDER_WAY:
            spare += [host] if _has_come_back(view, host, last) else []
            now = _answering(view, host, last)
            holds.append(_hold(view, host, last))
        elif armed and device(view, host) and host in view.leases:
            now, hold = _next(board, host, last, held)
            if now is not last and now is not None and now.state is Cut.UNDER_WAY:
                begin.append(host)
                board.later(now.began_at + UNSEEN_S)
            holds += [hold] if hold else []
        if now is not None:
            kept[host] = now
    return Cuts(tuple(begin), tuple(spare), frozen_map(kept), tuple(holds))


def _next(board: Board, host: str, last: Fencing | None, held: Sequence[str]) -> tuple[Fencing | None, Hold | None]:
    view, version = board.view, board.view.leases[host].version
    failures = last.failures if last is not None and last.version == version else 0
    begun = Fencing(version, view.now, failures=failures, wish_at=last.wish_at if last else 0.0)
    if (wish := wish_for(view, host)) is not None:
        begun = replace(begun, wish_at=wish.at, because="an operator says so")
        if refused := _why_not(view, host, wish):
            return replace(begun, state=Cut.FAILED, ended_at=view.now, because=refused), None
        return begun, _hold(view, host, begun)
    if host == view.leader or off(view, host) or not (why := _why(board, host, held)):
        return last, None
    if last is None or not failures or board.now >= (tries_at := _tries_at(last)):
        begun = replace(begun, because=why)
        return begun, _hold(view, host, begun)
    board.later(tries_at)
    failed = f"{tried_by(device(view, host))} could not cut its power ({last.because}), and tries again"
    hint = f"see to the device; or once you have seen that it is off: failover fence {host} --confirmed"
    return last, Hold(host, f"{why}; {failed} at {clock(tries_at)}", hint)


def _hold(view: View, host: str, now: Fencing) -> Hold:
    return Hold(host, f"{now.because}: {tried_by(device(view, host))} is cutting its power")


def _why_not(view: View, host: str, wish: CutWish) -> str:
    if host == view.leader:
        return "it leads the cluster now"
    return CAME_BACK if takes_part(view, host) and not wish.anyway else ""


def takes_part(view: View, host: str) -> bool:
    """It has just renewed its lease, or need not."""
    lease, renew_s = view.leases[host], terms(view, host).renew_s
    return lease.alive and (bool(lease.granted) or view.now < lease.store_at + MISSED * renew_s)


def _why(board: Board, host: str, held: Sequence[str]) -> str:
    """Why its power is to be cut; empty: it is not. It is worth it also when the session is over and something waits
    because it may still run there."""
    view, lease = board.view, board.view.leases[host]
    if any(host in board.unproved.get(name, ()) for name in held):
        return "what waits may still run there"
    timing, silent_s = terms(view, host), view.now - max(lease.store_at, view.watched_at)
    if not lease.alive or lease.granted or silent_s < timing.lease_s:
        return ""
    if view.unchanged_s.get(host, 0.0) < MISSED * timing.renew_s:
        return ""
    return f"it has not renewed its lease since {clock(lease.store_at)}" if _would_move(board, host) else ""


def _would_move(board: Board, host: str) -> bool:
    lost = board.having_lost((host,))
    for name in board.owned_by(host):
        vserver = board.view.cluster.vservers.get(name)
        if vserver is None or wanted(board.view, vserver) is not Want.STARTED or board.words[name].owner != host:
            continue
        found = decide(lost, vserver)
        if isinstance(found, Change) and found.assignments[0].owner != host:
            return True
    return False


def _tries_at(last: Fencing) -> float:
    return last.ended_at + min(LONGEST_S, SHORTEST_S * 2.0 ** (last.failures - 1))


def _as_known_now(board: Board, last: Fencing | None) -> Fencing | None:
    if last is None or last.state is not Cut.UNDER_WAY:
        return last
    unseen_at = last.began_at + UNSEEN_S
    board.later(unseen_at)
    return last if board.now < unseen_at else _failed(last, board.now, "nobody saw how it ended")


def _answering(view: View, host: str, last: Fencing) -> Fencing:
    """A wish for what is being done already is answered by that."""
    wish = wish_for(view, host)
    return replace(last, wish_at=wish.at) if wish else last


def _has_come_back(view: View, host: str, last: Fencing) -> bool:
    """Unless an operator wants it off anyway."""
    lease, intent = view.leases.get(host), view.intents.hosts.get(host)
    anyway = intent is not None and intent.cut is not None and intent.cut.anyway and intent.cut.at == last.wish_at
    return not anyway and lease is not None and lease.version != last.version


def may_begin(view: View, host: str, last: Fencing) -> bool:
    """Whether nothing has happened since it was decided."""
    return last.state is Cut.UNDER_WAY and not _has_come_back(view, host, last)


def _failed(last: Fencing, now: float, because: str) -> Fencing:
    return replace(last, state=Cut.FAILED, ended_at=now, because=because, failures=last.failures + 1)


# --- what has become of it --------------------------------------------------------------------------------------------


def noted(view: View, ended: Iterable[Ended]) -> tuple[Memory, tuple[Event, ...]]:
    """What the leader remembers once attempts have ended, and what it says of them."""
    known, events = dict(view.memory.fencings), []
    for one in ended:
        last = known.get(one.host)
        if last is None or last.state is not Cut.UNDER_WAY or last.began_at != one.began_at:
            continue
        if one.off:
            known[one.host] = replace(last, state=Cut.OFF, ended_at=view.now, because="", failures=0)
        else:
            known[one.host] = _failed(last, view.now, one.because)
        events.append(_event(view, one))
    return replace(view.memory, fencings=frozen_map(known)) if events else view.memory, tuple(events)


def _event(view: View, one: Ended) -> Event:
    agent = tried_by(device(view, one.host))
    facts: dict[str, str | float | int | bool | None] = {"agent": agent, "after_s": view.now - one.began_at}
    if one.off:
        return Event("fenced", view.now, f"{one.host} is off, says {agent}", host=one.host, facts=facts)
    text = f"{agent} could not cut the power of {one.host}: {one.because}"
    return Event("unfenced", view.now, text, host=one.host, facts=facts)


def answer(view: View, host: str, wished_at: float) -> tuple[bool, str] | None:
    """Of an operator's wish: whether the host is off, in words; None: not yet. One that nobody obeys is over."""
    last, agent = view.memory.fencings.get(host), tried_by(device(view, host))
    if last is not None and last.wish_at >= wished_at and last.state is not Cut.UNDER_WAY:
        is_off = last.state is Cut.OFF
        return is_off, f"{host} is off, says {agent}" if is_off else f"{agent} did not cut its power: {last.because}"
    if (last is None or last.wish_at < wished_at) and view.now >= wished_at + WISH_S:
        return False, f"nobody has obeyed within {WISH_S:g} s: does a host lead the cluster, and is it armed?"
    return None


def begun(view: View, host: str, attempt: Fencing) -> Event:
    agent = tried_by(device(view, host))
    text = f"{attempt.because}: {agent} is to cut the power of {host}"
    return Event("fencing", view.now, text, host=host, facts={"agent": agent})


__all__ = [
    "CAME_BACK", "DEADLINE_S", "Cuts", "Ended", "answer", "begun", "decided", "device", "fenced", "listens_again_s",
    "listens_at", "may_begin", "noted", "takes_part", "tried_by", "wish_for",
]  # fmt: skip
