"""Leases that rest on grants, on real processes: a lost host is taken over sooner than its session ends, and whatever
else breaks sends the hosts back to their sessions and moves nothing.

One lab serves all tests of this file; each begins with everything up, v1 running on a host that does not lead, every
replica fresh and every host on grants. ZooKeeper has hosts of its own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from failover.lab import drill, faults, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from failover.lab.rests import Rests, was_granted
from failover.lab.watch import Sight, Watch
from failover.timing import PROFILES
from tests.lab.cluster import cluster_of, first_process, others, owner_of, settle, settled

pytestmark = [pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"), pytest.mark.timeout(300)]

NAME = f"t{os.getpid()}-grants"
PROFILE = "normal"
TIMING = PROFILES["normal"]
STALL_S = 3.0  # longer than a grant, shorter than a session
AWAY_S = 6.0  # longer than a session
SOON_S = 8.0  # until a host whose agent has just begun rests on grants
TABLE = "lab-block"


@dataclass
class Cluster:
    """As a test begins. `watch` and `rests` look on."""

    lab: Lab
    owner: str
    leader: str
    rests: Rests
    watch: Watch

    @property
    def third(self) -> str:
        return next(name for name in self.lab.real_hosts if name not in (self.owner, self.leader))

    def status(self) -> dict:  # type: ignore[type-arg]
        return sample.status(self.lab, self.third)

    def sights(self) -> list[Sight]:
        with self.watch.watching():
            return list(self.watch.sights)

    def pauses(self) -> list[Sight]:
        """When it did not run on its owner, after it was first seen there."""
        sights = self.sights()
        first = next(number for number, sight in enumerate(sights) if self.owner in sight.runs)
        return [sight for sight in sights[first:] if self.owner not in sight.runs]

    def spoke_twice(self) -> list[Sight]:
        return [sight for sight in self.sights() if len(sight.speaks) > 1]

    def await_grants(self, *hosts: str, timeout_s: float = SOON_S) -> None:
        wanted = frozenset(hosts or self.lab.real_hosts)
        sample.await_("lease on grants", lambda: wanted <= self.rests.now, timeout_s=timeout_s, pause_s=0.05)

    def await_sessions(self, *hosts: str) -> None:
        left = frozenset(hosts)
        sample.await_("lease on the session", lambda: not left & self.rests.now, timeout_s=5.0, pause_s=0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Rests]]:
    with (
        cluster_of(NAME, tmp_path_factory.mktemp("cluster"), PROFILE, lease="grants", apart=True) as lab,
        Rests(lab, NAME) as rests,
    ):
        yield lab, rests


@pytest.fixture
def cluster(shared: tuple[Lab, Rests]) -> Iterator[Cluster]:
    lab, rests = shared
    settle(lab)
    leader, owner = str(sample.status(lab)["leader"]), owner_of(lab)
    if owner == leader:
        target = others(lab, leader)[0]
        sample.failover(lab, target, "move", sample.NAME, target)
        owner = target
        sample.await_("settled cluster", lambda: settled(lab))
    if rests.now != frozenset(lab.real_hosts):
        for host in lab.real_hosts:  # the more often one had to go back, the longer it waits; a new one begins anew
            faults.kill_service(lab, "agent", host)
    with Watch(lab, sample.NAME) as watch, Probe(lab, sample.URL) as probe:
        found = Cluster(lab, owner, leader, rests, watch)
        found.await_grants(timeout_s=20.0)
        probe.await_answer()
        yield found


@contextmanager
def unmoved(cluster: Cluster, *, pauses: bool = False) -> Iterator[None]:
    """Nobody who uses v1 notices what happens here: it runs on, in the same processes, by the same word. `pauses`: but
    for a moment."""
    before, epoch = first_process(cluster.lab, cluster.owner), cluster.status()["vservers"][sample.NAME]["epoch"]
    yield
    sample.await_("settled cluster", lambda: settled(cluster.lab))
    after = cluster.status()["vservers"][sample.NAME]
    assert (after["owner"], after["epoch"]) == (cluster.owner, epoch)
    assert first_process(cluster.lab, cluster.owner) == before
    assert pauses or cluster.pauses() == []
    assert cluster.watch.doubles() == []


# --- a host that is lost ----------------------------------------------------------------------------------------------


def test_a_power_cut_is_survived_sooner_than_the_session_of_the_host_ends(cluster: Cluster) -> None:
    with Probe(cluster.lab, sample.URL) as probe:
        probe.await_answer()
        taken = drill.take_over(cluster.lab, probe, cluster.owner, ask=cluster.third)
    print(taken.steps())
    assert was_granted(cluster.rests.all_seen(), cluster.owner, taken.cut)
    assert taken.noticed - taken.cut < TIMING.session_s / 2
    assert taken.answered - taken.cut < TIMING.session_s
    assert cluster.watch.doubles() == []
    cluster.await_grants(taken.target, cluster.leader)


def test_a_host_that_stood_still_does_not_speak_beside_its_successor(cluster: Cluster) -> None:
    began = time.monotonic()
    faults.perform(cluster.lab, f"stall {cluster.owner} {STALL_S}s")
    sample.await_("settled cluster", lambda: settled(cluster.lab))
    assert owner_of(cluster.lab, cluster.third) != cluster.owner
    spoke = [sight.at for sight in cluster.sights() if cluster.owner in sight.speaks and sight.at > began + 1.0]
    assert (cluster.spoke_twice(), spoke) == ([], [])


# --- a guard ----------------------------------------------------------------------------------------------------------


def test_a_guard_that_is_killed_is_not_noticed(cluster: Cluster) -> None:
    """Unless the machine is so slow that the next guard cannot ask before the grant of the one before is over."""
    with unmoved(cluster, pauses=began_s(cluster) > TIMING.grant_s / 2):
        faults.kill_service(cluster.lab, "guard", cluster.owner)
    cluster.await_grants(cluster.third, cluster.leader)


def began_s(cluster: Cluster) -> float:
    """What a guard needs to begin, here and now."""
    began = time.monotonic()
    cluster.lab.exec(cluster.owner, [sys.executable, "-c", "import agents.guard"])
    return time.monotonic() - began


def test_when_a_guard_stands_still_the_fence_closes_by_itself_and_the_agent_holds_on_to_its_session(
    cluster: Cluster,
) -> None:
    """What is not frozen yet reaches nobody, and runs nowhere else."""
    faults.perform(cluster.lab, f"guard-hang {cluster.owner} {STALL_S}s")
    sample.await_("settled cluster", lambda: settled(cluster.lab))
    assert cluster.spoke_twice() == []
    assert cluster.watch.doubles() == []


def test_a_guard_that_cannot_write_lets_nothing_run_longer_than_its_disk_says(cluster: Cluster) -> None:
    fill_run(cluster.lab, cluster.owner)
    time.sleep(STALL_S)
    cluster.lab.exec(cluster.owner, ["rm", "/run/filler"])
    sample.await_("settled cluster", lambda: settled(cluster.lab))
    assert cluster.watch.doubles() == []


def fill_run(lab: Lab, host: str) -> None:
    """As much room as it has taken, and not a page more."""
    script = (
        "size=$(df --output=used -k /run | tail -1); mount -o remount,size=$((size + 64))k /run; "
        "! dd if=/dev/zero of=/run/filler bs=1k 2>/dev/null"
    )
    lab.exec(host, ["sh", "-c", script])


# --- an agent, a leader -----------------------------------------------------------------------------------------------


def test_an_agent_that_is_killed_is_not_noticed(cluster: Cluster) -> None:
    with unmoved(cluster):
        faults.kill_service(cluster.lab, "agent", cluster.owner)
    cluster.await_grants()


def test_without_a_leader_every_host_is_on_its_session_and_nothing_moves(cluster: Cluster) -> None:
    with unmoved(cluster):
        faults.stop_service(cluster.lab, "leader", cluster.leader)
        cluster.await_sessions(*cluster.lab.real_hosts)
        sample.await_("other leader", lambda: cluster.status()["leader"] not in (None, cluster.leader))
        cluster.await_grants(timeout_s=20.0)
        faults.start_service(cluster.lab, "leader", cluster.leader)


# --- the network, the store -------------------------------------------------------------------------------------------

QUESTIONS, ANSWERS = "udp dport 7182", "udp sport 7182"
BLOCKED = {
    "questions": (QUESTIONS,),
    "answers": (ANSWERS,),
    "both": (QUESTIONS, ANSWERS),
}


@pytest.mark.parametrize("what", BLOCKED)
def test_a_host_whose_datagrams_are_lost_is_on_its_session_and_nothing_moves(cluster: Cluster, what: str) -> None:
    with unmoved(cluster):
        block(cluster.lab, cluster.owner, BLOCKED[what])
        try:
            cluster.await_sessions(cluster.owner)
            time.sleep(TIMING.session_s)
        finally:
            cluster.lab.exec(cluster.owner, ["nft", "delete", "table", "inet", TABLE])


def block(lab: Lab, host: str, what: tuple[str, ...]) -> None:
    lines = [f"add table inet {TABLE}"]
    for hook in ("input", "output"):
        lines.append(f"add chain inet {TABLE} {hook} {{ type filter hook {hook} priority 0 ; }}")
        lines += [f"add rule inet {TABLE} {hook} {one} drop" for one in what]
    lab.exec(host, ["nft", "; ".join(lines)])


def test_without_the_store_everything_runs_on_by_promises(cluster: Cluster) -> None:
    with unmoved(cluster):
        faults.perform(cluster.lab, "store-down")
        time.sleep(AWAY_S)
        faults.perform(cluster.lab, "store-up")
    cluster.await_grants(timeout_s=20.0)
