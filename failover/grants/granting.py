"""What the leader's process grants (failover/grants/protocol.py), and what follows for its view of the cluster.

    a question ──▶ hear ──▶ a grant, a refusal, or "read the record first"
    a view of the store ──▶ seen ──▶ the view that is planned on: who is over is not alive, who is not over is
    a change that takes over ──▶ give_up, before it is sent

Rule 1: nothing is granted without a proof that this process leads (Store.leads_until), nor before its election.
Rule 2: a host whose session is gone is granted nothing more: it could not be told anything.
Rule 3: a leader that hears nothing of the store, or stood still itself, blames nobody for a quarter of a host's
        session: who has come to its end has some time to return to its own. Nor does one that is elected before it has
        followed the store for so long: whatever befell the store befell the hosts. After any other election half a
        grant is enough: what the leader before had granted was over two ticks ago (timing.py); if it had died, most of
        a session ago.
        Nor is anybody given away while another one is silent that is not over yet.
        A leader whose own lease is almost over refuses: hosts return while the rest of their grants is left; and one
        that leaves in order ends its session only when they had the time to.
        What was found over, with its session, may go back to that unseen: its record is read again and again.
Rule 4: a host that rests on grants was last heard of when it was last granted something, whatever its record's age.
Safe for threads. Beyond the election it keeps only until when it has granted: another leader reads all records anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from failover.grants.protocol import Ask, Grant, Grantor, Known
from failover.model import Lease, View, frozen_map
from failover.store import Change, Store
from failover.timing import Timing

MISSED = 2.5  # pauses between two questions: so long without one is silence
PATIENCE = 4  # such a part of a host's session is the time to return
ELECTED = LEAVES = 0.5  # grants: the time to return after an election; after the last grant of a leader that resigns
ALMOST = 1 / 3  # of a grant: what is left of the leader's lease when it grants nothing more
ASKED_S = 15.0  # the leadership is proved for so long after the last question, or look at one that rests on grants
UNREAD_S = 0.05  # a record is read before long, and then the leader is woken
SHORTEST_S = 0.001  # a pause: less could be lost in the rounding of a clock


class Granting:
    """`clock`: boot time."""

    def __init__(self, store: Store, timing: Timing, clock: Callable[[], float]) -> None:
        self._store, self._timing, self._clock = store, timing, clock
        self._lock = threading.Lock()
        self._grantor: Grantor | None = None
        self._before: Grantor | None = None  # the newest one, of this leadership or an older one
        self._epoch: int | None = None
        self._gone: frozenset[str] = frozenset()  # hosts without a session, as last seen
        self._known: dict[str, Known] = {}  # what rested on grants while this process stood by
        self._looked: dict[str, float] = {}  # when the last reading of a host's record began
        self._pulsed_at = self._asked_at = float("-inf")
        self._blames_from = self._awake_at = float("-inf")  # rule 3

    def stand_by(self, view: View) -> None:
        """What this process sees while it does not lead: who rests on grants, and since when at the latest."""
        with self._lock:
            now, before = self._clock(), self._known
            resting = [lease for lease in view.leases.values() if lease.granted]
            self._known = {
                lease.host: seen
                if (seen := before.get(lease.host)) is not None and seen.is_of(lease)
                else Known(lease.version, lease.store_at, now)
                for lease in resting
            }

    def lead(self, epoch: int | None, followed_s: float = float("inf"), away_s: float = 0.0) -> None:
        """This process leads under this epoch, or does not; for so long it has followed the store without a break, and
        for so long it could not do so before."""
        with self._lock:
            if epoch != self._epoch:
                self._epoch, self._gone = epoch, frozenset()
                now = self._clock()
                self._before = self._grantor or self._before
                self._grantor = None if epoch is None else Grantor(self._timing, self._known, now, self._before)
                self._blames_from = now + max(ELECTED * self._timing.grant_s, self._return_s(away_s) - followed_s)

    @property
    def timing(self) -> Timing:
        return self._timing

    def _return_s(self, away_s: float = 0.0) -> float:
        """The longer the store was away, the longer hosts may take to find it again."""
        return min(max(self._timing.session_s / PATIENCE, away_s / 3), self._timing.session_s)

    def resign(self) -> float:
        """Grant nothing more, if that was not said before. How long to wait until all that was granted is over, and
        hosts have returned, seconds."""
        with self._lock:
            self._before, self._grantor = self._grantor or self._before, None
            if self._before is None:
                return 0.0
            return max(0.0, self._before.last_end() + LEAVES * self._timing.grant_s - self._clock())

    def pulse(self) -> float:
        """Prove, now and then, that this process leads, as long as somebody asks. Returns the seconds until the next
        time."""
        now = self._clock()
        with self._lock:
            self._notice_silence(now)
            self._awake_at = now
        if now >= self._pulsed_at + self._timing.prove_s:
            self._pulsed_at = now
            if now < self._asked_at + ASKED_S:
                self._store.pulse(now)
        return max(SHORTEST_S, self._pulsed_at + self._timing.prove_s - now)

    def _notice_silence(self, now: float) -> None:
        """Of the store; or this process itself stood still, and has heard nobody."""
        proved_at = self._store.proved_at
        heard_at = float("-inf") if proved_at is None else proved_at
        late_s = max(2 * self._timing.prove_s, self._timing.session_s / 8)  # proofs may take a while, and still come
        if now > min(heard_at + late_s, self._awake_at + 2 * self._timing.prove_s):
            silent_s = 0.0 if proved_at is None else now - heard_at
            self._blames_from = max(self._blames_from, now + self._return_s(silent_s))

    def hear(self, ask: Ask) -> Grant | None:
        """The answer; None: nobody is to answer, or the record must be `read` first. Does not wait."""
        leads_until = self._store.leads_until
        with self._lock:
            self._asked_at = self._clock()
            if self._grantor is None or self._store.epoch != self._epoch:
                return None  # or it was elected anew, and has not looked yet
            if ask.host in self._gone:
                return Grant(ask.number, refused=f"the session of {ask.host} is over")
            if not self._grantor.knows(ask):
                return None
            now = self._clock()
            if leads_until is None or leads_until < now + ALMOST * self._timing.grant_s:
                return Grant(ask.number, refused="this leader's own lease is over, or almost")
            return self._grantor.answer(ask, leads_until, now)

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
        """Hosts that rest on grants, and whose record this leader has to read, for leases are not watched: for the
        first time; again, before it can find them over; and then, while their sessions live, to find them back."""
        with self._lock:
            grantor, now = self._grantor, self._clock()
            if grantor is None:
                return ()
            resting = [lease for lease in view.leases.values() if lease.granted]
            self._asked_at = now if resting else self._asked_at  # nobody is blamed by who does not prove that it leads
            return tuple(
                one.host
                for one in resting
                if not grantor.has_read(one) or self._stale(one, grantor, now) or self._back_s(one, grantor, now) <= 0
            )

    def _stale(self, lease: Lease, grantor: Grantor, now: float) -> bool:
        """Whether it was not looked at since all that was granted is over."""
        end = grantor.end(lease.host)
        return end <= now and self._looked.get(lease.host, float("-inf")) < end

    def _back_s(self, lease: Lease, grantor: Grantor, now: float) -> float:
        """Seconds until it should be looked at again whether one that is over has gone back to its session."""
        if not lease.alive or now < grantor.end(lease.host):
            return float("inf")
        return self._looked.get(lease.host, float("-inf")) + self._timing.session_s / PATIENCE - now

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
        """Seconds until the next of those that rest on grants may be over, or back on its session."""
        with self._lock:
            now, grantor = self._clock(), self._grantor
            resting = [lease for lease in view.leases.values() if lease.granted and grantor]
            ends = [max(grantor.end(lease.host), self._blames_from) - now for lease in resting if grantor]
            ends += [self._back_s(lease, grantor, now) for lease in resting if grantor]
        return min((max(left_s, SHORTEST_S) for left_s in ends if left_s > 0), default=float("inf"))

    def give_up(self, change: Change, view: View) -> bool:
        """This change is about to be sent. False: it must not be, for a host was granted something since the look."""
        with self._lock:
            grantor, now = self._grantor, self._clock()
            lost = [view.leases[host] for host, _ in (*change.leases, *change.vouched)]
            return grantor is None or all(grantor.give_up(lease, now) for lease in lost)

    def settled(self, view: View) -> bool:
        """Whether nothing but questions is awaited: for the simulator."""
        waits = self._clock() < self._blames_from and any(lease.granted for lease in view.leases.values())
        return not waits and not self.unread(view) and self.unsure_s(view) == 0

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
