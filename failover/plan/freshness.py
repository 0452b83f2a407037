"""How old a replica is, and which one is started when all are too old.

    by the owner's word        it says when the tree was last known to be like it; that is the newest it can know
    by the backup's own word   it heard when the last round that it has whole began: also while the owner cannot report

Rule 1: both are proofs, so the smaller age counts. What nobody has said is unknown, never young.
Rule 2: an owner that is lost may have written until its lease ended, and as long as all others of its word promised
        that it may run. A right that has ended does not come back (docs/safety.md, 10): so a report that one of them
        made after the lease, naming no promise that still ran, proves its end. Without any it is unknown: until now.
Rule 3: `final` is believed of an owner that cannot have started it since.
"""

from __future__ import annotations

import math

from failover.model import Assignment, Vserver, VserverReport, Want
from failover.plan.board import Board, alive, fenced, has_begun, has_obeyed, may_follow, reported, terms


def age_of(board: Board, vserver: Vserver, host: str) -> float | None:
    """Seconds between the last moment at which the replica was known to be complete and now, or the last moment at
    which a lost owner may have written. None: unknown. Both ends are on the store's clock or on one host's own clock.
    """
    word = board.view.assignments.get(vserver.name)
    if word is None:
        return None
    proofs = (_by_owner(board, word, host), _by_backup(board, word, host))
    return min((age_s for age_s in proofs if age_s is not None), default=None)


def _by_owner(board: Board, word: Assignment, host: str) -> float | None:
    """An owner that never started it has shipped nothing: what counts is what the owner before it shipped, and if it is
    lost, how long it may have run it unseen."""
    if has_begun(board.view, word) or word.source is None:
        return _shipped(board, word, host, word.owner)
    unseen_s = 0.0 if _has_not_begun(board, word) else max(0.0, _end(board, word, word.owner) - word.owned_at)
    before_s = 0.0 if host == word.source else _shipped(board, word, host, word.source)
    return None if before_s is None else before_s + unseen_s


def _has_not_begun(board: Board, word: Assignment) -> bool:
    """The owner says so."""
    return alive(board.view, word.owner) and has_obeyed(board.view, word)


def _by_backup(board: Board, word: Assignment, host: str) -> float | None:
    report = board.view.reports.get(host)
    replica = report.replicas.get(word.vserver) if report else None
    if report is None or replica is None or replica.diverged or replica.age_s is None:
        return None
    end = _end(board, word, word.owner)
    if not has_begun(board.view, word) and word.source is not None:
        before = _end(board, word, word.source)
        end = before if _has_not_begun(board, word) else max(before, end)
    return max(0.0, end - (report.store_at - replica.age_s))


def _shipped(board: Board, word: Assignment, host: str, owner: str) -> float | None:
    """How old the replica is by the word of the one that shipped it."""
    known = reported(board.view, owner, word.vserver)
    shipment = known.shipments.get(host) if known else None
    if known is None or shipment is None or not shipment.generation:
        return None
    end = _end(board, word, owner)
    if shipment.final and _stayed_down(board, word, owner, known, end):
        return 0.0
    since_s = max(0.0, end - board.view.reports[owner].store_at)
    return since_s if shipment.final else shipment.age_s + since_s


def _stayed_down(board: Board, word: Assignment, owner: str, known: VserverReport, end: float) -> bool:
    """Whether it cannot have started since it said that it had stopped: it has no newer word than the one it spoke of,
    and that has it stopped or handed over; or (its host was being shut down) it has not run after its lease."""
    if known.epoch < (word.epoch if owner == word.owner else word.owner_epoch - 1):
        return False
    goes = word.target is not None or word.want is not Want.STARTED
    if known.handed is not None or (owner == word.owner and goes) or alive(board.view, owner):
        return True
    return end <= _lease_end(board, owner)


# --- until when an owner may have written -----------------------------------------------------------------------------


def _lease_end(board: Board, owner: str) -> float:
    lease = board.view.leases[owner]
    return lease.store_at + (0.0 if lease.granted else terms(board.view, owner).lease_s)


def _end(board: Board, word: Assignment, owner: str) -> float:
    """Until when it may have written. In the future when promises to it still run."""
    if owner not in board.view.leases or alive(board.view, owner):
        return board.now
    lease_end = _lease_end(board, owner)
    if fenced(board.view, owner):
        return min(board.view.memory.fencings[owner].ended_at, _right_end(board, word, owner, lease_end))
    return _right_end(board, word, owner, lease_end)


def _right_end(board: Board, word: Assignment, owner: str, lease_end: float) -> float:
    if not word.hosts:
        return lease_end  # by a word of an older failover nothing runs on by promises
    ends = (_promised_until(board, word, host, lease_end) for host in _asked(board, word, owner) if host != owner)
    return max(lease_end, min(ends, default=board.now))


def _asked(board: Board, word: Assignment, owner: str) -> tuple[str, ...]:
    """Whose promises it needs, whichever of the words it goes by that it may have heard."""
    if owner == word.owner:
        return may_follow(board.view, word)
    return tuple(host for host in word.hosts if not word.known_hosts or host in word.known_hosts)


def _promised_until(board: Board, word: Assignment, host: str, lease_end: float) -> float:
    """Until when the owner may have run by the promises of this host."""
    report = board.view.reports.get(host)
    heard_at = lease_end + terms(board.view, host).renew_s  # a report may be so long on its way
    if report is None or report.promised is None or report.store_at < heard_at:
        return board.now
    bond = report.promised.get(word.vserver)
    if bond is None:
        return lease_end
    until = report.store_at - bond.ended_s
    return until if bond.ended_s >= 0.0 else max(board.now, until)


def freshest_first(board: Board, vserver: Vserver, host: str) -> tuple[float, int]:
    """The newest replica first; of those whose age nobody knows, the one with the highest generation."""
    age = age_of(board, vserver, host)
    report = board.view.reports.get(host)
    replica = report.replicas.get(vserver.name) if report else None
    return math.inf if age is None else age, -(replica.generation if replica else 0)
