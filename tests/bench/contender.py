"""What takes part in the bench of takeovers, and the one thing that is done to all alike.

    power on ─▶ ready ─▶ at rest ─▶ a moment of chance ─▶ the owner's power is cut ─▶ answer ─▶ power off

Rule 1: while one takes part no other has power, so that none bears another's load.
Rule 2: every run begins with hosts that boot: nothing depends on the run before, but on what is on their disks.
Rule 3: who else is lost with the owner is chosen, and never left to chance: each kind of loss has figures of its own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from failover.lab import drill
from failover.lab.cgroups import Group
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from tests.bench.table import Row

PLAIN, LEADER, ZOOKEEPER = "plain", "leader", "zookeeper"
KINDS = {
    PLAIN: "plain",  # the owner has no other part
    LEADER: "leader lost",  # it is the one that decides, so another is elected first
    ZOOKEEPER: "ZooKeeper's leader lost",  # nothing is written before the other servers have elected one
}

AT_REST = 1.0  # processors that a lab keeps busy; more than that is still the boot
REST_WITHIN_S = 60.0
PHASE_S = 2.0  # of chance before a cut: longer than the periods of all timers that matter


def cut(lab: Lab, probe: Probe, owner: str) -> Row:
    """Cut the owner's power; seconds until the first answer to the client outside."""
    at = lab.power_off(owner)
    return {"answered": probe.await_answer(after=at + 0.1, timeout_s=drill.ANSWER_WITHIN_S) - at}


@dataclass(frozen=True)
class Contender:
    """`up`: a lab of that name with all that the runs need. `kinds`: of KINDS, those that it knows.

    `ready`: after a boot, have the address at a host whose loss is of that kind, and all well; returns the host.
    `cut`: cuts that host's power and returns the seconds of each step, "answered" (all of them) last.
    """

    name: str
    lab: str
    up: Callable[[str], AbstractContextManager[Lab]]
    url: str
    ready: Callable[[Lab, str], str]
    kinds: Sequence[str] = (PLAIN,)
    cut: Callable[[Lab, Probe, str], Row] = cut

    def take_over(self, lab: Lab, kind: str) -> Row:
        """One run, on a lab whose hosts have no power before and after."""
        try:
            for host in lab.real_hosts:
                lab.power_on(host)
            lab.await_services(60)
            owner = self.ready(lab, kind)
            with Probe(lab, self.url) as probe:
                probe.await_answer()
                _await_rest(lab)
                time.sleep(random.uniform(0, PHASE_S))
                return self.cut(lab, probe, owner)
        finally:
            power_off(lab)


def power_off(lab: Lab) -> None:
    """All hosts but the client."""
    for host in lab.real_hosts:
        if lab.host(host).powered:
            lab.power_off(host)


def _await_rest(lab: Lab) -> None:
    """A boot leaves work behind: replicas are compared, programs warm up. Who finds no rest is measured as it is."""
    deadline = time.monotonic() + REST_WITHIN_S
    while _load(lab, 1.0) > AT_REST and time.monotonic() < deadline:
        pass


def _load(lab: Lab, during_s: float) -> float:
    """Processors that the lab keeps busy, on average over that time."""
    before = _used_s(lab)
    time.sleep(during_s)
    return (_used_s(lab) - before) / during_s


def _used_s(lab: Lab) -> float:
    """Processor time of all processes that the lab has had."""
    words = (Group(lab.place.group()).unified / "cpu.stat").read_text().split()
    return int(words[words.index("usage_usec") + 1]) / 1e6
