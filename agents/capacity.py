"""What this host has for vservers, as the kernel counts it. cluster.yaml may say less, or more."""

from __future__ import annotations

import os
import re
from pathlib import Path

from agents.isolation import cgroup
from failover.model import Capacity

MEMINFO = Path("/proc/meminfo")


def measure() -> Capacity:
    """The memory of the machine, or what the cgroup above all vservers may use; the processors that we may run on."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    known = [int(total[1]) * 1024] if total else []
    limit = cgroup.memory_limit()
    memory = min(known if limit is None else [*known, limit], default=None)
    return Capacity(memory, float(len(os.sched_getaffinity(0))))
