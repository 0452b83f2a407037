"""An operator's connection to the store, from the local cluster.yaml."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from failover.zookeeper import ZooKeeperStore


@contextmanager
def connected(options: Namespace) -> Iterator[ZooKeeperStore]:
    from failover.config import load
    from failover.zookeeper import connect, read_credentials

    declared = load(options.config)
    credentials = read_credentials(Path(declared.zookeeper.credentials))
    store = connect(
        declared.name,
        declared.zookeeper.servers,
        credentials,
        timing=declared.timing,
        credentials_path=declared.zookeeper.credentials,
    )
    try:
        yield store
    finally:
        store.close()
