"""Letters of the guard to the leader and back, sealed, in UDP datagrams (failover/seal.py, failover/grants/hearing.py).

A socket for each family of addresses, opened when it is needed. What cannot be sent is lost, and what has not the right
hash was never there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

from agents.lease import Asks
from failover import udp, wire
from failover.errors import FailoverError
from failover.grants.protocol import PORT, Letter
from failover.seal import Seal


class Envelopes:
    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._seal = Seal(b"")

    def send(self, asks: Asks, letter: Letter) -> None:
        self._seal = Seal(bytes.fromhex(asks.key))
        with suppress(OSError):
            self._of(udp.family(asks.leader)).sendto(self._seal.close(wire.encode(letter)), (asks.leader, PORT))

    def heard(self) -> Iterator[Letter]:
        """What has come since; it does not wait."""
        for ours in self.sockets:
            with suppress(OSError):  # nothing there; or an ICMP error of something sent before
                while True:
                    body = self._seal.open(ours.recv(1 << 16))
                    with suppress(FailoverError):
                        if body is not None:
                            yield wire.decode(Letter, body)

    def _of(self, family: socket.AddressFamily) -> socket.socket:
        for ours in self.sockets:
            if ours.family == family:
                return ours
        ours = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self.sockets.append(ours)
        return ours
