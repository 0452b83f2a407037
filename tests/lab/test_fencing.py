"""A host's power is really cut, by the fence agent of the lab that the leader runs. Claim S16.

One lab serves all tests of this file; each begins with everything up, v1 running and every replica fresh.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agents.command import CommandFailed
from failover.lab import sample
from failover.lab.lab import Lab
from failover.lab.outlets import Outlets
from failover.lab.watch import Watch
from failover.timing import PROFILES
from tests.lab.cluster import others, owner_of, settle
from tests.lab.conftest import left_of

pytestmark = [pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"), pytest.mark.timeout(300)]

NAME = f"t{os.getpid()}-fence"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(NAME)
    try:
        config = sample.cluster_file(tmp_path_factory.mktemp("cluster"), NAME)
        text = config.read_text().replace("timing: fast", "timing: normal\nlease: session")
        for host in ("hostA", "hostB", "hostC"):
            text = text.replace(f"{host}: {{", f"{host}: {{fence: {{agent: fence_lab, options: {{plug: {host}}}}}, ")
        assert text.count("fence_lab") == 3
        config.write_text(text)
        lab.up(config=config)
        sample.failover(lab, "hostA", "apply")
        sample.vserver(lab, "hostA", sample.NAME, "build", "-m", "busybox")
        yield lab
    finally:
        lab.down()
        assert left_of(NAME) == []


@pytest.fixture
def lab(shared: Lab) -> Lab:
    return settle(shared)


def leader(lab: Lab) -> str:
    return str(sample.status(lab, lab.operator)["leader"])


def away_from_the_leader(lab: Lab) -> str:
    """v1 is owned by a host that does not lead; which one."""
    leads = leader(lab)
    if owner_of(lab, lab.operator) == leads:
        sample.failover(lab, lab.operator, "move", sample.NAME, others(lab, leads)[0])
        settle(lab)
    owner = owner_of(lab, lab.operator)
    assert owner != leader(lab)
    return owner


def history(lab: Lab) -> list[dict[str, Any]]:
    said = lab.exec(lab.operator, ["failover", "history", "--json", "--limit", "1000"]).stdout.decode()
    return [json.loads(line) for line in said.splitlines()]


def test_s16_a_silent_host_whose_power_is_cut_is_taken_over_and_nothing_runs_twice(lab: Lab) -> None:
    """By command, a moment before the leader would do it by itself: which is first, the device or the session's end,
    depends on how busy this machine is."""
    owner, before = away_from_the_leader(lab), len(history(lab))
    with Outlets(lab) as outlets, Watch(lab, sample.NAME) as watch:
        lab.isolate(owner)
        time.sleep(2 * PROFILES["normal"].renew_s + 0.1)
        said = sample.failover(lab, leader(lab), "fence", owner)
        assert re.search(f"{owner} is off( already)?, says fence_lab", said)
        assert not lab.host(owner).powered
        sample.await_("takeover", lambda: owner_of(lab, lab.operator) != owner)
        assert watch.doubles() == []
    assert outlets.asked[:2] == [f"off {owner}", f"status {owner}"]
    assert {"fencing", "fenced"} <= {event["kind"] for event in history(lab)[before:] if event["host"] == owner}
    lab.join(owner)


def test_s16_what_is_ignored_runs_on_where_nobody_sees_it_until_its_power_is_cut(lab: Lab) -> None:
    owner = away_from_the_leader(lab)
    sample.failover(lab, lab.operator, "ignore", sample.NAME)
    lab.isolate(owner)
    sample.await_("a lost host", lambda: sample.status(lab, lab.operator)["hosts"][owner]["state"] == "lost")
    time.sleep(2)
    assert lab.host(owner).vserver(sample.NAME), "no lease ends what is ignored"
    with Outlets(lab), Watch(lab, sample.NAME) as watch:
        sample.failover(lab, lab.operator, "start", sample.NAME, "--no-wait")
        sample.await_("takeover", lambda: owner_of(lab, lab.operator) != owner)
        assert not lab.host(owner).powered
        time.sleep(3)
        assert watch.doubles() == []
    takeover = [event for event in history(lab) if event["kind"] == "takeover"][-1]
    assert takeover["text"].startswith(f"{owner} is off; ")
    lab.join(owner)


def test_an_operator_has_the_power_cut_and_is_told_how_it_ends(lab: Lab) -> None:
    owner = away_from_the_leader(lab)
    with pytest.raises(CommandFailed, match="is up: it renewed its lease") as refused:
        sample.failover(lab, lab.operator, "fence", owner)
    assert refused.value.returncode == 3
    with pytest.raises(CommandFailed, match="leads the cluster") as refused:
        sample.failover(lab, lab.operator, "fence", leader(lab), "--though-alive")
    assert refused.value.returncode == 4
    with Outlets(lab), Watch(lab, sample.NAME) as watch:
        said = sample.failover(lab, leader(lab), "fence", owner, "--though-alive").splitlines()
        assert said == [f"fence_lab is to cut the power of {owner}", f"{owner} is off, says fence_lab"]
        assert not lab.host(owner).powered
        sample.await_("takeover", lambda: owner_of(lab, lab.operator) != owner)
        assert watch.doubles() == []
