"""Since when at the latest ZooKeeper's leader knows that a session lives.

    request ──▶ answer          write ──▶ acknowledged
    ──┼───────────┼─── two ticks ──┼──────────┼──▶
      └ surely told by then        └ lost, if the server that has answered is cut off now

A server tells ZooKeeper's leader of the activity of its sessions when it answers that one's pings, which come every
half tick, and never else: a write that passes through it does not count as activity there. A ping may be late, when
ZooKeeper's leader has stood still for a moment; not by three times that pause while it takes writes.

Rule 1: a request counts, from its sending, when a write that was sent two ticks after its answer is acknowledged. That
        write went to the leader behind what was told before it.
Rule 2: to begin or to take up a session goes to the leader itself, so it counts at once, from before the attempt. Hence
        rule 1 holds as well when the write went through another server than the request.

Pure. All times are on one clock.
"""

from __future__ import annotations


class Touches:
    """Of one session. `kept_s`: for so long a server may keep to itself what it has heard (Timing.kept_s)."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._requests: tuple[tuple[float, float], ...] = ()  # sent, answered; those that do not count yet
        self.told_at: float | None = None  # what surely counts
        self.written_at: float | None = None  # the sending of the newest write that is acknowledged

    def begun(self, at: float) -> None:
        """The session was begun or taken up, by an attempt at this time."""
        self._tell(at)

    def answered(self, sent_at: float, now: float) -> None:
        """A request of any kind. Of those that any later write proves only the newest is kept."""
        old = [request for request in self._requests if request[1] <= now - self._kept_s]
        late = [request for request in self._requests if request[1] > now - self._kept_s]
        self._requests = (*([max(old)] if old else ()), *late, (sent_at, now))

    def acknowledged(self, sent_at: float, now: float) -> None:
        """A write."""
        for request in self._requests:
            if request[1] <= sent_at - self._kept_s:
                self._tell(request[0])
        self.answered(sent_at, now)
        self.written_at = max(sent_at, sent_at if self.written_at is None else self.written_at)

    def _tell(self, at: float) -> None:
        self.told_at = max(at, at if self.told_at is None else self.told_at)

    def skip(self, length_s: float) -> None:
        """As if so much time had passed with requests and answers as they are: for the simulator."""
        self._requests = tuple((sent + length_s, answered + length_s) for sent, answered in self._requests)
        self.told_at = None if self.told_at is None else self.told_at + length_s
        self.written_at = None if self.written_at is None else self.written_at + length_s
