"""An operator's connection to the store, from the local cluster.yaml."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from failover.errors import BadInput, Refused
from failover.model import Assignment, View, Vserver

if TYPE_CHECKING:
    from failover.zookeeper import ZooKeeperStore


@contextmanager
def connected(options: Namespace) -> Iterator[ZooKeeperStore]:
    from failover.config import load
    from failover.timing import PROFILES
    from failover.zookeeper import connect, read_credentials

    declared = load(options.config)
    credentials = read_credentials(Path(declared.zookeeper.credentials))
    store = connect(
        declared.name,
        declared.zookeeper.servers,
        credentials,
        timing=PROFILES[declared.timing],
        credentials_path=declared.zookeeper.credentials,
    )
    try:
        yield store
    finally:
        store.close()


def vserver_of(view: View, name: str) -> Vserver:
    if name not in view.cluster.vservers:
        raise BadInput(f"there is no vserver {name}", hint=_nearest(name, view.cluster.vservers))
    return view.cluster.vservers[name]


def host_of(view: View, name: str) -> str:
    if name not in view.cluster.hosts:
        raise BadInput(f"there is no host {name}", hint=_nearest(name, view.cluster.hosts))
    return name


def assignment_of(view: View, name: str) -> Assignment:
    vserver_of(view, name)
    if name not in view.assignments:
        hold = next((hold for hold in view.holds if hold.subject == name), None)
        raise Refused(
            f"{name} has no owner yet" + (f": {hold.because}" if hold else ""), hint=hold.hint if hold else ""
        )
    return view.assignments[name]


def led(view: View) -> None:
    """Whoever wishes something needs a leader that obeys; a wish must not wait for one in secret."""
    if view.leader is None:
        raise Refused(
            "no host leads the cluster now, so nobody would obey", hint="is failover-leader running anywhere?"
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    from failover.config.problem import nearest

    return nearest(name, sorted(known))
