"""The leader's ear: questions of the guards in UDP datagrams, answered at once by what granting.py says.

    port 7182 of every host's address    a letter as JSON (failover/wire.py), sealed (failover/seal.py)
    one thread hears and answers, and proves the leadership; another reads records, which may take its time

Rule 1: what has not the right hash changes nothing, and has no answer.
Rule 2: an answer goes where the question came from. It is of use only to the guard that has asked: it bears its number.
"""

from __future__ import annotations

import logging
import queue
import select
import socket
import threading
import time
from collections.abc import Callable

from failover import udp, wire
from failover.errors import FailoverError
from failover.grants.granting import Granting
from failover.grants.protocol import PORT, Ask, Letter
from failover.seal import Seal

LONGEST = 2048  # bytes; a question is shorter
AGAIN_S = 1.0  # after the socket could not be opened

log = logging.getLogger("failover.grants.granting")


class Hearing:
    """`address`: of this host, as the cluster has it by now; `was_read`: a record was, so the leader may look again."""

    def __init__(
        self,
        granting: Granting,
        seal: Seal,
        address: Callable[[], str | None],
        was_read: Callable[[], None],
        port: int = PORT,
    ) -> None:
        self._granting, self._seal, self._address, self._was_read, self._port = granting, seal, address, was_read, port
        self._unread: queue.SimpleQueue[tuple[str, Ask | None, tuple[str, int] | None]] = queue.SimpleQueue()
        self._reading: set[str] = set()
        self._socket: socket.socket | None = None
        self._closed = False
        self._trouble = ""
        for work, name in ((self._hear, "questions"), (self._read, "records")):
            threading.Thread(target=work, name=name, daemon=True).start()

    @property
    def ready(self) -> bool:
        return self._socket is not None

    def close(self) -> None:
        self._closed = True

    def read(self, host: str) -> None:
        """Before long, the record of this host."""
        self._want(host, None, None)

    def _want(self, host: str, ask: Ask | None, where: tuple[str, int] | None) -> None:
        if host not in self._reading:
            self._reading.add(host)
            self._unread.put((host, ask, where))

    # --- the threads --------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        while not self._closed:
            address = self._address()
            try:
                if address is None:
                    raise OSError("this host has no address in the cluster")
                with udp.listening(address, self._port) as self._socket:
                    self._answer_all(self._socket, address)
            except OSError as error:
                self._say(f"questions cannot be heard: {error}")
                time.sleep(AGAIN_S)
            except Exception:
                log.exception("questions cannot be heard")
                time.sleep(AGAIN_S)
            finally:
                self._socket = None

    def _answer_all(self, ours: socket.socket, address: str) -> None:
        """Until the address is another one: to know it costs as much as the cluster is large."""
        while not self._closed and self._address() == address:
            self._answer_for(AGAIN_S, ours)

    def _answer_for(self, length_s: float, ours: socket.socket) -> None:
        end = time.monotonic() + length_s
        while not self._closed and time.monotonic() < end:
            wait_s = self._granting.pulse()
            if select.select([ours], [], [], min(wait_s, AGAIN_S))[0]:
                data, where = ours.recvfrom(LONGEST)
                if (ask := self._ask_in(data)) is not None:
                    self._answer(ours, ask, where)

    def _ask_in(self, data: bytes) -> Ask | None:
        try:
            body = self._seal.open(data)
            return None if body is None else wire.decode(Letter, body).ask
        except FailoverError:
            return None

    def _answer(self, ours: socket.socket, ask: Ask, where: tuple[str, int]) -> None:
        if not self._answered(ours, ask, where):
            self._want(ask.host, ask, where)

    def _answered(self, ours: socket.socket, ask: Ask, where: tuple[str, int]) -> bool:
        grant = self._granting.hear(ask)
        if grant is None:
            return False
        try:
            ours.sendto(self._seal.close(wire.encode(Letter(grant=grant, target=ask.host))), where)
        except OSError as error:
            self._say(f"{ask.host} cannot be answered: {error}")
        return True

    def _read(self) -> None:
        while not self._closed:
            try:
                host, ask, where = self._unread.get(timeout=AGAIN_S)
            except queue.Empty:
                continue
            try:
                self._granting.read(host)
            except FailoverError as error:
                self._say(f"the lease of {host} cannot be read: {error}")
            except Exception:
                log.exception("the lease of %s cannot be read", host)
            finally:
                self._reading.discard(host)
            self._was_read()
            ours = self._socket
            if ask is not None and where is not None and ours is not None:
                self._answered(ours, ask, where)

    def _say(self, text: str) -> None:
        if text != self._trouble:
            self._trouble = text
            log.info("%s", text)
