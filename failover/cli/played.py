"""failover lab play: a story on a lab of its own, or its events onto a lab that is up."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failover.errors import BadInput
from failover.simulate.reading import Opened, open_story


def play(options: argparse.Namespace) -> int:
    path = Path(options.file)
    opened = open_story(path)
    if opened is not None:
        return _judged(options, opened)
    if options.json:
        raise BadInput(f"{path} has no cluster:, so its end is not judged", hint="leave out --json, or add cluster:")
    from failover.lab.lab import Lab
    from failover.lab.play import play as play_events

    play_events(Lab(options.name or "lab"), path)
    return 0


def _judged(options: argparse.Namespace, opened: Opened) -> int:
    from failover.lab.pace import LONGEST_S
    from failover.lab.performance import perform
    from failover.simulate.outcome import as_data

    name = options.name or f"play-{os.getpid()}"
    say = _to_stderr if options.json else _to_stdout
    with _interruptible():
        outcome, differing = perform(opened, name, say, speed=options.speed, longest_s=options.longest or LONGEST_S)
    agreed = not differing and not outcome.violations
    if options.json:
        print(json.dumps(as_data(opened.story, outcome, differing), ensure_ascii=False))
        return 0 if agreed else 1
    print(f"{'agreed' if agreed else 'FAILED'}  {opened.story.id}" + ("" if agreed else f"  {opened.story.title}"))
    for line in (*outcome.violations, *differing):
        print(f"  {line}")
    for line in () if agreed else outcome.story:
        print(f"    {line}")
    return 0 if agreed else 1


def _to_stdout(text: str) -> None:
    print(text, flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _interruptible() -> Iterator[None]:
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
