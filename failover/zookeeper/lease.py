"""One host's lease record in ZooKeeper, as its agent writes it: claimed in every connection, then renewed, or left to
rest on the grants of a leader (failover/grants/protocol.py).

Rule 1: only an acknowledged write proves that the session lives; from when, failover/touches.py knows. While the lease
        rests on grants questions alone are sent, for the write that is to end that.
Rule 2: every write is upon the version that the one before it has made; one that meets another version is a doubt, and
        the lease is claimed anew.
Rule 3: a write whose answer is lost may have been done. So what the lease rests on is not settled then, before the
        next claim is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from failover import wire, writes
from failover.errors import Refused, Unreachable
from failover.store import Rest
from failover.timing import Timing
from failover.touches import Touches
from failover.zookeeper.client import Client, Session

_log = logging.getLogger("failover.zookeeper")
_SESSION = Rest()
PATIENCE = 0.3  # of a lease: so long an answer is waited for


class HostLease:
    def __init__(
        self,
        client: Client,
        root: str,
        host: str,
        timing: Timing,
        *,
        clock: Callable[[], float],
        claimed: Callable[[Session], None],
        saw: Callable[[float], None],
        doubt: Callable[[], None],
        rests: Callable[[], None],
    ) -> None:
        """`claimed`: it is the lease of this session now; `saw`: a write was given this time on the store's clock;
        `doubt`: it must be claimed anew, and all be read after it; `rests`: it rests on grants now."""
        self._client, self._root, self._host, self._timing, self._clock = client, root, host, timing, clock
        self._session_claimed, self._saw, self._doubt, self._tell_rests = claimed, saw, doubt, rests
        self._lease, self._alive = f"{root}/leases/{host}", f"{root}/alive/{host}"
        self._lock = threading.Lock()
        self._link = 0  # counts the changes of the link: what was begun under another one is void
        self._version: int | None = None  # what the next write will find; None: not known
        self.version: int | None = None  # of the newest that is acknowledged and not in doubt
        self._waiting_since: float | None = None  # the oldest renewal that has no answer
        self._touches = Touches(timing.kept_s)
        self.rest = _SESSION

    def link_changed(self, *, expired: bool) -> None:
        with self._lock:
            self._link += 1
            self._version = self.version = self._waiting_since = None
            if expired:
                self._touches = Touches(self._timing.kept_s)

    @property
    def renewed_at(self) -> float | None:
        return None if self.rest.granted and self.rest.settled else self._touches.told_at

    def claim(self, over: threading.Event) -> None:
        """Write the record, and make `alive` with it if this session has none. Waits for the answers; `over` ends it
        early."""
        with self._lock:
            link, self._version, self.version = self._link, None, None  # no renewal comes in between
        session = self._client.session
        if session is None:
            raise Unreachable("the connection to ZooKeeper is lost")
        found = self._client.facts((self._alive, self._lease))
        holder = found[self._alive]
        if holder is not None and holder.session != session.number:
            self._wait_for_silence(over)
            found = self._client.facts((self._alive, self._lease))
            holder = found[self._alive]
        before = found[self._lease]
        claim = writes.claim(
            self._host, session.number, before.version if before else None, holder.session if holder else None
        )
        sent_at = self._clock()
        written = self._client.write(self._root, *claim)
        if written is None:
            raise Refused(f"the lease of {self._host} was changed by somebody else meanwhile")
        self._session_claimed(session)
        for at in written:
            self._saw(at)
        with self._lock:
            if link == self._link:
                self._version = self.version = before.version + 1 if before else 0
                self._touches.begun(self._client.joined_at)
                self._touches.acknowledged(sent_at, self._clock())
                self.rest = _SESSION

    def _wait_for_silence(self, over: threading.Event) -> None:
        """Another session has our host's name: an older one of ours, which is silent, or a second agent's."""
        before = self._client.facts((self._lease,))[self._lease]
        over.wait(1.5 * self._timing.renew_s)
        if self._client.facts((self._lease,))[self._lease] != before:
            raise Refused(
                f"another agent calls itself {self._host} and renews its lease",
                hint="stop one of the two: a host's name may be used once",
            )
        _log.info("an older session of %s is replaced", self._host)

    def renew(self, now: float) -> None:
        """Begin to write it, not before it is claimed; while it rests on grants: to ask something."""
        with self._lock:
            if self._version is None:
                return
            patience_s = PATIENCE * self._timing.lease_s
            if self._waiting_since is not None and now - self._waiting_since > patience_s:
                _log.warning(
                    "ZooKeeper has not answered for %.2f s: another server is tried", now - self._waiting_since
                )
                self._waiting_since = None
                self._client.drop()
                return
            if self._waiting_since is None:
                self._waiting_since = now
            if self.rest.granted:
                self._client.touch(partial(self._touched, self._link, now))
            else:
                self._begin(False, partial(self._renewed, now))

    def rest_on_grants(self) -> None:
        """Begin to write that it rests on the grants of the leader."""
        with self._lock:
            if self._version is not None and not self.rest.granted:
                self.rest = Rest(granted=True, settled=False)
                self._begin(True, self._rests)

    def _begin(self, granted: bool, done: Callable[[], None]) -> None:
        version, session = self._version or 0, self._client.session
        self._version = version + 1
        record = wire.LeaseRecord(session.number if session else 0, granted)
        answered = partial(self._answered, self._link, version + 1, done)
        self._client.begin(self._lease, wire.encode(record), version, answered)

    def _answered(self, link: int, version: int, done: Callable[[], None], at: float | None, conflict: bool) -> None:
        with self._lock:
            if link != self._link:
                return
            self._waiting_since = None
            if at is not None:
                self.version = version if self._version is not None else None
                done()
        self._settle(at, conflict)

    def _renewed(self, sent_at: float) -> None:
        self._touches.acknowledged(sent_at, self._clock())

    def _touched(self, link: int, sent_at: float) -> None:
        with self._lock:
            if link == self._link:
                self._waiting_since = None
                self._touches.answered(sent_at, self._clock())

    def _rests(self) -> None:
        self.rest = Rest(granted=True)
        self._tell_rests()

    def _settle(self, at: float | None, conflict: bool) -> None:
        if at is not None:
            self._saw(at)
            return
        with self._lock:
            self._version = self.version = None
        if conflict:
            _log.error("somebody else has written the lease of %s: are there two agents of that name?", self._host)
        self._doubt()
