"""An agent's ZooKeeper session on disk, so that the next process of the same host goes on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from failover.timing import LONGEST_S
from failover.zookeeper.client import Session


def save(path: Path, session: Session, length_s: float, cluster_name: str, servers: Sequence[str]) -> None:
    """Atomic, and readable by root only: who has the password has the session."""
    record = {
        "cluster": cluster_name,
        "servers": sorted(servers),
        "session": session.number,
        "length_s": length_s,
        "password": session.password.hex(),
    }
    fresh = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(fresh, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def load(path: Path, asked_s: float, cluster_name: str, servers: Sequence[str]) -> Session | None:
    """None when there is none, or it belongs to another ensemble, or cannot be read, or is too short: a new session is
    made then. Who takes one up with another length has that only until ZooKeeper elects its next leader, which goes by
    the length at the making."""
    if length_s(path) < asked_s:
        return None
    try:
        record = json.loads(path.read_text())
        if record["cluster"] == cluster_name and record["servers"] == sorted(servers):
            return Session(int(record["session"]), bytes.fromhex(record["password"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def length_s(path: Path) -> float:
    """As it was asked for when it was made. What runs may still go by it, so the next one must not be shorter; 0: there
    was none since the boot, or nobody knows."""
    try:
        found = json.loads(path.read_text())["length_s"]
        return float(found) if 0 < found <= LONGEST_S else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
