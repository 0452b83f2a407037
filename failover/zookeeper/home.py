"""A host with a ZooKeeper server of its own is a client of that one: then no other host's loss costs it its connection,
and nobody waits for what a leader or an agent would first have to miss.

Rule 1: the server here is tried first at every connect (client.py does that).
Rule 2: who had to go to another comes home once the server here serves. If that was in vain the pauses grow.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

Server = tuple[str, int]

LOOK_S, RARELY_S = 1.0, 3600.0  # the pause between two looks, and what it grows to
STEADY = 2  # so many looks in a row find that it serves
_ANSWER_S = 0.5


def near(servers: Sequence[str], address: str | None) -> Server | None:
    """Of these servers, that of the host with this address. As cluster.yaml has both."""
    return next((found for found in map(_split, servers) if found[0] == address), None)


def _split(server: str) -> Server:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


def serves(server: Server) -> bool:
    """Whether it is part of a quorum, by its own word."""
    said = b""
    with suppress(OSError), socket.create_connection(server, timeout=_ANSWER_S) as asked:
        asked.settimeout(_ANSWER_S)
        asked.sendall(b"srvr")
        while part := asked.recv(4096):
            said += part
    return b"Mode: " in said


class Home:
    """`at_home`: whether the connection is to the server here; None: there is none. `go`: end it, and try that next."""

    def __init__(self, here: Server, at_home: Callable[[], bool | None], go: Callable[[], None]) -> None:
        self._here, self._at_home, self._go = here, at_home, go
        self._over = threading.Event()
        threading.Thread(target=self._look, name="home", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def _look(self) -> None:
        pause_s, found = LOOK_S, 0
        while not self._over.wait(pause_s if found == 0 else LOOK_S):
            at_home = self._at_home()
            pause_s = LOOK_S if at_home else pause_s
            found = found + 1 if at_home is False and serves(self._here) else 0
            if found >= STEADY:
                self._go()
                pause_s, found = min(2 * pause_s, RARELY_S), 0
