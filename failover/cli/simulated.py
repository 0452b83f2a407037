"""What `failover simulate` prints: a line per story that agreed, the differences of the others, a table of chances."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from failover.cli.lines import say
from failover.errors import BadInput
from failover.simulate.chances import Cost, costs, percentile, worst_outage_s
from failover.simulate.replay import Played, shortened
from failover.stories.outcome import as_data
from failover.stories.story import Story

_MOST_SEEDS_TOLD = 3  # of those that failed
_MOST_LINES = 8  # of differences and breaches under one seed
_NAME = 12
_TEXT = 17  # the column at which a line of a story says what happened


class Reporter:
    def __init__(self, options: argparse.Namespace) -> None:
        self._json: bool = options.json
        self._whole: bool = options.story
        self._played = self._failed = 0

    def tell(self, path: Path, story: Story, played: Sequence[Played]) -> bool:
        """Whether all agreed."""
        failed = [one for one in played if not one.agreed]
        self._played += 1
        self._failed += bool(failed)
        if self._json:
            print(json.dumps(_as_json(story, played), ensure_ascii=False), flush=True)
        elif story.events is None:
            self._tell_chances(path, story, played, failed)
        else:
            self._tell_story(path, story, played, failed)
        return not failed

    def end(self, broken: Sequence[BadInput]) -> None:
        if not self._json and self._played > 1:
            outcome = f"{self._failed} failed" if self._failed else "all agreed"
            print(f"\n{self._played} stories, {outcome}")
        sys.stdout.flush()
        for bad in broken:
            print(f"failover: {bad}", file=sys.stderr)

    def _tell_story(self, path: Path, story: Story, played: Sequence[Played], failed: Sequence[Played]) -> None:
        seeds = f"  {len(played)} seeds" if len(played) > 1 else ""
        if not failed:
            say(f"agreed  {story.id}{seeds}")
            if self._whole:
                _print_lines(played[0].outcome.story)
            return
        among = f"  {len(failed)} of {len(played)} seeds" if len(played) > 1 else ""
        say(f"FAILED  {story.id}{among}  {story.title}")
        for one in failed[:_MOST_SEEDS_TOLD]:
            self._tell_failure(path, one)

    def _tell_failure(self, path: Path, one: Played) -> None:
        for line in _few((*one.outcome.violations, *one.differences)):
            say(f"  {line}")
        _print_lines(one.outcome.story if self._whole else shortened(one.outcome))
        print(f"  replay it: {_command(path, one.seed)}")

    def _tell_chances(self, path: Path, story: Story, played: Sequence[Played], failed: Sequence[Played]) -> None:
        hours = len(played) * story.until_s / 3600.0
        first, last = played[0].seed, played[-1].seed
        say(f"{story.id}: {hours:g} hours under random faults, seeds {first} to {last}")
        print("\n".join(table(costs(story.cluster, [one.outcome for one in played], story.until_s))))
        worst = _worst(played)
        print(f"worst outage: {_length(worst_outage_s(worst.outcome))} with seed {worst.seed}")
        print(f"  replay it: {_command(path, worst.seed)}")
        if self._whole and len(played) == 1 and not failed:
            _print_lines(worst.outcome.story)
        if failed:
            print(f"FAILED  {len(failed)} of {len(played)} seeds")
        for one in failed[:_MOST_SEEDS_TOLD]:
            self._tell_failure(path, one)


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        say(f"    {line}", column=_TEXT)


def _few(lines: Sequence[str]) -> Sequence[str]:
    return lines if len(lines) <= _MOST_LINES else (*lines[:_MOST_LINES], f"… and {len(lines) - _MOST_LINES} more")


def _command(path: Path, seed: int) -> str:
    return shlex.join(["failover", "simulate", str(path), "--first-seed", str(seed), "--seeds", "1", "--story"])


def _worst(played: Sequence[Played]) -> Played:
    return max(played, key=lambda one: (bool(one.outcome.violations), worst_outage_s(one.outcome)))


# --- the table of chances: 80 columns ---------------------------------------------------------------------------------


def table(costs_: Sequence[Cost]) -> list[str]:
    head = f"{'':{_NAME}} {'outages':>7}  {'how long':^27}  {'writes lost':^20}"
    columns = "".join((
        f"{'vserver':{_NAME}} {'':>7} ",
        *(f"{word:>7}" for word in ("median", "p95", "p99", "worst")),
        " ",
        *(f"{word:>7}" for word in ("median", "p95", "worst")),
        f" {'up':>8}",
    ))  # fmt: skip
    return [head.rstrip(), columns, *(_row(cost) for cost in costs_)]


def _row(cost: Cost) -> str:
    name = cost.vserver if len(cost.vserver) <= _NAME else f"{cost.vserver[: _NAME - 1]}…"
    outages = (_length(percentile(cost.outages_s, percent)) for percent in (50, 95, 99, 100))
    lost = (_length(percentile(cost.lost_s, percent)) for percent in (50, 95, 100))
    return "".join((
        f"{name:{_NAME}} {len(cost.outages_s):>7} ",
        *(f"{text:>7}" for text in outages),
        " ",
        *(f"{text:>7}" for text in lost),
        f" {cost.available:>8.3%}",
    ))  # fmt: skip


def _length(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} m" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# --- for programs -----------------------------------------------------------------------------------------------------


def _as_json(story: Story, played: Sequence[Played]) -> dict[str, Any]:
    """What the first seed that failed gave, else the first; where faults were drawn, else the worst."""
    failed = [one for one in played if not one.agreed]
    shown = failed[0] if failed else _worst(played) if story.events is None else played[0]
    told = {
        **as_data(story, shown.outcome, shown.differences),
        "agreed": not failed,
        "seed": shown.seed,
        "seeds": len(played),
        "failed_seeds": [one.seed for one in failed],
    }
    if story.events is None:
        outcomes = [one.outcome for one in played]
        told["chances"] = {cost.vserver: _cost(cost) for cost in costs(story.cluster, outcomes, story.until_s)}
    return told


def _cost(cost: Cost) -> dict[str, float | int | None]:
    outages = {f"outage_{name}_s": percentile(cost.outages_s, p) for name, p in _PERCENTILES.items()}
    lost = {f"lost_{name}_s": percentile(cost.lost_s, p) for name, p in _PERCENTILES.items() if name != "p99"}
    return {"outages": len(cost.outages_s), **outages, **lost, "available": cost.available}


_PERCENTILES = {"median": 50, "p95": 95, "p99": 99, "worst": 100}
