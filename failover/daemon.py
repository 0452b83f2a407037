"""How the agent and the leader live: turn after turn, woken by changes and deadlines, until they are told to end."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Protocol

from failover.errors import FailoverError

AGAIN_S = 1.0  # after a turn that failed


def entry(main: Callable[[], None]) -> Callable[[], None]:
    """A daemon that cannot begin says why in one line; its supervisor sees the exit code."""

    @wraps(main)
    def begin() -> None:
        try:
            main()
        except FailoverError as error:
            logging.getLogger(main.__module__).error("%s", error)
            sys.exit(error.exit_code)

    return begin


class Turner(Protocol):
    def turn(self) -> float:
        """One round; returns the seconds after which the next is due if nothing changes before."""
        ...


class Daemon:
    """`wake` may be called from any thread: the next turn follows at once."""

    def __init__(self, name: str, description: str) -> None:
        parser = argparse.ArgumentParser(prog=name, description=description)
        parser.add_argument("--host", required=True, help="this host's name in cluster.yaml")
        parser.add_argument("--config", type=Path, default=Path("/etc/failover/cluster.yaml"))
        self.options = parser.parse_args()
        self._name, self._changed, self._ended = name, threading.Event(), False
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)

    def wake(self) -> None:
        self._changed.set()

    def live(self, turner: Turner) -> None:
        """An error in one turn is logged and the next turn is taken: whoever turns keeps nothing worth dying for."""
        while not self._ended:
            self._changed.wait(self._turn(turner))

    def finish(self, turner: Turner, done: Callable[[], bool], longest_s: float) -> None:
        """More turns after it was told to end, until this is done."""
        end = time.monotonic() + longest_s
        while not done() and time.monotonic() < end:
            pause = self._turn(turner)
            if not done():
                self._changed.wait(max(0.0, min(pause, end - time.monotonic())))

    def _turn(self, turner: Turner) -> float:
        self._changed.clear()
        try:
            return turner.turn()
        except Exception:
            logging.getLogger(self._name).exception("this turn failed; the next one follows")
            return AGAIN_S

    def _end(self, *_: object) -> None:
        self._ended = True
        self.wake()
