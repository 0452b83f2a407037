"""Whether a host may run a vserver, with one line that says why not. Every candidate gets a verdict."""

from __future__ import annotations

from failover.model import Assignment, MoveWish, Verdict, Vserver, Want
from failover.plan.board import Board, alive, fenced, may_follow, own_report, promises_end, promises_ended, wanted
from failover.plan.freshness import age_of
from failover.plan.patience import unreached, why_unreached

_GIB = 2**30


def unfit(board: Board, vserver: Vserver, host: str) -> str:
    """Why a host may not run it, whatever its replica is like; empty when there is nothing."""
    view = board.view
    if host not in vserver.hosts:
        return "is neither its primary nor one of its backups"
    if not alive(view, host):
        return "is lost" if host in view.leases else "has never joined"
    if host not in view.reports:
        return "has not reported yet"
    if board.drained(host):
        reason = view.intents.hosts[host].reason
        return f"is drained ({reason})" if reason else "is drained"
    if board.leaving(host):
        return "is being shut down"
    return _no_room(board, vserver, host) or broken_rule(board, vserver, host)


def broken_rule(board: Board, vserver: Vserver, host: str) -> str:
    """Which hard rule would be broken there, by the other's name; empty when none is."""
    if not board.apart and not board.mates:
        return ""
    for other in sorted(board.apart.get(vserver.name, ())):
        if board.wanted(other) and board.place(other) == host:
            return f"runs {other}, which must be apart from it"
    for other in board.mates.get(vserver.name, ()):
        if not board.wanted(other):
            continue
        if host not in board.view.cluster.vservers[other].hosts:
            return f"may not run {other}, which must be together with it"
        place = board.place(other)
        if place is not None and place != host and other not in board.moving_along:
            return f"does not run {other}, which must be together with it and is on {place}"
    return ""


def _no_room(board: Board, vserver: Vserver, host: str) -> str:
    """Room for it, and for those that must come along and are not there yet."""
    memory, cpus = vserver.needs.memory_bytes, vserver.needs.cpus
    word = board.words.get(vserver.name)
    if word is not None and host in (word.owner, word.target):
        return ""
    for other in board.mates.get(vserver.name, ()):
        if board.wanted(other) and board.place(other) != host:
            needs = board.view.cluster.vservers[other].needs
            memory, cpus = memory + needs.memory_bytes, cpus + needs.cpus
    if memory and memory > board.free_memory(host):
        free = max(0.0, board.free_memory(host))
        return f"has {free / _GIB:.1f}G of memory free, and it needs {memory / _GIB:.1f}G"
    if cpus and cpus > board.free_cpus(host):
        return f"has {max(0.0, board.free_cpus(host)):g} processors free, and it needs {cpus:g}"
    return ""


def judge(board: Board, vserver: Vserver, host: str, accepted: MoveWish | None = None) -> Verdict:
    """Whether `host` could start its replica now. `accepted`: the age of one target's replica is accepted."""
    word = board.words.get(vserver.name)
    hopeless = unfit(board, vserver, host)
    if hopeless:
        return Verdict(host, False, hopeless)
    if word is not None and word.owner == host:
        return Verdict(host, True, "owns it")
    if word is not None and (unknown := cannot_follow(board, word, host)):
        return Verdict(host, False, unknown)
    replica = board.view.reports[host].replicas.get(vserver.name)
    if replica is None:
        return Verdict(host, False, "has no complete replica")
    if accepted is not None and accepted.target == host and accepted.accept_loss:
        return Verdict(host, True, "was named by an operator who accepts the loss")
    if replica.diverged:
        return Verdict(host, False, "has the tree of a former owner, which does not follow the new one yet")
    if word is not None and host in board.kept_off(word):
        return Verdict(host, False, "failed to run it before")
    age = age_of(board, vserver, host)
    if age is None:
        return Verdict(host, False, "has a replica, but the last owner never said how old it is")
    if age > vserver.max_data_loss_s:
        limit = f"max_data_loss is {vserver.max_data_loss_s:g} s"
        return Verdict(host, False, f"has a replica that is {age:.0f} s old, and {limit}")
    return Verdict(host, True, f"has a complete replica, generation {replica.generation}, {age:.1f} s old")


def cannot_follow(board: Board, word: Assignment, host: str) -> str:
    """Why a lost owner may not be followed by `host`: it may run on by promises of others, and never have asked it; or
    it ran before it was the owner, and no lease ends what nobody was told to hold."""
    view, owner = board.view, word.owner
    if alive(view, owner) or promises_ended(view, owner):
        return ""
    if word.unheld and own_report(view, word) is None and not fenced(view, owner):
        board.unproved[word.vserver].add(owner)
        return f"must not start what may still run on {owner}, which was lost before it was told that it owns it"
    known = may_follow(view, word)
    if not known or host in known:
        return ""
    if fenced(view, owner):
        board.later(promises_end(view, owner))
    board.unproved[word.vserver].add(owner)
    return f"was added when {owner} could not be told"


def is_stale(board: Board, vserver: Vserver, host: str) -> bool:
    """Whether only the age of its replica speaks against a host."""
    anyway = MoveWish(host, 0, accept_loss=True)
    word = board.words.get(vserver.name)
    replica = board.view.reports[host].replicas.get(vserver.name) if host in board.view.reports else None
    kept_off = word is not None and host in board.kept_off(word)
    return bool(replica and not replica.diverged and not kept_off and judge(board, vserver, host, anyway).may)


def judge_move(board: Board, vserver: Vserver, word: Assignment, host: str, *, by_itself: bool = False) -> Verdict:
    """Whether the owner may hand it over to `host`: all is shipped before it starts there, so no age matters.
    `by_itself`: the manager's own idea, which is more careful than an operator's."""
    hopeless = unfit(board, vserver, host)
    if not hopeless and by_itself and host in unreached(board, word):
        hopeless = why_unreached(board, word)
    if not hopeless and host in board.kept_off(word):
        hopeless = "failed to run it before"
    if not hopeless and by_itself and board.flapping(host):
        hopeless = "was lost again and again, and has not been up for ten minutes since"
    return Verdict(host, not hopeless, hopeless or "may take it")


def verdicts(board: Board, vserver: Vserver, accepted: MoveWish | None = None) -> tuple[Verdict, ...]:
    """Whether each of its hosts could take it over now, in the order of preference."""
    if wanted(board.view, vserver) is Want.IGNORED:
        return tuple(Verdict(host, False, "it is ignored") for host in vserver.hosts)
    return tuple(judge(board, vserver, host, accepted) for host in vserver.hosts)
