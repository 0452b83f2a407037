"""Without the store, on real processes: what runs goes on by promises, is frozen without one, and never runs twice.

One lab serves all tests of this file; each begins with everything up, v1 running and every replica fresh.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from failover.lab import cgroups, faults, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from failover.lab.watch import Sight, Watch
from failover.timing import PROFILES
from tests.lab.cluster import cluster_of, first_process, others, owner_of, settle, settled

pytestmark = [pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"), pytest.mark.timeout(300)]

NAME = f"t{os.getpid()}-store"
TIMING = PROFILES["normal"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with cluster_of(NAME, tmp_path_factory.mktemp("cluster"), timing="normal") as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    return settle(shared)


def frozen(lab: Lab, host: str) -> bool:
    return cgroups.events(lab.host(host).group.unified / "vserver" / sample.NAME).get("frozen") == 1


def await_frozen(lab: Lab, host: str, timeout_s: float = 30.0) -> float:
    """When it was seen frozen (CLOCK_MONOTONIC)."""
    sample.await_(f"frozen vserver on {host}", lambda: frozen(lab, host), timeout_s=timeout_s, pause_s=0.005)
    return time.monotonic()


def store_down(lab: Lab) -> float:
    faults.perform(lab, "store-down")
    return time.monotonic()


def pauses(watch: Watch, host: str) -> list[Sight]:
    """The moments, after it was first seen running there, at which it did not run there."""
    with watch.watching():
        sights = list(watch.sights)
    first = next(number for number, sight in enumerate(sights) if host in sight.runs)
    return [sight for sight in sights[first:] if host not in sight.runs]


def test_the_store_away_for_15_s_is_not_noticed_by_whoever_uses_a_vserver(lab: Lab) -> None:
    source = owner_of(lab)
    before, epoch = first_process(lab, source), sample.status(lab)["vservers"][sample.NAME]["epoch"]
    with Watch(lab, sample.NAME) as watch, Probe(lab, sample.URL) as probe:
        probe.await_answer()
        began = store_down(lab)
        time.sleep(15)
        ended = time.monotonic()
        faults.perform(lab, "store-up")
        sample.await_("settled cluster", lambda: settled(lab))
        assert pauses(watch, source) == []
        assert probe.longest_outage(began, ended) == 0.0  # then three servers start at once on this one machine
        assert watch.doubles() == []
    assert (owner_of(lab), first_process(lab, source)) == (source, before)
    assert sample.status(lab)["vservers"][sample.NAME]["epoch"] == epoch


def test_agents_that_are_killed_meanwhile_change_nothing(lab: Lab) -> None:
    source = owner_of(lab)
    before = first_process(lab, source)
    with Watch(lab, sample.NAME) as watch:
        store_down(lab)
        for host in (source, *others(lab, source)):
            time.sleep(3)
            faults.kill_service(lab, "agent", host)
        time.sleep(3)
        faults.perform(lab, "store-up")
        sample.await_("settled cluster", lambda: settled(lab))
        assert pauses(watch, source) == []
    assert first_process(lab, source) == before


def test_with_a_backup_off_it_is_frozen_at_the_end_of_its_lease_and_thawed_when_the_store_is_back(lab: Lab) -> None:
    source = owner_of(lab)
    before, off = first_process(lab, source), others(lab, source)[0]
    lab.power_off(off)
    sample.await_("loss", lambda: sample.status(lab, others(lab, source)[1])["hosts"][off]["state"] == "lost")
    began = store_down(lab)
    stopped = await_frozen(lab, source)
    assert stopped - began < TIMING.lease_s + 1.0
    time.sleep(3)
    assert frozen(lab, source)
    lab.power_on(off)
    time.sleep(5)
    assert frozen(lab, source), "a right that has ended does not come back with a promise"
    faults.perform(lab, "store-up")
    sample.await_("settled cluster", lambda: settled(lab))
    assert (owner_of(lab), first_process(lab, source)) == (source, before)


@pytest.mark.parametrize("meanwhile", ["", "agent-restart {giver}", "agent-hang {owner} 3s", "stall {owner} 3s"])
def test_s11_a_promise_binds_against_the_leaders_word(lab: Lab, meanwhile: str) -> None:
    """The owner alone has lost the store, and goes by promises. The leader gives v1 to one that has promised."""
    source = owner_of(lab)
    ask = others(lab, source)[0]
    with Watch(lab, sample.NAME) as watch, Probe(lab, sample.URL) as probe:
        probe.await_answer()
        cut = time.monotonic()
        faults.perform(lab, f"cut {source} store")
        try:
            time.sleep(TIMING.lease_s - 0.5)
            if meanwhile:
                faults.perform(lab, meanwhile.format(owner=source, giver=ask))
            sample.await_("takeover", lambda: owner_of(lab, ask) != source, timeout_s=30)
            target = owner_of(lab, ask)
            sample.await_("start", lambda: sample.running_on(lab, target, ask), timeout_s=30)
            probe.await_answer(after=time.monotonic())
        finally:
            faults.perform(lab, f"mend {source} store")
        sample.await_("settled cluster", lambda: settled(lab))
        with watch.watching():
            sights = list(watch.sights)
        assert [sight for sight in watch.doubles() if len(sight.speaks) > 1 or "stall" not in meanwhile] == []
    started = next(sight.at for sight in sights if target in sight.runs)
    ran = max(later.at for sight, later in pairwise(sights) if source in sight.runs)
    assert ran <= started or "stall" in meanwhile
    if not meanwhile:
        assert ran > cut + TIMING.session_s, "it ran on by promises until the leader had spoken"
