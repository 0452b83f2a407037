"""Every story under tests/scenarios is played with the production code, under a few random schedules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from failover.simulate.engine import simulate
from failover.simulate.replay import compared, play, shortened
from failover.stories.outcome import Outcome, differences
from failover.stories.reading import load

SCENARIOS = Path(__file__).parent / "scenarios"
STORIES = {path.stem: path for path in sorted(SCENARIOS.rglob("*.yaml"))}
SEEDS = (1, 2, 3)
SLOWLY = (
    "a-blip-below-the-lease", "a-chain-of-starts", "a-device-is-tried-again", "by-command-and-device",
    "a-drain-across-a-cut-link", "a-failed-host-stays-out-for-a-minute",
    "a-long-outage-moves-nothing", "a-long-stall-is-a-loss", "a-move-takes-its-set-along",
    "a-new-guard-waits-as-long-again", "a-switch-hiccup",
    "agent-guard-and-network", "auto-returns", "back-and-forth", "commands-are-refused-meanwhile", "crash-with-two",
    "cut-off-backup-catches-up", "fenced-by-hand", "hand-started-while-ignored", "keep-waits-for-a-reboot",
    "nothing-new-without-store", "old-owner-returns-with-writes", "set-aside-once-there-is-room",
    "the-backup-loses-power-in-mid-round", "the-link-blinks-in-mid-round", "the-third-crash-moves-it",
    "two-share-the-room-of-a-backup", "what-cannot-be-frozen-and-comes-back", "what-cannot-be-frozen-is-killed",
)  # fmt: skip


@pytest.mark.parametrize("path", STORIES.values(), ids=STORIES.keys())
def test_a_story_ends_as_it_must(path: Path) -> None:
    story = load(path)
    for played in compared(story, [play(story, seed) for seed in SEEDS]):
        where = f"failover simulate {path} --first-seed {played.seed} --seeds 1 --story"
        wrong = (*played.outcome.violations, *played.differences)
        assert not wrong, "\n".join((*wrong, *shortened(played.outcome), where))


def test_a_story_is_named_after_its_file_and_names_are_unique() -> None:
    paths = sorted(SCENARIOS.rglob("*.yaml"))
    assert [load(path).id for path in paths] == [path.stem for path in paths]
    assert len(STORIES) == len(paths)


@pytest.mark.parametrize("path", STORIES.values(), ids=STORIES.keys())
def test_a_story_expects_something_and_says_what_it_is_about(path: Path) -> None:
    story = load(path)
    assert story.events is not None
    assert story.expect.final is not None
    assert story.title.endswith(".")


@pytest.mark.parametrize("name", SLOWLY)
def test_a_story_ends_alike_when_no_idle_time_is_left_out(name: str) -> None:
    story = load(STORIES[name])
    assert story.events is not None

    def played(*, fast_forward: bool) -> Outcome:
        return simulate(
            story.cluster,
            initial=story.initial,
            traits=story.traits,
            events=story.events or (),
            until_s=story.until_s,
            seed=1,
            fast_forward=fast_forward,
        )

    fast, slow = played(fast_forward=True), played(fast_forward=False)
    assert not differences(story, slow)
    assert essence(fast) == essence(slow)


def essence(outcome: Outcome) -> object:
    moves = sorted(outcome.moves, key=lambda move: move.vserver)
    begun = outcome.started, outcome.stopped
    return outcome.final, outcome.fenced, moves, outcome.rejected, outcome.violations, begun


def test_equal_seeds_give_equal_stories_in_any_process() -> None:
    paths = [str(STORIES[name]) for name in ("a-set-of-three", "the-next-leader-remembers", "a-switch-restarts")]
    argv = [sys.executable, "-m", "failover", "simulate", *paths, "--story", "--json", "--seeds", "2", "--jobs", "1"]
    told = [
        subprocess.run(
            argv,
            cwd=SCENARIOS.parent.parent,
            env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("3", "4")
    ]
    assert told[0] == told[1]
    assert told[0].count("\n") == len(paths)
