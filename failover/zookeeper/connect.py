"""How a command gets its store: connected, or one clear line that says why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from failover.errors import BadInput, Denied, FailoverError, Unreachable
from failover.timing import PROFILES, Timing
from failover.zookeeper.store import COMMAND_S, ROOT, ZooKeeperStore

CREDENTIALS = "/etc/failover/zookeeper.secret"


def connect(
    cluster_name: str,
    servers: Sequence[str],
    credentials: str,
    *,
    timing: Timing = PROFILES["normal"],
    credentials_path: str = CREDENTIALS,
    deadline_s: float = COMMAND_S,
) -> ZooKeeperStore:
    """A command's store: connected, or Unreachable or Denied within the deadline."""
    ready = threading.Event()
    store = ZooKeeperStore(cluster_name, servers, credentials, role="operator", timing=timing, changed=ready.set)
    deadline = time.monotonic() + deadline_s
    while not store.connected and time.monotonic() < deadline:
        ready.wait(max(deadline - time.monotonic(), 0))
        ready.clear()
    try:
        if not store.connected:
            raise Unreachable(
                f"ZooKeeper does not answer at {', '.join(servers)}",
                hint="is it running there, does a firewall let us through, does it expect TLS on this port?",
            )
        store.probe()
    except Denied as error:
        store.close()
        raise Denied(
            f"ZooKeeper does not accept our credentials for {ROOT}/{cluster_name}",
            hint=f"{credentials_path} must be the one that the cluster was made with",
        ) from error
    except FailoverError:
        store.close()
        raise
    return store


def read_credentials(path: Path = Path(CREDENTIALS)) -> str:
    """The line user:password."""
    try:
        line = path.read_text().strip()
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist", hint="failover init makes it; copy it to every host") from error
    except PermissionError as error:
        raise Denied(f"{path} may not be read", hint="run this as root") from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a file with the line user:password", hint="failover init makes it") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", hint="zookeeper.credentials names it") from error
    if path.stat().st_mode & 0o077:
        raise Denied(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
    return line
