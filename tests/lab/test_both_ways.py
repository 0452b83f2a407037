"""Eleven stories, each played by the simulator and on real processes: they must end alike.

One ensemble serves all of them; the hosts begin each story anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.lab.lab import Lab
from failover.lab.performance import perform
from failover.simulate.replay import play
from failover.stories.outcome import Outcome
from failover.stories.reading import open_story
from failover.stories.story import Move
from tests.lab.conftest import left_of

pytestmark = [pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"), pytest.mark.timeout(240)]

NAME = f"t{os.getpid()}-both"
SCENARIOS = Path(__file__).parents[1] / "scenarios"
LONGEST_S = 8.0  # more than a takeover, a move or a restart takes here
STORIES = (
    "shared/crash-with-two",
    "shared/owner-isolated",
    "shared/orderly-power-off",
    "shared/disarm-and-arm",
    "shared/stop-then-start",
    "drain/goes-and-stays-away",
    "double-faults/owner-and-leader",
    "stall/the-agent-starts-anew",
    "store/a-restart-is-not-noticed",
    "takeover/restart-by-command",
    "fence/the-ignored-waits-for-the-device",
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = Lab(NAME)
    try:
        yield lab
    finally:
        lab.down()
        assert left_of(NAME) == []


@pytest.mark.parametrize("story", STORIES)
def test_simulator_and_lab_end_alike(lab: Lab, story: str) -> None:
    opened = open_story(SCENARIOS / f"{story}.yaml")
    assert opened is not None
    simulated = play(opened.story, seed=1)
    said: list[str] = []
    real, differing = perform(opened, lab, f"{NAME}-{STORIES.index(story)}", said.append, longest_s=LONGEST_S)
    assert (simulated.differences, simulated.outcome.violations) == ((), ())
    assert (differing, real.violations) == ((), ()), "\n".join(real.story)
    assert unlike(opened.story.expect.final or {}, simulated.outcome, real) == [], "\n".join(real.story)


def unlike(allowed: dict[str, tuple[str, ...]], one: Outcome, other: Outcome) -> list[str]:
    """In what two outcomes differ; of what the story leaves open, either may be."""
    fixed = [name for name in one.final if len(allowed.get(name, ())) < 2]
    found = [f"{v} is {one.final[v]}, but {other.final[v]}" for v in fixed if one.final[v] != other.final[v]]
    found += [f"{v} moved otherwise" for v in fixed if moves(one, v) != moves(other, v)]
    if one.fenced != other.fenced:
        found.append(f"declared dead: {sorted(one.fenced)}, but {sorted(other.fenced)}")
    return found


def moves(outcome: Outcome, vserver: str) -> list[Move]:
    return [move for move in outcome.moves if move.vserver == vserver]


# --- the command ------------------------------------------------------------------------------------------------------

STORY = """
id: an-end-that-is-not-so
title: The owner loses its power, and the story is wrong about the end.
cluster:
  hosts: {h1: {}, h2: {}}
  vservers: {vA: {primary: h1, backups: [h2]}}
events: [{at: 100s, do: [power-off h1, move vB h2]}]
until: 120s
expect: {final: {vA: started@h1}, moves: [], rejected: 0}
"""


def command(story: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "failover", "lab", "play", str(story), "--name", f"{NAME}-command", *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_tells_differences_and_leaves_nothing(tmp_path: Path) -> None:
    story = tmp_path / "story.yaml"
    story.write_text(STORY.replace(", move vB h2", ""))
    process = command(story, "--json", "--longest", "5s")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    told = json.loads(out)
    assert told["id"] == "an-end-that-is-not-so" and not told["agreed"]
    assert "vA is started@h2, expected started@h1" in told["differences"]
    assert left_of(f"{NAME}-command") == []


def test_a_story_that_cannot_be_read_starts_nothing(tmp_path: Path) -> None:
    story = tmp_path / "story.yaml"
    story.write_text(STORY)
    process = command(story)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "'vB' is not under vservers" in err) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_play_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    story = tmp_path / "story.yaml"
    story.write_text(STORY.replace(", move vB h2", ""))
    process = command(story)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("a lab of 2 hosts")
    time.sleep(3.0)
    process.send_signal(number)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_of(f"{NAME}-command") == []
