"""How soon what a lost host owned is given to another, with leases on grants, in the simulator: also when it led, and
when it was the host of ZooKeeper's leader as well."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from failover.model import frozen_map
from failover.simulate.engine import simulate
from failover.stories.story import Initial
from failover.timing import PROFILES
from tests.universes import MIDST, cluster, events

SEEDS = range(12)
LATER_S, CUT_S = 3, 60
ELECTED_S = 1.5  # ZooKeeper has another leader so long after it has lost its own (failover/timeline.py)

LOST = {
    "its power": {CUT_S: "power-off h1"},
    "all its cables": {CUT_S: "isolate h1"},
    "its power, and ZooKeeper its leader": {CUT_S: "power-off h1; store-down", CUT_S + ELECTED_S: "store-up"},
}
WITHIN_S = {  # of the host that leads, by what else is lost with it
    "fast": (1.5, 1.5, 3.2),
    "normal": (2.0, 2.0, 3.5),
    "patient": (5.5, 5.5, 7.0),
}


def initial(seed: int) -> Initial:
    """Where little is owned stands first for election: so every other time the owner is alone at first, and leads."""
    return (
        replace(MIDST, power=frozen_map({"h2": False, "h3": False}), running=frozen_map({"v": ("h1",)}))
        if seed % 2
        else MIDST
    )


def seconds_after_the_cut(story: tuple[str, ...], text: str, cut_s: float = CUT_S) -> float:
    (at, *_) = [float(found[1]) for line in story if (found := re.match(rf"\s*(\S+) s  {text}", line))]
    return at - cut_s


def leads(story: tuple[str, ...], host: str, cut_s: float = CUT_S) -> bool:
    elections = [found for line in story if (found := re.match(r"\s*(\S+) s  (\S+) leads", line))]
    return [found[2] for found in elections if float(found[1]) < cut_s][-1] == host


@pytest.mark.parametrize("timing", PROFILES)
@pytest.mark.parametrize("lost", LOST)
def test_what_a_lost_host_owned_is_given_to_another_in_time_also_when_it_led(lost: str, timing: str) -> None:
    ours = cluster(timing=timing)
    within_s, led = WITHIN_S[timing][list(LOST).index(lost)], 0
    for seed in SEEDS:
        told = {LATER_S: "power-on h2; power-on h3", **LOST[lost]} if seed % 2 else LOST[lost]
        played = simulate(ours, initial=initial(seed), traits={}, events=events(told), until_s=CUT_S + 30.0, seed=seed)
        at_s = seconds_after_the_cut(played.story, "v: epoch 2")
        assert at_s <= within_s, f"seed {seed}"
        led += leads(played.story, "h1")
        assert not any("w: epoch 2" in line for line in played.story), f"seed {seed}: who is well keeps what it runs"
    assert led >= 4, "the lost host led, now and then"


RESTARTED_S, SOON_S = 4.5, 9.0


def test_who_has_only_just_gone_over_to_grants_is_found_there_by_the_next_leader() -> None:
    """Leases are not watched, and who stands by looks at them now and then: this one was on its session then."""
    within_s, led = PROFILES["normal"].session_s - PROFILES["normal"].renew_s, 0
    for seed in range(1, 13, 2):
        told = {LATER_S: "power-on h2; power-on h3", RESTARTED_S: "agent-restart h1", SOON_S: "power-off h1"}
        played = simulate(cluster(), initial=initial(seed), traits={}, events=events(told), until_s=25.0, seed=seed)
        rested = [line for line in played.story if "h1 rests on the grants" in line]
        if leads(played.story, "h1", SOON_S) and seconds_after_the_cut(tuple(rested[-1:]), "h1", SOON_S) < 0:
            led += len(rested) > 1
            assert seconds_after_the_cut(played.story, "v: epoch 2", SOON_S) < within_s, f"seed {seed}"
    assert led >= 3, "it led, and had gone over a second time"
