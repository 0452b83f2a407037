"""What do the hosts' leases rest on, as their records in ZooKeeper say? Asked every 100 ms from the client host.

    granted    its session is there, and its record says that its right rests on the grants of the leader
    unknown    ZooKeeper has not answered

Moments are CLOCK_MONOTONIC, each of the beginning of the question.
"""

from __future__ import annotations

import select
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover.errors import FailoverError
from failover.lab.lab import Lab
from failover.lab.network import STORE_PORT
from failover.lab.observer import Observer, say
from failover.lab.place import CLIENT, ETC
from failover.model import Lease

PERIOD_S = 0.1
_SECRET = "zookeeper.secret"


@dataclass(frozen=True)
class Rest:
    """From `at` until the next one. `granted`: hosts; None when it is unknown."""

    at: float
    granted: frozenset[str] | None
    said: frozenset[str] = frozenset()  # hosts whose records say so, with a session or without


class Rests(Observer):
    """`seen`: only changes, in the order of time."""

    def __init__(self, lab: Lab, cluster: str) -> None:
        servers = [f"{lab.host(name).addresses[0].partition('/')[0]}:{STORE_PORT}" for name in lab.servers]
        etc = lab.place.host(CLIENT) / "etc"
        shutil.copy(lab.place.host(lab.real_hosts[0]) / "etc" / _SECRET, etc / _SECRET)
        words = [sys.executable, "-m", "failover.lab.rests", cluster, *servers]
        super().__init__(lab.host(CLIENT).command(words))
        self.seen: list[Rest] = []

    def see(self, said: dict[str, Any]) -> None:
        granted = None if said["granted"] is None else frozenset(said["granted"])
        self.seen.append(Rest(said["at"], granted, frozenset(said["said"])))

    def all_seen(self) -> list[Rest]:
        with self.watching():
            return list(self.seen)

    @property
    def now(self) -> frozenset[str]:
        """Hosts that rest on grants, as far as it is known."""
        seen = self.all_seen()
        return (seen[-1].granted if seen else None) or frozenset()


def resting_s(seen: Sequence[Rest], hosts: Collection[str], began: float, ended: float) -> dict[str, float]:
    """For how much of this time each host is known to have rested on grants."""
    spans = [(max(one.at, began), min(until, ended), one) for one, until in _spans(seen, ended)]
    return {
        host: sum(until - since for since, until, one in spans if until > since and host in (one.granted or ()))
        for host in hosts
    }


def was_granted(seen: Sequence[Rest], host: str, moment: float) -> bool:
    """Whether the newest record of a host before a moment said that it rests on grants, whether it lived or not."""
    known = [one for one in seen if one.at < moment and one.granted is not None]
    return bool(known) and host in known[-1].said


def _spans(seen: Sequence[Rest], ended: float) -> Iterable[tuple[Rest, float]]:
    return zip(seen, [*(one.at for one in seen[1:]), ended], strict=False)


# --- the process in the client host


def _observe(cluster: str, servers: Sequence[str]) -> None:
    from failover.zookeeper import ZooKeeperStore, read_credentials

    store = ZooKeeperStore(cluster, servers, read_credentials(Path(ETC) / _SECRET), role="operator")
    say({})
    last: dict[str, Any] = {}
    while not select.select([sys.stdin], [], [], PERIOD_S)[0]:
        at = time.monotonic()
        try:
            seen = _said(store.view().leases.values())
        except FailoverError:
            seen = {"granted": None, "said": []}
        if seen != last:
            say({"at": at, **seen})
        last = seen
    store.close()


def _said(leases: Iterable[Lease]) -> dict[str, Any]:
    resting = [lease for lease in leases if lease.granted]
    return {"granted": sorted(one.host for one in resting if one.alive), "said": sorted(one.host for one in resting)}


if __name__ == "__main__":
    _observe(sys.argv[1], sys.argv[2:])
