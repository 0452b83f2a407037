"""failover simulate: stories, and the chances of a whole cluster, played with the production code on a virtual clock.

Rule 1: what cannot be read is told in full and keeps no other file from being played; the exit code is then 2.
Rule 2: whatever fails is followed by the command that replays it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from failover.errors import BadInput

if TYPE_CHECKING:
    from failover.simulate.replay import Played
    from failover.stories.story import Story

DRAWN_SEEDS = 100


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = (
        "Play stories with the production code on a virtual clock. Of a cluster.yaml, or of a story without events: "
        "draw random faults, and tell the outages and the lost writes of each vserver."
    )
    simulate = subparsers.add_parser("simulate", help="play stories and random faults, without hosts", description=text)
    simulate.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a story, a cluster.yaml or a directory")
    simulate.add_argument("--json", action="store_true", help="one JSON object per file")
    simulate.add_argument(
        "--seeds",
        type=_count,
        metavar="N",
        help=f"under so many random schedules (default: 1; where faults are drawn: {DRAWN_SEEDS})",
    )
    simulate.add_argument("--first-seed", type=_seed, default=1, metavar="S", help="default: %(default)s")
    simulate.add_argument("--story", action="store_true", help="print all that happened")
    simulate.add_argument(
        "--jobs", type=_count, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    simulate.set_defaults(run=_run)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def _count(text: str) -> int:
    if not _seed(text):
        raise argparse.ArgumentTypeError("at least 1")
    return _seed(text)


def _run(options: argparse.Namespace) -> int:
    from failover.cli.simulated import Reporter
    from failover.cli.workers import play_all
    from failover.simulate.replay import compared

    stories, broken = _read(_expanded(options.files))
    tasks = [(path, seed) for path, story in stories for seed in _seeds(options, story)]
    results = play_all(tasks, options.jobs)
    report = Reporter(options)
    agreed = True
    for path, story in stories:
        played: list[Played] = [next(results) for _ in _seeds(options, story)]
        agreed &= report.tell(path, story, compared(story, played))
    report.end(broken)
    return BadInput.exit_code if broken else 0 if agreed else 1


def _seeds(options: argparse.Namespace, story: Story) -> range:
    count = options.seeds or (DRAWN_SEEDS if story.events is None else 1)
    return range(options.first_seed, options.first_seed + count)


def _expanded(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.rglob("*.yaml"))
        if not found:
            raise BadInput(f"{path} has no file that ends in .yaml")
        yield from found


def _read(paths: Iterator[Path]) -> tuple[list[tuple[Path, Story]], list[BadInput]]:
    from failover.stories.reading import load

    stories: list[tuple[Path, Story]] = []
    broken: list[BadInput] = []
    for path in paths:
        try:
            stories.append((path, load(path)))
        except BadInput as bad:
            broken.append(bad)
    return stories, broken
