"""A client outside that calls every vserver again and again, so that whoever has an address up answers there: the watch
can then see who speaks. The port is one on which nothing listens; the refusal is answer enough.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from failover.lab.lab import Lab
from failover.lab.observer import Observer, say
from failover.lab.place import CLIENT

PERIOD_S = 0.1
_PORT = 9


class Caller(Observer):
    def __init__(self, lab: Lab, addresses: Sequence[str]) -> None:
        plain = [address.partition("/")[0] for address in addresses]
        super().__init__(lab.host(CLIENT).command([sys.executable, "-m", "failover.lab.caller", *plain]))

    def see(self, said: object) -> None:
        """It says nothing."""


def _call(addresses: Sequence[str]) -> None:
    say({})
    while not select.select([sys.stdin], [], [], PERIOD_S)[0]:
        calls = [_begun(address) for address in addresses]
        time.sleep(PERIOD_S / 2)
        for call in calls:
            call.close()


def _begun(address: str) -> socket.socket:
    call = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    call.setblocking(False)
    with suppress(OSError):
        call.connect((address, _PORT))
    return call


if __name__ == "__main__":
    _call(sys.argv[1:])
