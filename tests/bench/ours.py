"""Our own cluster in the bench: three hosts with their ZooKeeper, and the Debian vserver v1, which is started anew
where it is taken over: nginx answers, PostgreSQL comes up beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from failover.lab import drill, sample
from failover.lab.lab import Lab
from failover.lab.network import STORE_PORT
from failover.lab.place import CLIENT
from failover.lab.probe import Probe
from tests.bench.contender import Contender
from tests.bench.table import Row


@contextmanager
def cluster(name: str) -> Iterator[Lab]:
    """A lab on which v1 is built and wanted started."""
    lab = Lab(name)
    lab.down()
    try:
        with TemporaryDirectory() as directory:
            lab.up(config=sample.cluster_file(Path(directory), name))
        sample.build(lab)
        sample.failover(lab, lab.operator, "apply")
        yield lab
    finally:
        lab.down()


def ready(lab: Lab) -> str:
    """Wait until v1 runs and has complete replicas; returns its owner."""
    ask = lab.operator
    sample.await_("running v1", lambda: sample.status(lab, ask)["vservers"][sample.NAME]["state"] == "running")
    sample.await_("fresh replicas", lambda: sample.fresh(lab, ask))
    return str(sample.status(lab, ask)["vservers"][sample.NAME]["owner"])


def _cut(lab: Lab, probe: Probe, owner: str) -> Row:
    taken = drill.take_over(lab, probe, owner, ask=next(name for name in lab.real_hosts if name != owner))
    return {**taken.steps(), "beyond detection": taken.beyond_detection, "answered": taken.seconds}


def _leader(lab: Lab) -> str:
    """The host of ZooKeeper's own leader: no session ends before the other servers have elected a new one."""
    for host in lab.servers:
        address = lab.host(host).addresses[0].partition("/")[0]
        said = lab.exec(CLIENT, ["sh", "-c", f"echo srvr | busybox nc {address} {STORE_PORT}"]).stdout
        if b"Mode: leader" in said:
            return host
    return ""


OURS = Contender("failover", "bench-failover", cluster, sample.URL, ready, _leader, _cut)
