"""A host is shut down in order: its agent is told first, and the power goes when nothing that moves is left on it.

    /run/failover/leaving ─▶ the agent says so ─▶ all moves, or is stopped and sent ─▶ the ordinary stop

Rule: what cannot leave holds the shutdown up for LONGEST_S and no longer; then it is stopped with the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from failover.lab import cgroups
from failover.lab.host import Host
from failover.lab.lab import Lab
from failover.lab.later import Later

LONGEST_S = 60.0
SETTLED_S = 2.0  # so long nothing has run on it, and nothing was being sent
POLL_S = 0.25
_SENDER = "rsync"  # the connections beneath it stay open


def begin(lab: Lab, name: str, after: Callable[[], None]) -> Later | None:
    """`after`: what is done once the host is off. Raises Refused when it has no power."""
    host = lab.host(name)
    lab.exec(name, ["sh", "-c", 'mkdir -p -m 700 "$(dirname "$0")" && touch "$0"', _leaving()])

    def off() -> None:
        lab.shut_down(name)
        after()

    if "guard" not in host.runs:  # no agent, nobody to wait for
        off()
        return None
    now = time.monotonic()
    return _poll(lab, host, off, now + LONGEST_S, now)


def _poll(lab: Lab, host: Host, off: Callable[[], None], until: float, busy_at: float) -> Later:
    def look() -> Later | None:
        now = time.monotonic()
        if not host.powered:
            return None
        if now < until and now < (seen_at := now if _busy(host) else busy_at) + SETTLED_S:
            return _poll(lab, host, off, until, seen_at)
        off()
        return None

    def stay() -> None:
        lab.exec(host.name, ["rm", "-f", _leaving()])

    return Later(POLL_S, "", look, stay)


def _leaving() -> str:
    from agents.machine import LEAVING

    return str(LEAVING)


def _busy(host: Host) -> bool:
    """Whether a vserver has processes here, or a tree is being sent."""
    groups = (host.group.unified / "vserver").glob("*")
    return any(cgroups.events(group).get("populated") for group in groups if group.is_dir()) or any(
        _name(pid) == _SENDER for pid in host.group.pids("init")
    )


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
