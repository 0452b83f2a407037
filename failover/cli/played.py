"""failover lab play: a story on a lab of its own, or its events onto a lab that is up."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from failover.errors import BadInput, Refused
from failover.lab.ability import refuse
from failover.lab.lab import Lab
from failover.lab.pace import LONGEST_S
from failover.lab.performance import perform
from failover.lab.play import play as play_events
from failover.stories.outcome import Outcome, as_data
from failover.stories.reading import Opened, open_story


def play(options: argparse.Namespace) -> int:
    opened = [(path, open_story(path)) for path in options.files]
    for _, story in opened:
        if story is not None:
            refuse(story)
    stories = [story for _, story in opened if story is not None]
    if len(stories) == len(opened):
        return _judged(options, stories)
    path = next(path for path, story in opened if story is None)
    if options.json or len(opened) > 1:
        hint = "play it alone and without --json, or add cluster:"
        raise BadInput(f"{path} has no cluster:, so its end is not judged", hint=hint)
    play_events(Lab(options.name or "lab"), path)
    return 0


def _judged(options: argparse.Namespace, stories: Sequence[Opened]) -> int:
    lab = Lab(options.name or f"play-{os.getpid()}")
    if lab.place.directory.exists():
        raise Refused(f"there is a lab {lab.place.name}", hint=f"failover lab down --name {lab.place.name}")
    say = say_to(options)
    agreed = True
    with interruptible():
        try:
            for number, opened in enumerate(stories, start=1):
                name = f"{lab.place.name}-{number}"
                longest_s = options.longest or LONGEST_S
                outcome, differing = perform(opened, lab, name, say, speed=options.speed, longest_s=longest_s)
                agreed &= _told(options, opened, outcome, differing)
        finally:
            lab.down()
    return 0 if agreed else 1


def _told(options: argparse.Namespace, opened: Opened, outcome: Outcome, differing: Sequence[str]) -> bool:
    agreed = not differing and not outcome.violations
    if options.json:
        print(json.dumps(as_data(opened.story, outcome, differing), ensure_ascii=False), flush=True)
        return agreed
    title = "" if agreed else f"  {opened.story.title}"
    print(f"{'agreed' if agreed else 'FAILED'}  {opened.story.id}{title}", flush=True)
    for line in (*outcome.violations, *differing):
        print(f"  {line}")
    for line in () if agreed else outcome.story:
        print(f"    {line}", flush=True)
    return agreed


def say_to(options: argparse.Namespace) -> Callable[[str], None]:
    """What is said on the way: where it does not mix with what programs read."""
    return _to_stderr if options.json else _to_stdout


def _to_stdout(text: str) -> None:
    print(text, flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """The first signal to end ends the play; the lab is then taken away, however often it is said again."""

    def end(number: int, _frame: object) -> None:
        for other in _ENDS:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, end) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
