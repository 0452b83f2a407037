"""Writes to znodes as data; several of them make a transaction, all of it or nothing. Paths are relative to
/failover/NAME. Both stores perform the same writes, so what a commit checks stands here once."""

from __future__ import annotations

from dataclasses import dataclass

from failover import wire
from failover.errors import BadInput, Refused
from failover.model import Cluster
from failover.store import Change

RECORD_MAX = 1_000_000  # bytes; ZooKeeper takes 1 MiB per request


@dataclass(frozen=True)
class Create:
    path: str
    data: bytes = b""
    ephemeral: bool = False
    sequence: bool = False


@dataclass(frozen=True)
class Set:
    path: str
    data: bytes
    version: int = -1  # whatever it is


@dataclass(frozen=True)
class Delete:
    path: str
    version: int = -1


@dataclass(frozen=True)
class Check:
    path: str
    version: int


Write = Create | Set | Delete | Check


def commit(change: Change, epoch: int) -> tuple[Write, ...]:
    """One decision of the leader of this epoch.

    An assignment's znode is written once per epoch and by nothing else, so its version is its epoch - 1.
    """
    writes: list[Write] = [Check("leader/epoch", epoch)]
    for word in change.assignments:
        path, data = f"assignments/{word.vserver}", wire.encode(word)
        writes.append(Create(path, data) if word.epoch == 1 else Set(path, data, word.epoch - 2))
    for host, version in change.leases:
        # A transaction has no "does not exist"; but creating what exists fails, and with it all the rest.
        alive = f"alive/{host}"
        writes += [Check(f"leases/{host}", version), Create(alive), Delete(alive)]
    writes += [Check(f"leases/{host}", version) for host, version in change.vouched]
    # Another version: what the host is granted from now on, and by whomever, is upon having read what happened.
    writes += [
        Set(f"taken/{host}", b"") for host in dict.fromkeys(host for host, _ in (*change.leases, *change.vouched))
    ]
    writes += [Create("history/n", wire.encode(event), sequence=True) for event in change.events]
    return tuple(writes)


def apply(cluster: Cluster, text: str, version: int | None) -> Write:
    """A new cluster.yaml, over the one that it was judged against. Raises BadInput when it is too large."""
    data = wire.encode(wire.Applied(cluster, text))
    if len(data) > RECORD_MAX:
        raise BadInput(f"cluster.yaml is too large for ZooKeeper ({len(data)} bytes, {RECORD_MAX} are the limit)")
    return Set("cluster", data, -1 if version is None else version)


def overtaken() -> Refused:
    return Refused("another cluster.yaml was applied meanwhile", hint="see that yours has its changes, and apply again")


def claim(host: str, session: int, lease_version: int | None, holder: int | None) -> tuple[Write, ...]:
    """An agent's lease in a new connection. `lease_version`: None if there is no record; `holder`: the session whose
    `alive` is there. `alive` is only ever made together with a new version of the lease."""
    path, data, alive = f"leases/{host}", wire.encode(wire.LeaseRecord(session)), f"alive/{host}"
    lease: Write = Create(path, data) if lease_version is None else Set(path, data, lease_version)
    if holder == session:
        return (lease,)
    stale = () if holder is None else (Delete(alive),)
    return (lease, *stale, Create(alive, ephemeral=True))


def stand(name: str, epoch: int) -> tuple[Write, ...]:
    """To become the leader: the epoch goes up together with the new holder."""
    return (
        Create("leader/holder", wire.encode(wire.Holder(name)), ephemeral=True),
        Set("leader/epoch", b"", epoch),
    )


def step_down(epoch: int) -> tuple[Write, ...]:
    """To lead no more, while the session lives."""
    return Check("leader/epoch", epoch), Delete("leader/holder", 0)


def proof(epoch: int) -> tuple[Write, ...]:
    """The leader of this epoch still leads: nobody stood after it, and its holder, which nobody rewrites, is there."""
    return Check("leader/epoch", epoch), Check("leader/holder", 0), Set("pulse", b"")
