"""What an agent remembers of how its vservers have failed: starts that came to nothing, ends that nobody asked for.

    a start of ours is done, or it is seen running as our own ──▶ a life is watched ──▶ it is seen stopped: a failure
                                                                    └── a step of ours begins that ends it: forgotten

Rule 1: an end is a failure whatever it looks like: a power-off from inside is one, too, for it is wanted started. Only
        a reboot from inside is none, unless it comes right after the start: a tree that can do no more would spin. Nor
        is it one when the guard has killed what stood still for too long: nothing was wrong with the vserver.
Rule 2: nothing of this outlives the agent. The next one counts anew, and takes what it finds stopped for stopped.
"""

from __future__ import annotations

import threading
from collections import deque

from agents.isolation.record import Ended
from agents.isolation.vserver import Status
from agents.steps import FAILURES, Failure
from failover.model import State

SETTLED_S = 10.0  # a reboot that comes later is no failure


class Failures:
    """All times are boot times. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: dict[str, deque[Failure]] = {}
        self._lives: dict[str, float] = {}  # when we first knew that it runs

    def of(self, name: str) -> tuple[Failure, ...]:
        with self._lock:
            return tuple(self._noted.get(name, ()))

    def note(self, name: str, failure: Failure) -> None:
        with self._lock:
            self._note(name, failure)

    def started(self, name: str, now: float) -> None:
        with self._lock:
            self._lives[name] = now

    def forget_life(self, name: str) -> None:
        """A step begins that ends it, or that makes a new one."""
        with self._lock:
            self._lives.pop(name, None)

    def lives(self, name: str) -> bool:
        """Whether it ran when we last looked, and nothing of ours has ended it."""
        with self._lock:
            return name in self._lives

    def look(self, name: str, status: Status, epoch: int | None, now: float) -> None:
        """Only while no step that changes its life is under way. `epoch`: of the word under which this host owns it;
        None: it does not."""
        with self._lock:
            if epoch is None or status.state is State.STOPPED:
                begun = self._lives.pop(name, None)
                if epoch is not None and begun is not None and not _is_no_failure(status, now - begun):
                    self._note(name, Failure(epoch, now, status.because or "it ended"))
            else:
                self._lives.setdefault(name, now)

    def _note(self, name: str, failure: Failure) -> None:
        self._noted.setdefault(name, deque(maxlen=FAILURES)).append(failure)


def _is_no_failure(status: Status, lived_s: float) -> bool:
    return status.ended is Ended.LAPSED or (status.ended is Ended.RESTART and lived_s >= SETTLED_S)
