"""One process's leadership in ZooKeeper: an ephemeral holder, an epoch that only grows, and the proof of both.

Rule 1: an epoch is another version of one znode, and every commit checks it: who was deposed changes nothing.
Rule 2: this process alone leads for one lease (Timing.leads_s) after ZooKeeper is known to have heard of its session
        (failover/touches.py): the holder lives as long as the session, which is shorter than a host's.
Rule 3: who has begun to step down never leads under that epoch again: without an answer, it may still be done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from failover import writes
from failover.errors import FailoverError
from failover.records import Node
from failover.timing import Timing
from failover.touches import Touches
from failover.zookeeper.client import Client, Session

_log = logging.getLogger("failover.zookeeper")


class Leadership:
    def __init__(
        self,
        client: Client,
        root: str,
        name: str,
        timing: Timing,
        *,
        clock: Callable[[], float],
        saw: Callable[[float], None],
    ) -> None:
        """`saw`: a write was given this time on the store's clock."""
        self._client, self._root, self._name, self._timing, self._clock, self._saw = (
            client, root, name, timing, clock, saw
        )  # fmt: skip
        self._lock = threading.Lock()
        self._sessions = 0  # counts the sessions that are over
        self._touches = Touches(timing.kept_s)  # since its election
        self._left: int | None = None  # the epoch under which it has stepped down, or tried to
        self.epoch: int | None = None

    def expired(self) -> None:
        with self._lock:
            self._sessions += 1
            self.epoch, self._touches = None, Touches(self._timing.kept_s)

    @property
    def until(self) -> float | None:
        with self._lock:
            session_s, told_at = self._client.session_s, self._touches.told_at
            if self.epoch is None or told_at is None or session_s is None:
                return None
            return told_at + self._timing.leads_s(session_s)

    @property
    def proved_at(self) -> float | None:
        with self._lock:
            return self._touches.written_at

    def lead(self, session: Session, holder: Node | None) -> int | None:
        """The epoch, when it leads; it stands when nobody does. `holder`: as far as it is known."""
        with self._lock:
            if holder is None or holder.session != session.number:
                self.epoch, self._touches = None, Touches(self._timing.kept_s)
            if self.epoch is not None or (holder is not None and holder.session != session.number):
                return self.epoch
            sessions = self._sessions
        try:
            epoch, sent_at = self._stand(session.number)
        except FailoverError as error:
            _log.warning("the election must wait: %s", error)
            return None
        with self._lock:
            if sessions == self._sessions:
                self.epoch = epoch
                if sent_at is not None:
                    self._touches.acknowledged(sent_at, self._clock())
            return self.epoch

    def _stand(self, session: int) -> tuple[int | None, float | None]:
        holder, epoch = f"{self._root}/leader/holder", f"{self._root}/leader/epoch"
        found = self._client.facts((holder, epoch))
        now, before = found[holder], found[epoch]
        if before is None or (now is not None and now.session != session):
            return None, None
        if now is not None and before.version == self._left:
            self._client.write(self._root, *writes.step_down(before.version))  # rule 3
            return None, None
        if now is not None:
            return before.version, None  # ours since an attempt whose answer was lost: nobody can have stood after it
        sent_at = self._clock()
        written = self._client.write(self._root, *writes.stand(self._name, before.version))
        if written is None:
            return None, None
        self._saw(written[0])
        return before.version + 1, sent_at

    def step_down(self) -> None:
        with self._lock:
            epoch, self.epoch, self._touches = self.epoch, None, Touches(self._timing.kept_s)
            self._left = epoch if epoch is not None else self._left
        if epoch is not None:
            self._client.write(self._root, *writes.step_down(epoch))

    def pulse(self, now: float) -> None:
        """Begin to write that it still leads."""
        with self._lock:
            epoch = self.epoch
            if epoch is not None:
                proved = partial(self._proved, epoch, self._sessions, now)
                self._client.begin_all(self._root, writes.proof(epoch), proved)

    def _proved(self, epoch: int, sessions: int, sent_at: float, done: bool) -> None:
        with self._lock:
            if done and epoch == self.epoch and sessions == self._sessions:
                self._touches.acknowledged(sent_at, self._clock())
