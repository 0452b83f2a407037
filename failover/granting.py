"""What the leader's process grants (failover/grants.py), and what follows for its view of the cluster.

    a question ──▶ hear ──▶ a grant, a refusal, or "read the record first"
    a view of the store ──▶ seen ──▶ the view that is planned on: who is over is not alive, who is not over is
    a change that takes over ──▶ give_up, before it is sent

Rule 1: nothing is granted without a proof that this process leads (Store.leads_until), nor before its election.
Rule 2: a host whose session is gone is granted nothing more: it could not be told anything.
Rule 3: a leader that hears nothing of the store, stood still itself, or was only just elected, blames nobody: who has
        come to its end has some time to return to its session.
        Nor is anybody given away while another one is silent that is not over yet.
Rule 4: a host that rests on grants was last heard of when it was last granted something, whatever its record's age.
Safe for threads. It keeps nothing beyond the election: another leader reads all records anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from failover.grants import Ask, Grant, Grantor
from failover.model import Lease, View, frozen_map
from failover.store import Change, Store
from failover.timing import Timing

MISSED = 2.5  # pauses between two questions: so long without one is silence
PATIENCE = 4  # such a part of a session is the time to return
PULSES = 3  # in the length of a grant
ASKED_S = 10.0  # after the last question the leadership is proved for so long
UNREAD_S = 0.05  # a record is read before long, and then the leader is woken
SHORTEST_S = 0.001  # a pause: less could be lost in the rounding of a clock


class Granting:
    """`clock`: boot time."""

    def __init__(self, store: Store, timing: Timing, clock: Callable[[], float]) -> None:
        self._store, self._timing, self._clock = store, timing, clock
        self._lock = threading.Lock()
        self._grantor: Grantor | None = None
        self._epoch: int | None = None
        self._gone: frozenset[str] = frozenset()  # hosts without a session, as last seen
        self._looked: dict[str, float] = {}  # when the last reading of a host's record began
        self._pulsed_at = self._asked_at = float("-inf")
        self._blames_from = self._awake_at = float("-inf")  # rule 3

    def lead(self, epoch: int | None) -> None:
        """This process leads under this epoch, or does not."""
        with self._lock:
            if epoch != self._epoch:
                self._epoch, self._gone = epoch, frozenset()
                self._grantor = None if epoch is None else Grantor(self._timing)
                self._blames_from = self._clock() + self._timing.session_s / PATIENCE

    def resign(self) -> float:
        """Grant nothing more. How long to wait until all that was granted is over, seconds."""
        with self._lock:
            grantor, self._grantor = self._grantor, None
            return max(0.0, grantor.last_end() - self._clock()) if grantor is not None else 0.0

    def pulse(self) -> float:
        """Prove, now and then, that this process leads, as long as somebody asks. Returns the seconds until the next
        time."""
        now = self._clock()
        with self._lock:
            self._notice_silence(now)
            self._awake_at = now
        if now >= self._pulsed_at + self._pause_s:
            self._pulsed_at = now
            if now < self._asked_at + ASKED_S:
                self._store.pulse(now)
        return max(SHORTEST_S, self._pulsed_at + self._pause_s - now)

    @property
    def _pause_s(self) -> float:
        return self._timing.grant_s / PULSES

    def _notice_silence(self, now: float) -> None:
        """Of the store; or this process itself stood still, and has heard nobody."""
        leads_until = self._store.leads_until
        heard_at = leads_until - self._timing.lease_s if leads_until is not None else float("-inf")
        if now > min(heard_at, self._awake_at) + 2 * self._pause_s:
            self._blames_from = now + self._timing.session_s / PATIENCE

    def hear(self, ask: Ask) -> Grant | None:
        """The answer; None: nobody is to answer, or the record must be `read` first. Does not wait."""
        leads_until = self._store.leads_until
        with self._lock:
            self._asked_at = self._clock()
            if self._grantor is None or leads_until is None:
                return None
            if ask.host in self._gone:
                return Grant(ask.number, refused=f"the session of {ask.host} is over")
            if not self._grantor.knows(ask):
                return None
            return self._grantor.answer(ask, leads_until, self._clock())

    def read(self, host: str) -> None:
        """Read the host's record. Waits for the store; raises Unreachable."""
        with self._lock:
            grantor, began = self._grantor, self._clock()
        if grantor is not None:
            lease = self._store.look_at_lease(host)  # after the election, for the grantor was there before
            with self._lock:
                self._looked[host] = began
                if lease is not None:
                    grantor.read(lease, self._clock())
                    self._gone = self._gone - {host} if lease.alive else self._gone | {host}

    def unread(self, view: View) -> tuple[str, ...]:
        """Hosts that rest on grants, and whose record this leader has to read before it can find them over: for the
        first time, or again, for leases are not watched."""
        with self._lock:
            grantor, now = self._grantor, self._clock()
            if grantor is None:
                return ()
            resting = [lease for lease in view.leases.values() if lease.granted]
            return tuple(one.host for one in resting if not grantor.has_read(one) or self._stale(one, grantor, now))

    def _stale(self, lease: Lease, grantor: Grantor, now: float) -> bool:
        """Whether it was not looked at since all that was granted is over."""
        end = grantor.end(lease.host)
        return end <= now and self._looked.get(lease.host, float("-inf")) < end

    def seen(self, view: View) -> View:
        """The view with what is known of the grants."""
        with self._lock:
            now, grantor = self._clock(), self._grantor
            if grantor is None:
                return view
            self._notice_silence(now)
            blames = now >= self._blames_from and not self._another_falls(view, grantor, now)
            leases = {
                host: _seen(lease, grantor, view.now, now, blames and not self._stale(lease, grantor, now))
                for host, lease in view.leases.items()
            }
        return replace(view, leases=frozen_map(leases))

    def unsure_s(self, view: View) -> float:
        """For how long nothing should be decided: of a host whose session is gone this leader does not know yet that
        its grants are over, as they may be at an election. 0: decide. From here on who is gone is granted nothing."""
        with self._lock:
            now, grantor = self._clock(), self._grantor
            self._gone = frozenset(lease.host for lease in view.leases.values() if not lease.alive)
            gone = [lease for lease in view.leases.values() if lease.granted and not lease.alive and grantor]
            unsure = [one for one in gone if grantor and not (now >= self._blames_from and grantor.over(one, now))]
            waits = [max(grantor.end(one.host), self._blames_from) - now for one in unsure if grantor]
        return max((max(wait_s, UNREAD_S) for wait_s in waits), default=0.0)

    def _another_falls(self, view: View, grantor: Grantor, now: float) -> bool:
        """Whether one that is not over yet is silent as well: hosts that are lost together are so in no order."""
        silent_s = MISSED * self._timing.ask_grant_s
        resting = [lease for lease in view.leases.values() if lease.granted and lease.alive]
        return any(
            self._stale(lease, grantor, now) or now < grantor.end(lease.host) < now + self._timing.grant_s - silent_s
            for lease in resting
        )

    def again_s(self, view: View) -> float:
        """Seconds until the next of those that rest on grants may be over."""
        with self._lock:
            now, grantor = self._clock(), self._grantor
            resting = [lease.host for lease in view.leases.values() if lease.granted and grantor]
            ends = [max(grantor.end(host), self._blames_from) - now for host in resting if grantor]
        return min((max(left_s, SHORTEST_S) for left_s in ends if left_s > 0), default=float("inf"))

    def give_up(self, change: Change, view: View) -> None:
        """This change is about to be sent."""
        with self._lock:
            for host, _ in (*change.leases, *change.vouched):
                if self._grantor is not None:
                    self._grantor.give_up(view.leases[host])

    def skip(self, before: float, length_s: float) -> None:
        """As if so much time had passed with questions and answers as they are: for the simulator."""
        self._pulsed_at, self._asked_at = self._pulsed_at + length_s, self._asked_at + length_s
        self._awake_at += length_s
        if self._blames_from > before:
            self._blames_from += length_s
        if self._grantor is not None:
            self._grantor.skip(before, length_s)


def _seen(lease: Lease, grantor: Grantor, store_now: float, now: float, blames: bool) -> Lease:
    end = grantor.end(lease.host)
    if not lease.granted:
        return lease if grantor.over(lease, now) else replace(lease, alive=True, store_at=store_now)
    if grantor.over(lease, now) and blames:
        return replace(lease, alive=False, store_at=max(lease.store_at, store_now - (now - end)))
    return replace(lease, alive=True, store_at=store_now)
