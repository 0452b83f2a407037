"""Who stands first when nobody leads: a leader is best where little is owned. If its host is lost the leader is lost as
well, and what ran there must wait for the next one.

Rule 1: this is a wish. Whoever is not first waits for a moment and stands then; ZooKeeper decides who was elected.
Rule 2: who stands first does not wait at all.
"""

from __future__ import annotations

from failover.model import View, Want
from failover.plan.board import alive, is_drained, wanted

STEP_S = 0.05  # from one to the next: by then all have heard that nobody leads
LONGEST_S = 0.2  # also for who has stepped down for others


def stands_after_s(view: View, host: str, before: str | None) -> float:
    """For how long the process of `host` leaves it to others. `before`: whose process led last, as far as is known: it
    is gone, perhaps with its host."""
    others = [name for name in view.cluster.hosts if name not in (host, before) and alive(view, name)]
    if alive(view, host):
        others = [name for name in others if _harm(view, name) < _harm(view, host)]
    return min(STEP_S * len(others), LONGEST_S)


def better(view: View, host: str) -> str | None:
    """The host that a leader on this one should hand over to, if there is one."""
    others = [name for name in view.cluster.hosts if name != host and alive(view, name)]
    first = min(others, key=lambda name: _harm(view, name), default=None)
    return first if first is not None and _harm(view, first)[:2] < _harm(view, host)[:2] else None


def _harm(view: View, host: str) -> tuple[bool, int, str]:
    """If the leader runs there: whether it will soon be gone, then what runs there by now or is about to."""
    report = view.reports.get(host)
    leaves = is_drained(view, host) or (report is not None and report.leaving)
    owned = 0
    for name, vserver in view.cluster.vservers.items():
        word = view.assignments.get(name)
        owned += (word.owner if word else vserver.primary) == host and wanted(view, vserver) is Want.STARTED
    return leaves, owned, host
