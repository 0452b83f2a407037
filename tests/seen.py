"""What alpha is told and sees of v1 in the tables of the agent's policy: a healthy one, and what differs from it."""

from __future__ import annotations

from dataclasses import replace

from agents.steps import Failure, SeenVserver, Shipped, Tree
from failover.model import Assignment, Replica, Restart, Shutdown, State, Told, Vserver
from tests.views import V1, cluster, owned

NOW = 500.0
LEASED = NOW + 1.0
OVER = NOW

RUNS = SeenVserver(State.RUNNING, Tree.LIVE)
RESTS = SeenVserver(State.STOPPED, Tree.LIVE)
FROZEN = SeenVserver(State.FROZEN, Tree.LIVE)
COPY = SeenVserver(State.STOPPED, Tree.REPLICA, replica=Replica(12, 7))
MOVING = owned(target="beta")
NEVER = replace(V1, sync=replace(V1.sync, every_s=1e9))
KEEP = replace(NEVER, on_host_shutdown=Shutdown.KEEP)
STRICT = replace(NEVER, restart=Restart(local=0))
BETAS = owned(owner="beta", epoch=8)


def told(word: Assignment | None, host: str = "alpha", vserver: Vserver = NEVER, *, disarmed: bool = False) -> Told:
    return Told(host, cluster(vserver), {"v1": word} if word else {}, disarmed=disarmed)


def shipped(**changes: object) -> dict[str, Shipped]:
    last = replace(Shipped(12, 7, NOW - 1, tried_at=NOW - 1), **changes)  # type: ignore[arg-type]
    return {"beta": last, "gamma": replace(last, final=False)}


def failures(*ages: float, epoch: int = 7) -> tuple[Failure, ...]:
    """So many seconds ago, the newest last."""
    return tuple(Failure(epoch, NOW - age, "its init died") for age in ages)


SHIPPED = shipped()
CRASHED = replace(RESTS, shipped=SHIPPED)
ILL = replace(RUNS, shipped=SHIPPED, failing="tcp 80 does not answer (3 times)")
BY_HAND = replace(RUNS, by_hand=True, by_hand_epoch=8)
