"""The keeper: a process that holds the vservers' consoles and writes what they say to console.log, bounded in size.

It is a process of its own so that a spawner may die or be replaced: the terminal of a vserver whose keeper is gone
would hang up, and every write to it would be an error. It ends when its spawner has gone and the last vserver with it.

Rule: it holds both ends of each terminal. If nobody had one open, the kernel would report an end of file for ever.
"""

from __future__ import annotations

import os
import selectors
import socket
from dataclasses import dataclass
from pathlib import Path

from agents.isolation.order import Message, receive

LOG_BYTES = 512 * 1024  # twice that at most: the log and one older one
_CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True)
class Console:
    """`pidfd`: of the vserver's first process; the console is held as long as that lives."""

    log: Path
    master: int
    slave: int
    pidfd: int

    def write_down(self) -> bool:
        """A bounded piece of what has come, so that a chatterbox keeps no other waiting; False: there was nothing."""
        try:
            data = os.read(self.master, _CHUNK_BYTES)
        except OSError:
            return False
        try:
            if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.old"))
            with self.log.open("ab") as file:
                file.write(data)
        except OSError:
            return True  # no space, or no directory: the vserver must not stand still for that
        return bool(data)

    def close(self) -> None:
        for descriptor in (self.master, self.slave, self.pidfd):
            os.close(descriptor)


def hand_over(log: Path) -> Message:
    """The message that brings the keeper a console; its descriptors: master, slave, pidfd."""
    return {"log": str(log)}


def keep(orders: socket.socket) -> None:
    """The keeper's whole life."""
    consoles: dict[int, Console] = {}  # by both descriptors that are watched
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        listening = True
        while listening or consoles:
            for key, _ in selector.select():
                if key.fileobj is orders:
                    listening = _take(orders, selector, consoles)
                elif key.fd in consoles:
                    _attend(key.fd, selector, consoles)


def _take(orders: socket.socket, selector: selectors.BaseSelector, consoles: dict[int, Console]) -> bool:
    message, descriptors = receive(orders)
    if message is None:
        selector.unregister(orders)
        orders.close()
        return False
    master, slave, pidfd = descriptors
    os.set_blocking(master, False)
    for descriptor in (master, pidfd):
        selector.register(descriptor, selectors.EVENT_READ)
        consoles[descriptor] = Console(Path(message["log"]), master, slave, pidfd)
    return True


def _attend(descriptor: int, selector: selectors.BaseSelector, consoles: dict[int, Console]) -> None:
    console = consoles[descriptor]
    more = console.write_down()
    if descriptor == console.pidfd and not more:  # its last words are written down
        for watched in (console.master, console.pidfd):
            selector.unregister(watched)
            del consoles[watched]
        console.close()
