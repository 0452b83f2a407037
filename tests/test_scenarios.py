"""Every story under tests/scenarios is played with the production code, under a few random schedules."""

from __future__ import annotations

from pathlib import Path

import pytest

from failover.simulate.reading import load
from failover.simulate.replay import compared, play, shortened

SCENARIOS = Path(__file__).parent / "scenarios"
STORIES = {path.stem: path for path in sorted(SCENARIOS.rglob("*.yaml"))}
SEEDS = (1, 2, 3)


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
