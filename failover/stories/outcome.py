"""What became of a story, compared with what it expects: the differences in words; none when they agree.

Rule 1: what an expectation leaves out is not checked; what it has is complete.
Rule 2: moves are compared per vserver, in order; which of two vservers moved first does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from failover.model import frozen_map
from failover.stories.story import Expect, Move, Story


@dataclass(frozen=True)
class Outcome:
    """What the simulator hands back."""

    final: Mapping[str, str]  # vserver -> "started@h1", "stopped@h1", "error@h1", "frozen@h1", "waiting", "removed", …
    fenced: frozenset[str] = frozenset()  # hosts that were declared dead
    moves: tuple[Move, ...] = ()  # in the order of time
    rejected: int = 0  # commands that were refused
    violations: tuple[str, ...] = ()  # invariants that broke, each as a line with its time
    story: tuple[str, ...] = ()  # one line per thing that happened, each beginning with its time: "  12.300 s  …"
    outages: Mapping[str, tuple[float, ...]] = field(default_factory=frozen_map)  # vserver -> seconds each
    lost: Mapping[str, tuple[float, ...]] = field(
        default_factory=frozen_map
    )  # vserver -> seconds of data, per takeover
    started: frozenset[tuple[str, str]] = frozenset()  # (vserver, host): the agent there began to start it
    stopped: frozenset[tuple[str, str]] = frozenset()  # (vserver, host): the agent there began to stop or kill it


def as_data(story: Story, outcome: Outcome, differing: Sequence[str]) -> dict[str, Any]:
    """For programs: what `failover simulate --json` and `failover lab play --json` print of a story."""
    return {
        "id": story.id,
        "final": dict(outcome.final),
        "fenced": sorted(outcome.fenced),
        "moves": [{"vserver": m.vserver, "from": m.source, "to": m.target, "kind": m.kind} for m in outcome.moves],
        "rejected": outcome.rejected,
        "violations": list(outcome.violations),
        "story": list(outcome.story),
        "agreed": not differing and not outcome.violations,
        "differences": list(differing),
    }


def differences(story: Story, outcome: Outcome) -> tuple[str, ...]:
    expect = story.expect
    return (
        *_final(expect, outcome),
        *_fenced(expect, outcome),
        *_moves(expect, outcome),
        *_rejected(expect, outcome),
        *(f"no line of the story matches '{said}'" for said in expect.says if not _is_said(said, outcome)),
        *(line for forbidden in story.forbid for line in _forbidden(forbidden, outcome)),
    )


def _final(expect: Expect, outcome: Outcome) -> Iterator[str]:
    for vserver, any_of in (expect.final or {}).items():
        state = outcome.final.get(vserver, "not known any more")
        if state not in any_of:
            yield f"{vserver} is {state}, expected {' or '.join(any_of)}"


def _fenced(expect: Expect, outcome: Outcome) -> Iterator[str]:
    if expect.fenced is not None:
        yield from (f"{host} was not declared dead" for host in sorted(expect.fenced - outcome.fenced))
        yield from (
            f"{host} was declared dead, which is not expected" for host in sorted(outcome.fenced - expect.fenced)
        )


def _moves(expect: Expect, outcome: Outcome) -> Iterator[str]:
    if expect.moves is None:
        return
    expected, made = expect.moves, outcome.moves
    for vserver in sorted({move.vserver for move in (*expected, *made)}):
        wanted = [move for move in expected if move.vserver == vserver]
        happened = [move for move in made if move.vserver == vserver]
        for number, (want, have) in enumerate(zip_longest(wanted, happened), start=1):
            nth = f"move {number} of {vserver}" if len(wanted) > 1 or len(happened) > 1 else f"the move of {vserver}"
            if have is None:
                yield f"{nth}, {_shown(want)}, did not happen"
            elif want is None:
                yield f"{nth}, {_shown(have)}, is not expected"
            elif want != have:
                yield f"{nth} is {_shown(have)}, expected {_shown(want)}"


def _shown(move: Move) -> str:
    return f"{move.source} → {move.target} ({move.kind})"


def _rejected(expect: Expect, outcome: Outcome) -> Iterator[str]:
    if expect.rejected not in (None, outcome.rejected):
        yield f"{refusals(outcome.rejected)}, expected {expect.rejected or 'none'}"


def refusals(count: int) -> str:
    return {0: "no command was refused", 1: "1 command was refused"}.get(count, f"{count} commands were refused")


def _is_said(pattern: str, outcome: Outcome) -> bool:
    return any(re.search(pattern, line) for line in outcome.story)


def _forbidden(forbidden: tuple[str, ...], outcome: Outcome) -> Iterator[str]:
    word, *about = forbidden
    if word == "any_move_of":
        yield from (
            f"{m.vserver} moved {_shown(m)}, which is forbidden" for m in outcome.moves if m.vserver == about[0]
        )
    elif word == "takeover_of":
        taken = sorted({m.vserver for m in outcome.moves if m.kind == "takeover" and m.source == about[0]})
        if taken or about[0] in outcome.fenced:
            what = f"{', '.join(taken)} was taken over from {about[0]}" if taken else f"{about[0]} was declared dead"
            yield f"{what}, which is forbidden"
    elif word == "start" and tuple(about) in outcome.started:
        yield f"{about[0]} was started on {about[1]}, which is forbidden"
    elif word == "stop" and tuple(about) in outcome.stopped:
        yield f"{about[0]} was stopped on {about[1]}, which is forbidden"
