"""Our own cluster in the bench: three hosts with their ZooKeeper, and the vserver v1, which is started anew where it is
taken over. A small web server is all there is in it, as with the peers; or it is a Debian with systemd, where nginx
answers, and PostgreSQL comes up beside it.

    another host leads than has ZooKeeper's leader ─▶ v1 is moved to the host that is to be lost ─▶ all rest on grants
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from failover.lab import drill, parts, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from tests.bench.contender import KINDS, LEADER, PLAIN, ZOOKEEPER, Contender
from tests.bench.table import Row


@contextmanager
def cluster(name: str, timing: str = "fast", *, debian: bool = True) -> Iterator[Lab]:
    """A lab on which v1 is built and wanted started."""
    lab = Lab(name)
    lab.down()
    try:
        with TemporaryDirectory() as directory:
            lab.up(config=sample.cluster_file(Path(directory), name, timing))
        if debian:
            sample.build(lab)
        else:
            sample.vserver(lab, lab.real_hosts[0], sample.NAME, "build", "-m", "busybox")
        sample.failover(lab, lab.operator, "apply")
        yield lab
    finally:
        lab.down()


def running(lab: Lab) -> str:
    """Wait until v1 runs and has complete replicas; returns its owner."""
    ask = lab.operator
    sample.await_("running v1", lambda: _status(lab)["vservers"][sample.NAME]["state"] == "running")
    sample.await_("fresh replicas", lambda: sample.fresh(lab, ask))
    return str(_status(lab)["vservers"][sample.NAME]["owner"])


def _ready(lab: Lab, kind: str) -> str:
    owner, zookeeper = running(lab), parts.zookeeper_leader(lab)
    leader = parts.have_another_lead(lab, zookeeper)
    plain = next(name for name in lab.real_hosts if name not in (leader, zookeeper))
    host = {PLAIN: plain, LEADER: leader, ZOOKEEPER: zookeeper}[kind]
    if owner != host:
        sample.failover(lab, lab.operator, "move", sample.NAME, host)
        running(lab)
    parts.await_grants(lab)
    return host


def _cut(lab: Lab, probe: Probe, owner: str) -> Row:
    parts.await_grants(lab)  # they may have been disturbed meanwhile
    taken = drill.take_over(lab, probe, owner, ask=next(name for name in lab.real_hosts if name != owner))
    return {**taken.steps(), "beyond detection": taken.beyond_detection, "answered": taken.seconds}


def _status(lab: Lab) -> dict[str, Any]:
    return sample.status(lab, lab.operator)


def _contender(name: str, timing: str, *, debian: bool = False) -> Contender:
    up = partial(cluster, timing=timing, debian=debian)
    return Contender(name, f"bench-{name}", up, sample.URL, _ready, tuple(KINDS), _cut)


ALL = (
    _contender("failover", "fast"),
    _contender("failover-normal", "normal"),
    _contender("failover-debian", "fast", debian=True),
)
