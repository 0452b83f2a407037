"""Where a lab and its hosts lie on the machine, and by which names they go.

    /var/lib/failover-lab/NAME/            one lab
        lab.json                           what it was asked to be
        ready                              it is up (written last)
        switch                             its network namespace (bind mount)
        hosts/HOST/                        one host
            disk.img                       its /vservers, a file system of its own
            system/upper, system/work      what it wrote elsewhere, over the machine's own root file system
            etc, log, state, control       its /etc/failover, /var/log/failover, /var/lib/failover, /run/failover-lab
            root                           the mount point of its root, empty seen from outside
    <each cgroup hierarchy>/failover-lab-NAME/HOST

Rule: whatever exists of a lab is found from its name alone, so that `down` needs no memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from failover.errors import BadInput

BASE = Path("/var/lib/failover-lab")
# as a host sees them
ETC = Path("/etc/failover")
LOGS = Path("/var/log/failover")
STATE = Path("/var/lib/failover")
CACHE = Path("/var/cache/failover")  # the machine's own: built trees are there for every host
CONTROL = Path("/run/failover-lab")
ZOOKEEPER = STATE / "zookeeper"

CLIENT = "client"  # the host from which addresses are probed: no services, no vservers
# the hosts that carry nothing but ZooKeeper, in a lab where it is apart, and their addresses
STORES = {f"store{number}": f"10.77.0.{240 + number}" for number in (1, 2, 3)}


@dataclass(frozen=True)
class Place:
    name: str
    base: Path = BASE

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", self.name):
            raise BadInput(f"'{self.name}' is no name for a lab", hint="use small letters, digits and dashes")

    @property
    def directory(self) -> Path:
        return self.base / self.name

    @property
    def description(self) -> Path:
        return self.directory / "lab.json"

    @property
    def ready(self) -> Path:
        return self.directory / "ready"

    @property
    def switch(self) -> Path:
        return self.directory / "switch"

    def host(self, host: str) -> Path:
        return self.directory / "hosts" / host

    def group(self, host: str = "") -> str:
        """The path of a cgroup of this lab below the root of every hierarchy."""
        return f"failover-lab-{self.name}/{host}".rstrip("/")
