"""`failover simulate`: exit codes, what is printed, seeds, and random faults. A fake engine plays; the real one has its
own tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from failover.cli import main, simulated
from failover.config import parse
from failover.errors import BadInput
from failover.simulate import replay
from failover.simulate.chances import QUIET_AFTER_S, Cost, draw, percentile
from failover.stories.events import Event
from failover.stories.outcome import Outcome
from failover.stories.story import Move

CLUSTER = "{hosts: {h1: {}, h2: {}}, vservers: {vA: {primary: h1, backups: [h2]}}}"
STORY = f"""
id: a-story
title: Something happens.
cluster: {CLUSTER}
events: [{{at: 10s, do: power-off h1}}]
until: 60s
expect: {{final: {{vA: started@h2}}, fenced: [h1]}}
"""
AS_EXPECTED = Outcome(
    {"vA": "started@h2"},
    frozenset(("h1",)),
    (Move("vA", "h1", "h2", "takeover"),),
    story=tuple(f"{n:10.3f} s  line {n}" for n in range(100)),
    outages={"vA": (2.5,)},
    lost={"vA": (0.5,)},
)
Engine = Callable[..., Outcome]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], None]:
    def use(fake: Engine) -> None:
        monkeypatch.setattr(replay, "simulate", fake)

    use(lambda *_args, **_words: AS_EXPECTED)
    return use


def run(*words: str | Path) -> int:
    options = main.parser().parse_args(["simulate", "--jobs", "1", *map(str, words)])
    return int(options.run(options) or 0)


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "a-story.yaml"
    path.write_text(STORY)
    return path


def test_what_agrees_is_one_line(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(story) == 0
    assert capsys.readouterr().out == "agreed  a-story\n"
    assert run(story, story, "--seeds", "3") == 0
    assert capsys.readouterr().out == "agreed  a-story  3 seeds\n" * 2 + "\n2 stories, all agreed\n"


def test_a_difference_is_told_with_the_command_that_replays_it(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(lambda *_args, **_words: replace(AS_EXPECTED, final={"vA": "frozen@h1"}))
    assert run(story, "--first-seed", "17") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["FAILED  a-story  Something happens.", "  vA is frozen@h1, expected started@h2"]
    assert said[-1] == f"  replay it: failover simulate {story} --first-seed 17 --seeds 1 --story"
    assert "    … 72 lines left out (--story shows them)" in said
    assert "        99.000 s  line 99" in said


def test_the_whole_story_is_told_when_asked_for(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(story, "--story") == 0
    assert len(capsys.readouterr().out.splitlines()) == 101


def test_a_breach_fails_a_story_that_ended_well(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(lambda *_args, **_words: replace(AS_EXPECTED, violations=("40.000 s  line 40",)))
    assert run(story) == 1
    said = capsys.readouterr().out
    assert "  40.000 s  line 40" in said
    assert "line 41" not in said


def test_an_error_in_the_code_fails_its_story_only(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: object, seed: int, **_words: object) -> Outcome:
        if seed == 2:
            raise KeyError("vA")
        return AS_EXPECTED

    engine(broken)
    assert run(story, "--seeds", "3") == 1
    said = capsys.readouterr().out
    assert "1 of 3 seeds" in said and "an error was raised: KeyError('vA')" in said


def test_seeds_must_agree_with_each_other(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(lambda *_args, seed, **_words: replace(AS_EXPECTED, rejected=seed - 1))
    assert run(story, "--seeds", "2") == 1
    assert "1 command was refused, but 0 with seed 1" in capsys.readouterr().out


def test_seeds_may_differ_where_the_expectation_leaves_a_choice(engine: Callable[[Engine], None], story: Path) -> None:
    story.write_text(STORY.replace("started@h2", "[started@h2, started@h1]"))
    engine(lambda *_args, seed, **_words: replace(AS_EXPECTED, final={"vA": f"started@h{seed}"}))
    assert run(story, "--seeds", "2") == 0


def test_json_is_one_object_per_story(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(story, story, "--json", "--seeds", "2") == 0
    told: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 2
    assert (
        told[0].items()
        >= {
            "id": "a-story",
            "final": {"vA": "started@h2"},
            "fenced": ["h1"],
            "moves": [{"vserver": "vA", "from": "h1", "to": "h2", "kind": "takeover"}],
            "rejected": 0,
            "violations": [],
            "story": list(AS_EXPECTED.story),
            "agreed": True,
        }.items()
    )


def test_a_directory_stands_for_its_files_and_a_broken_one_keeps_no_other_from_being_played(
    engine: Callable[[Engine], None], story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (story.parent / "below").mkdir()
    (story.parent / "below" / "broken.yaml").write_text(STORY.replace("power-off", "power-of"))
    assert run(story.parent) == BadInput.exit_code
    said = capsys.readouterr()
    assert said.out == "agreed  a-story\n"
    assert "did you mean power-off?" in said.err


def test_a_directory_without_stories(engine: Callable[[Engine], None], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file that ends in \.yaml"):
        run(tmp_path)


def test_of_a_cluster_the_chances_are_told(
    engine: Callable[[Engine], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster: prod\n" + CLUSTER[1:-1].replace(", vservers", "\nvservers"))
    engine(lambda *_args, seed, **_words: replace(AS_EXPECTED, outages={"vA": (float(seed),)}))
    assert run(path, "--seeds", "36") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "prod: 36 hours under random faults, seeds 1 to 36"
    assert said[3].split() == [
        *("vA", "36"),
        *("18.0", "s", "35.0", "s", "36.0", "s", "36.0", "s"),
        *("0.5", "s", "0.5", "s", "0.5", "s"),
        "99.486%",
    ]
    assert said[4:] == [
        "worst outage: 36.0 s with seed 36",
        f"  replay it: failover simulate {path} --first-seed 36 --seeds 1 --story",
    ]


def test_the_table_fits_a_terminal() -> None:
    worst = Cost("v" * 63, 3600.0, tuple(float(n) for n in range(99999)), (0.01, 99.9, 5999.0, 359999.0))
    assert max(len(line) for line in simulated.table([worst, Cost("vA", 3600.0, (), ())])) <= 80


PERCENTILES = {
    "of nothing there is none": ((), 50, None),
    "of one it is that": ((7.0,), 99, 7.0),
    "the median of two is the lower": ((1.0, 2.0), 50, 1.0),
    "the worst is the last": ((1.0, 2.0, 3.0), 100, 3.0),
}


@pytest.mark.parametrize(("values", "percent", "expected"), PERCENTILES.values(), ids=PERCENTILES.keys())
def test_percentiles(values: tuple[float, ...], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_equal_seeds_draw_equal_faults_and_all_are_healed_in_time() -> None:
    cluster = parse("{hosts: {h1: {}, h2: {}, h3: {}}, vservers: {vA: {primary: h1, backups: [h2]}}}", story=True)
    heals = {"power-off": "power-on", "isolate": "join", "cut": "mend", "store-down": "store-up"}
    for seed in range(50):
        events = draw(cluster, seed, 3600.0)
        assert events == draw(cluster, seed, 3600.0)
        assert events == tuple(sorted(events, key=lambda event: event.at_s))
        assert all(event.at_s <= 3600.0 - QUIET_AFTER_S for event in events)
        for begin, end in heals.items():
            began = sorted(event.text.partition(" ")[2] for event in events if event.word == begin)
            ended = sorted(event.text.partition(" ")[2] for event in events if event.word == end)
            assert set(began) <= set(ended)
    assert draw(cluster, 1, 3600.0) != draw(cluster, 2, 3600.0)


def test_two_links_of_one_host_may_be_cut_at_once() -> None:
    cluster = parse("{hosts: {h1: {}, h2: {}, h3: {}}, vservers: {vA: {primary: h1, backups: [h2]}}}", story=True)
    assert any(_most_cut_at_once(draw(cluster, seed, 3600.0), "h1") > 1 for seed in range(200))


def _most_cut_at_once(events: tuple[Event, ...], host: str) -> int:
    """Links of a host, of which either direction is cut."""
    cut: set[frozenset[str]] = set()
    most = 0
    for event in events:
        links = {frozenset(link) for link in event.links if host in link}
        cut = cut | links if event.word == "cut" else cut - links
        most = max(most, len(cut))
    return most
