"""An agent's ZooKeeper session on disk, so that the next process of the same host goes on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from failover.zookeeper.client import Session


def save(path: Path, session: Session, cluster_name: str, servers: Sequence[str]) -> None:
    """Atomic, and readable by root only: who has the password has the session."""
    record = {
        "cluster": cluster_name,
        "servers": sorted(servers),
        "session": session.number,
        "password": session.password.hex(),
    }
    fresh = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(fresh, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def load(path: Path, cluster_name: str, servers: Sequence[str]) -> Session | None:
    """None when there is none, or it belongs to another ensemble, or it cannot be read: a new session is made then."""
    try:
        record = json.loads(path.read_text())
        if record["cluster"] == cluster_name and record["servers"] == sorted(servers):
            return Session(int(record["session"]), bytes.fromhex(record["password"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
