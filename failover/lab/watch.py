"""Who runs which vserver, and who speaks with its addresses? Looked at every 10 ms from outside the hosts.

runs     hosts in which the vserver's cgroup has processes that are not frozen
speaks   hosts from whose port the switch got a frame with one of its addresses as the source, in the last 10 ms
"""

from __future__ import annotations

import ipaddress
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover.errors import BadInput
from failover.lab.cgroups import events
from failover.lab.lab import Lab
from failover.lab.observer import PERIOD_S, Observer, say

LATE_S = 0.03
_TOLD_EVERY = 100  # looks
_ALL_FRAMES = 0x0003
_RECEIVE_BUFFER_FORCED = 33
_SOL_PACKET, _IGNORE_OUTGOING, _STATISTICS = 263, 23, 6
_EXITING, _SIGKILL = 0x4, 1 << 8  # of a process's flags, of a mask of signals
_SOURCE = {0x0800: (26, 4), 0x0806: (28, 4), 0x86DD: (22, 16)}  # ethertype: where the source is, and how long


@dataclass(frozen=True)
class Sight:
    """From `at` (CLOCK_MONOTONIC) until the next sight."""

    at: float
    runs: tuple[str, ...]
    speaks: tuple[str, ...]
    lost: int = 0  # frames that the observer could not read in time, so far
    late: bool = False  # the look before this one was more than LATE_S ago: two that speak may have done so in turn


class WatchAll(Observer):
    """Several vservers at once, each with its addresses. `looks`: how often it has looked; `longest_s`: the longest
    time between two looks."""

    def __init__(self, lab: Lab, vservers: Mapping[str, Sequence[str]]) -> None:
        watched = {
            vserver: {
                "groups": {name: str(lab.host(name).group.unified / "vserver" / vserver) for name in lab.real_hosts},
                "addresses": [address.partition("/")[0] for address in addresses],
            }
            for vserver, addresses in vservers.items()
        }
        words = [sys.executable, "-m", "failover.lab.watch", json.dumps(watched)]
        super().__init__(["nsenter", f"--net={lab.place.switch}", *words])
        self.seen: dict[str, list[Sight]] = {vserver: [] for vserver in vservers}  # only changes
        self.looks, self.longest_s = 0, 0.0

    def see(self, said: dict[str, Any]) -> None:
        if "looks" in said:
            self.looks, self.longest_s = said["looks"], said["longest_s"]
            return
        sight = Sight(said["at"], tuple(said["runs"]), tuple(said["speaks"]), said["lost"], said["late"])
        self.seen[said["vserver"]].append(sight)

    def all_seen(self) -> dict[str, list[Sight]]:
        with self.watching():
            return {vserver: list(sights) for vserver, sights in self.seen.items()}


class Watch(WatchAll):
    """`addresses`: those of the lab's cluster file when left out."""

    def __init__(self, lab: Lab, vserver: str, addresses: Sequence[str] | None = None) -> None:
        super().__init__(lab, {vserver: addresses or _declared(lab, vserver)})
        self.sights = self.seen[vserver]

    def doubles(self) -> list[Sight]:
        """Every moment at which more than one host ran the vserver or spoke with its addresses."""
        with self.watching():
            return [sight for sight in self.sights if len(sight.runs) > 1 or len(sight.speaks) > 1]


def _declared(lab: Lab, vserver: str) -> tuple[str, ...]:
    from failover.config import load

    cluster = load(lab.place.host(lab.real_hosts[0]) / "etc/cluster.yaml")
    if vserver not in cluster.vservers:
        raise BadInput(f"the lab's cluster file has no vserver '{vserver}'")
    return cluster.vservers[vserver].addresses


# --- the process beside the switch


@dataclass
class _Watched:
    vserver: str
    groups: dict[str, Path]
    addresses: set[bytes]
    last: dict[str, Any] | None = None


def _observe(watched: list[_Watched]) -> None:
    frames = _listen()
    lost, looks, longest_s = 0, 0, 0.0
    say({})
    due = looked_at = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        due = max(due + PERIOD_S, time.monotonic())
        spoke = _speakers(frames)
        since_s, looked_at = time.monotonic() - looked_at, time.monotonic()
        lost += struct.unpack("II", frames.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
        looks, longest_s = looks + 1, max(longest_s, since_s)
        for one in watched:
            speaks = {port for port, address in spoke if address in one.addresses and port in one.groups}
            seen = {
                "vserver": one.vserver,
                "runs": _runners(one.groups),
                "speaks": sorted(speaks),
                "lost": lost,
                "late": since_s > LATE_S,
            }
            if seen != one.last:
                say({"at": time.monotonic(), **seen})
            one.last = seen
        if looks % _TOLD_EVERY == 0:
            say({"looks": looks, "longest_s": longest_s})


def _listen() -> socket.socket:
    """Every frame that comes into any port of the switch, also of hosts that are powered on later."""
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES))
    frames.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    frames.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCED, 16 << 20)
    frames.setblocking(False)
    return frames


def _speakers(frames: socket.socket) -> set[tuple[str, bytes | None]]:
    """Ports and the addresses with which something spoke there; it is seen at the port, and again at the bridge."""
    spoke = set()
    try:
        while True:
            frame, origin = frames.recvfrom(64)
            spoke.add((origin[0], source_of(frame)))
    except BlockingIOError:
        return spoke


def source_of(frame: bytes) -> bytes | None:
    """The network address from which an Ethernet frame says that it comes."""
    found = _SOURCE.get(int.from_bytes(frame[12:14], "big"))
    return frame[found[0] : found[0] + found[1]] if found else None


def _runners(groups: Mapping[str, Path]) -> list[str]:
    """One after another is looked at, so two are looked at once more: only who was seen before and after the other ran
    at the same time."""
    runs = [host for host, group in groups.items() if _runs(group)]
    return runs if len(runs) < 2 else [host for host in runs if _runs(groups[host])]


def _runs(group: Path) -> bool:
    seen = events(group)
    return seen.get("populated") == 1 and seen.get("frozen") != 1 and any(map(_executes, _processes(group)))


def _processes(group: Path) -> list[str]:
    """Their numbers on the machine; a group that has just gone has none."""
    with suppress(OSError):
        return [pid for procs in group.rglob("cgroup.procs") for pid in procs.read_text().split()]
    return []


def _executes(pid: str) -> bool:
    """Whether a process may still execute something. While a frozen group is being killed the kernel does not call it
    frozen any more, but each of its processes waits in the freezer, has its SIGKILL, or is on its way out."""
    process = Path("/proc") / pid
    try:
        status = (process / "status").read_text()
        if "do_freezer_trap" in (process / "wchan").read_text():
            return False
        flags = int((process / "stat").read_text().rpartition(") ")[2].split()[6])
    except (OSError, ValueError):
        return False  # it is gone
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return not flags & _EXITING and not any(mask & _SIGKILL for mask in pending)


if __name__ == "__main__":
    _observe(
        [
            _Watched(
                vserver,
                {host: Path(group) for host, group in told["groups"].items()},
                {ipaddress.ip_address(address).packed for address in told["addresses"]},
            )
            for vserver, told in json.loads(sys.argv[1]).items()
        ]
    )
