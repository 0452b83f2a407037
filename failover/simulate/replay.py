"""One story under many seeds: what each outcome lacks, and whether all outcomes are the same.

Rule 1: where an expectation leaves a choice, seeds may differ: of a vserver with several states at the end neither
        its state nor its moves are compared, and then nor is what the expectation leaves out.
Rule 2: code that raises an error has failed its story, and keeps no other one from being played.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from failover.simulate.chances import draw
from failover.simulate.engine import simulate
from failover.stories.outcome import Outcome, differences, refusals
from failover.stories.story import Move, Story

HEAD = 4  # lines of a shortened story from its beginning
TAIL = 24  # and up to what went wrong


@dataclass(frozen=True)
class Played:
    """A story under one seed. `outcome` has plain dicts, so that it can be sent to another process."""

    seed: int
    outcome: Outcome
    differences: tuple[str, ...]

    @property
    def agreed(self) -> bool:
        return not self.differences and not self.outcome.violations


def play(story: Story, seed: int) -> Played:
    events = draw(story.cluster, seed, story.until_s) if story.events is None else story.events
    try:
        outcome = simulate(
            story.cluster,
            initial=story.initial,
            traits=story.traits,
            events=events,
            until_s=story.until_s,
            seed=seed,
        )
    except Exception as error:
        return Played(seed, _broken(error), ())
    return Played(seed, _plain(outcome), differences(story, outcome))


def _broken(error: Exception) -> Outcome:
    trace = "".join(traceback.format_exception(error)).splitlines()
    return Outcome({}, violations=(f"an error was raised: {error!r}",), story=tuple(trace))


def _plain(outcome: Outcome) -> Outcome:
    return replace(outcome, final=dict(outcome.final), outages=dict(outcome.outages), lost=dict(outcome.lost))


def compared(story: Story, played: Sequence[Played]) -> tuple[Played, ...]:
    """Each outcome with its differences from the first one; drawn stories differ by design."""
    if story.events is None or len(played) < 2:
        return tuple(played)
    first = played[0]
    return (first, *(replace(p, differences=(*p.differences, *_unlike(story, first, p))) for p in played[1:]))


def _unlike(story: Story, first: Played, other: Played) -> Iterator[str]:
    expect, one, two = story.expect, first.outcome, other.outcome
    free = {vserver for vserver, any_of in (expect.final or {}).items() if len(any_of) > 1}
    for vserver in sorted({*one.final, *two.final} - free):
        here, there = two.final.get(vserver), one.final.get(vserver)
        if here != there:
            yield f"{vserver} is {here}, but {there} with seed {first.seed}"
        if _moves(one, vserver) != _moves(two, vserver):
            yield f"{vserver} moved otherwise than with seed {first.seed}"
    if one.fenced != two.fenced and not (free and expect.fenced is None):
        yield f"declared dead: {_names(two)}, but {_names(one)} with seed {first.seed}"
    if one.rejected != two.rejected and not (free and expect.rejected is None):
        yield f"{refusals(two.rejected)}, but {one.rejected} with seed {first.seed}"


def _moves(outcome: Outcome, vserver: str) -> list[Move]:
    return [move for move in outcome.moves if move.vserver == vserver]


def _names(outcome: Outcome) -> str:
    return ", ".join(sorted(outcome.fenced)) or "nobody"


def shortened(outcome: Outcome) -> tuple[str, ...]:
    """The beginning, and what led to the first breach, or to the end."""
    lines = outcome.story
    first = outcome.violations[0] if outcome.violations else ""
    end = next((n for n, line in enumerate(lines, start=1) if first and first in line), len(lines))
    left_out = end - HEAD - TAIL
    if left_out <= 1:
        return lines[:end]
    return (*lines[:HEAD], f"… {left_out} lines left out (--story shows them)", *lines[end - TAIL : end])
