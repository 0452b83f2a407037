"""A lab's sample: the Debian vserver v1 with nginx and a PostgreSQL, primary on hostA, backups on the others."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.command import CommandFailed
from agents.isolation.debian import Debian
from failover.errors import FailoverError, Unreachable
from failover.lab.lab import Lab
from failover.lab.place import CACHE
from failover.lab.writer import TABLE, psql

NAME = "v1"
ADDRESS = "10.77.1.1"
URL = f"http://{ADDRESS}/"
PACKAGES = ("nginx-light", "postgresql")

CLUSTER = f"""\
cluster: {{name}}
zookeeper: {{{{servers: [10.77.0.1:2181, 10.77.0.2:2181, 10.77.0.3:2181]}}}}
timing: {{timing}}

hosts:
  hostA: {{{{address: 10.77.0.1, network: {{{{device: eth0}}}}}}}}
  hostB: {{{{address: 10.77.0.2, network: {{{{device: eth0}}}}}}}}
  hostC: {{{{address: 10.77.0.3, network: {{{{device: eth0}}}}}}}}

vservers:
  {NAME}:
    primary: hostA
    backups: [hostB, hostC]
    addresses: [{ADDRESS}/16, "fd77::1:1/64"]
    sync: {{{{every: 2s}}}}
"""

_LISTEN = "listen_addresses = '*'\nshared_buffers = 16MB\nmax_connections = 20\n"
_TRUST = "local all all trust\nhost all all 10.77.0.0/16 trust\n"
_CREATE = (
    ("postgres", "create role demo login"),
    ("postgres", "create database demo owner demo"),
    ("demo", f"create table {TABLE} (n int primary key); alter table {TABLE} owner to demo"),
)


def cluster_file(directory: Path, name: str, timing: str = "fast") -> Path:
    path = directory / "cluster.yaml"
    path.write_text(CLUSTER.format(name=name, timing=timing))
    return path


def failover(lab: Lab, host: str, *words: str, timeout_s: float = 120.0, expect: tuple[int, ...] = (0,)) -> str:
    """What the `failover` command prints on a host."""
    return lab.exec(
        host, [sys.executable, "-m", "failover", *words], timeout_s=timeout_s, expect=expect
    ).stdout.decode()


def vserver(lab: Lab, host: str, *words: str, timeout_s: float = 600.0) -> str:
    argv = [sys.executable, "-m", "failover.cli.vserver", *words]
    return lab.exec(host, argv, timeout_s=timeout_s).stdout.decode()


def status(lab: Lab, host: str = "hostB") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(failover(lab, host, "status", "--json"))
    return found


def build(lab: Lab, host: str = "hostA") -> None:
    """Build the tree and prepare its database for the first boot. The packages are fetched by the machine, once: the
    hosts of a lab reach nobody else, but share its cache."""
    Debian(packages=PACKAGES).prepare(CACHE, say=lambda _: None)
    vserver(lab, host, NAME, "build", "-m", "debian", "--packages", ",".join(PACKAGES))
    script = (
        f'cd /vservers/{NAME}/etc/postgresql/*/main && printf %s "$LISTEN" > conf.d/sample.conf && '
        f'printf %s "$TRUST" > pg_hba.conf && echo {NAME} > /vservers/{NAME}/var/www/html/index.html'
    )
    lab.exec(host, ["env", f"LISTEN={_LISTEN}", f"TRUST={_TRUST}", "sh", "-ec", script])


def create_table(lab: Lab, host: str) -> None:
    for database, sql in _CREATE:
        vserver(lab, host, NAME, "exec", "--", "psql", "-qX", "-U", "postgres", "-d", database, "-c", sql)


def rows(lab: Lab) -> set[int]:
    """The numbers that the database has now, asked from outside."""
    done = lab.exec("client", [*psql(ADDRESS), "-c", f"select n from {TABLE}"])
    return {int(line) for line in done.stdout.split()}


def await_(what: str, condition: Callable[[], object], timeout_s: float = 120.0, pause_s: float = 0.2) -> None:
    """Ask again and again until the answer is true; an error counts as no. Raises Unreachable when time is over."""
    deadline, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (CommandFailed, FailoverError, ValueError, KeyError) as error:
            last = f": {error}"
        time.sleep(pause_s)
    raise Unreachable(f"no {what} after {timeout_s:g} s{last}")


def running_on(lab: Lab, host: str, ask: str = "hostB") -> bool:
    own = status(lab, ask)["vservers"][NAME]
    return bool(own["owner"] == host and own["state"] == "running")


def fresh(lab: Lab, ask: str = "hostB", max_age_s: float = 10.0) -> bool:
    """Whether every backup that is up has a replica that follows, and is not older than that."""
    copies = status(lab, ask)["vservers"][NAME]["backups"].values()
    return all(
        copy["generation"] and not copy["diverged"] and copy["age_s"] is not None and copy["age_s"] < max_age_s
        for copy in copies
        if copy["up"]
    )
