"""The leader's next words: each is the next epoch of a vserver, with its reason and an event for the history."""

from __future__ import annotations

from dataclasses import replace

from failover.model import Assignment, Event, Kind, Want, frozen_map
from failover.plan.board import (
    Board,
    alive,
    fenced,
    has_begun,
    hosts_of,
    may_follow,
    own_report,
    promises_ended,
    vouched,
)
from failover.store import Change


def assign(board: Board, new: Assignment, because: str) -> Change:
    """`new` as the next epoch. Whatever is decided after it in this planning sees it."""
    decided = replace(_knowing(board, new), epoch=new.epoch + 1, because=because, at=board.now)
    facts: dict[str, str | float | int | bool | None] = {"want": str(decided.want)}
    old = board.view.assignments.get(new.vserver)
    if old is not None and old.owner != new.owner:
        facts |= {"from": old.owner, "from_alive": alive(board.view, old.owner)}
    kind = _kind(board, decided)
    event = Event(kind, board.now, because, decided.vserver, decided.owner, decided.epoch, frozen_map(facts))
    board.put(decided)
    return Change(assignments=(decided,), events=(event,))


def _knowing(board: Board, new: Assignment) -> Assignment:
    """With the hosts that may run it now, and those that may follow its owner until it knows them."""
    before, vserver = board.words.get(new.vserver), board.view.cluster.vservers.get(new.vserver)
    if before is None or vserver is None:
        return replace(new, hosts=hosts_of(vserver, new.owner) if vserver else ())
    over = alive(board.view, before.owner) or promises_ended(board.view, before.owner)
    let_go = before.owner != new.owner and over
    return replace(
        new,
        unheld=new.unheld and not (before.unheld and own_report(board.view, before)),
        hosts=hosts_of(vserver, new.owner),
        known_hosts=() if let_go else may_follow(board.view, before),
    )


def stays(board: Board, word: Assignment, because: str) -> Change:
    """Nothing is different but the epoch: an answer."""
    return assign(board, at_home(word), because)


def at_home(word: Assignment) -> Assignment:
    """Not to be handed over; but what may not run where it is stays on its way."""
    return replace(word, target=word.target if word.unstarted else None, unshipped=False, accept_loss=False)


def forgiven(word: Assignment) -> Assignment:
    """Without what it did wrong before."""
    return replace(word, failed_on=(), unreached=(), setbacks=(), setback="", mended=(), failed_at=())


def give(board: Board, word: Assignment, host: str, kind: Kind, because: str, *, accept_loss: bool = False) -> Change:
    """`host` becomes the owner. From an owner that is lost only while its lease record stays what it is, and only while
    its session is gone, unless it is off by the word of an operator or of its device."""
    new = replace(
        word,
        owner=host,
        target=None,
        unshipped=False,
        kind=kind,
        source=word.owner if has_begun(board.view, word) else word.source,
        owner_epoch=word.epoch + 1,
        accept_loss=accept_loss,
        again=False,
        unstarted=False,
        unheld=kind is Kind.ADOPTED,
        pinned=word.pinned and kind is not Kind.TAKEOVER,
        owned_at=board.now,
    )
    if word.again:
        new = replace(new, want=Want.STARTED)
    lease = board.view.leases.get(word.owner)
    gone = ((word.owner, lease.version),) if lease is not None and not alive(board.view, word.owner) else ()
    by_grants = lease is not None and lease.granted
    by_word = by_grants or vouched(board.view, word.owner) or fenced(board.view, word.owner)
    change = assign(board, new, because)
    return replace(change, leases=() if by_word else gone, vouched=gone if by_word else ())


def joined(changes: list[Change]) -> Change:
    """Several changes in one transaction."""
    return Change(
        assignments=tuple(word for change in changes for word in change.assignments),
        leases=tuple(dict.fromkeys(pair for change in changes for pair in change.leases)),
        vouched=tuple(dict.fromkeys(pair for change in changes for pair in change.vouched)),
        events=tuple(event for change in changes for event in change.events),
    )


def _kind(board: Board, new: Assignment) -> str:
    old = board.view.assignments.get(new.vserver)
    if old is None or old.owner != new.owner:
        return str(new.kind)
    if new.target is not None:
        return "moving"
    if old.source is not None and new.source is None:
        return "arrived"
    return str(new.want) if old.want is not new.want else "stays"
