"""python -m failover.lab.quorum ADDRESS...: is there a ZooKeeper server that belongs to a quorum? Exit code 0 or 1.

Run inside a host, which sees the addresses of its lab.
"""

from __future__ import annotations

import socket
import sys

from failover.lab.network import STORE_PORT


def belongs(address: str) -> bool:
    """Whether the server there leads or follows; without a quorum it says neither."""
    try:
        with socket.create_connection((address, STORE_PORT), timeout=1) as connection:
            connection.sendall(b"srvr")
            said = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return False
    return b"Mode: " in said


if __name__ == "__main__":
    sys.exit(0 if any(belongs(address) for address in sys.argv[1:]) else 1)
