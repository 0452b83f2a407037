"""On grants, the host that is lost is the leader's, or that of ZooKeeper's own leader: it is taken over while its
session lives, on real processes. Each host has a server of ZooKeeper, as most clusters of three have."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from failover.lab import drill, parts, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from failover.lab.rests import Rest, Rests
from failover.lab.watch import Watch
from tests.lab.cluster import cluster_of, others, owner_of, settle, settled

pytestmark = [pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"), pytest.mark.timeout(300)]

NAME = f"t{os.getpid()}-lost"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with cluster_of(NAME, tmp_path_factory.mktemp("cluster"), "normal", lease="grants") as lab:
        yield lab


def known_before(rests: list[Rest], moment: float) -> Rest:
    """What was known last. ZooKeeper may not have answered while it had no leader."""
    return [rest for rest in rests if rest.granted is not None and rest.at < moment][-1]


@pytest.mark.parametrize("part", ["leader", "leader of ZooKeeper"])
def test_who_is_lost_with_the_leader_is_taken_over_before_its_session_ends(lab: Lab, part: str) -> None:
    settle(lab)
    zookeeper = parts.zookeeper_leader(lab)
    leader = parts.have_another_lead(lab, zookeeper)
    lost = leader if part == "leader" else zookeeper
    if owner_of(lab, lab.operator) != lost:
        sample.failover(lab, lab.operator, "move", sample.NAME, lost)
        sample.await_("settled cluster", lambda: settled(lab))
    parts.await_grants(lab)
    with Rests(lab, NAME) as rests, Watch(lab, sample.NAME) as watch, Probe(lab, sample.URL) as probe:
        probe.await_answer()
        sample.await_("lease on grants", lambda: rests.now == frozenset(lab.real_hosts))
        taken = drill.take_over(lab, probe, lost, ask=others(lab, lost)[0])
        print(taken.steps())
        before = known_before(rests.all_seen(), taken.decided)
        assert lost in (before.granted or ()), f"its session was over, or it had gone back to it: {before}"
        assert [sight for sight in watch.sights if len(sight.speaks) > 1] == []
        assert watch.doubles() == []
