"""A lab of three hosts with v1, as the tests of whole clusters share it: one lab a file, settled before each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failover.lab import sample
from failover.lab.lab import Lab
from failover.lab.place import STORES
from tests.lab.conftest import left_of


@contextmanager
def cluster_of(
    name: str, directory: Path, timing: str = "fast", *, lease: str = "session", apart: bool = False
) -> Iterator[Lab]:
    """Everything up, and v1 built with busybox; nothing is left of it afterwards. `lease`: on the session what a test
    does for a second or two is no loss; test_grants.py has the other. `apart`: ZooKeeper has hosts of its own."""
    lab = Lab(name)
    try:
        config = sample.cluster_file(directory, name)
        text = config.read_text().replace("timing: fast", f"timing: {timing}\nlease: {lease}")
        if apart:
            for number, address in enumerate(STORES.values(), start=1):
                text = text.replace(f"10.77.0.{number}:2181", f"{address}:2181")
        config.write_text(text)
        lab.up(config=config, apart=apart)
        sample.failover(lab, "hostA", "apply")
        sample.vserver(lab, "hostA", sample.NAME, "build", "-m", "busybox")
        yield lab
    finally:
        lab.down()
        assert left_of(name) == []


def settle(lab: Lab) -> Lab:
    """Everything up again, v1 running, every replica fresh."""
    for name in lab.real_hosts:
        if not lab.host(name).powered:
            lab.power_on(name)
    sample.await_("settled cluster", lambda: settled(lab))
    return lab


def settled(lab: Lab) -> bool:
    found = sample.status(lab)
    own = found["vservers"][sample.NAME]
    up = all(host["state"] == "up" for host in found["hosts"].values())
    return up and not found["holds"] and own["state"] == "running" and sample.fresh(lab, max_age_s=20.0)


def owner_of(lab: Lab, ask: str = "hostB") -> str:
    return str(sample.status(lab, ask)["vservers"][sample.NAME]["owner"])


def others(lab: Lab, host: str) -> list[str]:
    return [name for name in lab.real_hosts if name != host]


def first_process(lab: Lab, host: str) -> bytes:
    """Its process number and start time."""
    return lab.exec(host, ["sh", "-c", f"cat /run/vserver/{sample.NAME}/state.json"]).stdout
