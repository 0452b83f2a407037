"""What the leader must change now: plan(view) -> changes, holds, what to remember, and when to look again. Pure.

    a vserver is …                                     so the leader …                                        see
    ─────────────────────────────────────────────────  ─────────────────────────────────────────────────────  ────────
    not assigned yet                                   gives it to the host that runs it, else to the primary  first
    sent for its first start, in vain                  sends it again; till then nobody starts it             first
    owned by a host that is lost                       gives it to the best backup that may run it             lost
    to be moved, or on a host that is drained or       asks its owner to hand it over, its set along with it   moves
      leaves, or failed too often, or could go home,
      or breaks a rule where it is
    being handed over, and the last changes shipped    gives it to the target                                  moves
    being handed over, and something failed            leaves it where it is                                   moves
    not able to start where it was moved to            gives it back to where it came from                     moves
    running where it was moved to                      forgets the way back: what it writes now is only there  owned
    running where nobody put it                        adopts it, or has it stopped                            found
    owned by a host that is silent and has a device    has the power of that host cut meanwhile                fencing

Rule 1: an owner whose session exists is never taken over; only it can hand over; unless its device or an operator says
        that it is off. A session ends after the host's lease (failover/timing.py), and the lease's version is checked
        again by the commit.
Rule 2: every change is the next epoch of one vserver; it fails whole if the world has moved on, and is decided again.
        What is no longer declared keeps its word, so that its epochs go on if it is declared again.
Rule 3: doing nothing is an answer too, and has a reason (Hold).
Rule 4: who has the higher priority decides first, but never before those that it starts after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from failover.model import Assignment, Hold, Memory, MoveWish, Verdict, View, Vserver
from failover.plan import decide, disarm, fencing, freshness
from failover.plan import verdicts as judging
from failover.plan.board import Board, alive, fenced, intent_of, is_drained, own_report, terms, vouched_from, wanted
from failover.plan.fencing import Cuts
from failover.plan.memory import bereft, declared_lost, remembered
from failover.plan.order import in_order
from failover.plan.standing import better, stands_after_s
from failover.plan.words import forgiven
from failover.store import Change

__all__ = [
    "Plan", "alive", "bereft", "better", "companions", "declared_lost", "fenced", "forgiven", "intent_of",
    "is_drained", "judge", "judge_move", "own_report", "plan", "replica_age", "stands_after_s", "terms", "verdicts",
    "vouched_from", "wanted", "without",
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """`again_s`: the seconds after which something is to be decided though nothing has changed; None: never."""

    changes: tuple[Change, ...]
    holds: tuple[Hold, ...]
    memory: Memory
    again_s: float | None = None
    cuts: Cuts = field(default_factory=Cuts)


def plan(view: View) -> Plan:
    """The changes that the leader must make now, what it holds back and remembers, and when it must look again."""
    board = Board(view)
    for host in view.leases:
        board.later(vouched_from(view, host) or 0.0)
    names = in_order(view.cluster.vservers)
    mode = disarm.mode(view)
    decisions = []
    for name in names:
        if board.words.get(name) is not view.assignments.get(name):
            continue  # it has come along with another
        found = decide.decide(board, view.cluster.vservers[name])
        if found is None and mode is disarm.Mode.DISARMED:
            found = disarm.held(board, name)
        if found is not None:
            decisions.append(found)
    decisions = [disarm.masked(board, mode, found) for found in decisions]
    changes = tuple(found for found in decisions if isinstance(found, Change))
    cuts = fencing.decided(board, decisions, armed=mode is disarm.Mode.ARMED)
    memory = replace(remembered(board), disarmed=disarm.in_force(board, mode, changes), fencings=cuts.fencings)
    return Plan(
        changes=changes,
        holds=(*(found for found in decisions if isinstance(found, Hold)), *cuts.holds),
        memory=memory,
        again_s=None if math.isinf(board.again_at) else max(0.0, board.again_at - view.now),
        cuts=cuts,
    )


def without(view: View, hosts: tuple[str, ...]) -> View:
    """The same cluster, had these hosts just been lost."""
    return replace(
        view,
        leases={name: replace(lease, alive=lease.alive and name not in hosts) for name, lease in view.leases.items()},
    )


# --- what commands ask ------------------------------------------------------------------------------------------------


def verdicts(view: View, vserver: Vserver, accepted: MoveWish | None = None) -> tuple[Verdict, ...]:
    """Whether each of its hosts could take it over now, in the order of preference."""
    return judging.verdicts(Board(view), vserver, accepted)


def judge(view: View, vserver: Vserver, host: str, accepted: MoveWish | None = None) -> Verdict:
    """Whether `host` could start its replica now. `accepted`: the age of one target's replica is accepted."""
    return judging.judge(Board(view), vserver, host, accepted)


def judge_move(view: View, vserver: Vserver, word: Assignment, host: str) -> Verdict:
    """Whether the owner may hand it, and the set that must be together with it, over to `host`."""
    from failover.plan import moves

    return moves.judge_set(Board(view), vserver, word, host)


def companions(view: View, vserver: Vserver, host: str) -> list[Assignment]:
    """The words of those that must be where it is, and come along when it moves to `host`."""
    from failover.plan import moves

    return moves.companions(Board(view), vserver, host)


def replica_age(view: View, vserver: Vserver, host: str) -> float | None:
    """See failover/plan/freshness.py."""
    return freshness.age_of(Board(view), vserver, host)
