"""Stories on all cores, in the order in which they were asked for; how far it is, is shown on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from failover.simulate.replay import Played, play
from failover.stories.reading import load

if TYPE_CHECKING:
    from failover.stories.story import Story

Task = tuple[Path, int]  # a file and a seed

_FEW = 4  # so few are played faster than processes are started
_LONGEST_CHUNK = 16
_BAR = 30
_PAUSE_S = 0.1


def play_all(tasks: Sequence[Task], jobs: int) -> Iterator[Played]:
    progress = _Progress(len(tasks))
    if jobs == 1 or len(tasks) <= _FEW:
        for task in tasks:
            yield progress.after(_played(task))
    else:
        chunk = max(1, min(_LONGEST_CHUNK, len(tasks) // (4 * jobs)))
        with ProcessPoolExecutor(min(jobs, len(tasks))) as pool:
            for played in pool.map(_played, tasks, chunksize=chunk):
                yield progress.after(played)


def _played(task: Task) -> Played:
    path, seed = task
    return play(_story(path), seed)


@lru_cache(maxsize=8)
def _story(path: Path) -> Story:
    return load(path)


class _Progress:
    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = self._said = time.monotonic()
        self._shown = sys.stderr.isatty() and total > _FEW

    def after(self, played: Played) -> Played:
        self._done += 1
        now = time.monotonic()
        if self._shown and (now > self._said + _PAUSE_S or self._done == self._total):
            self._said = now
            self._show(now)
        return played

    def _show(self, now: float) -> None:
        if self._done == self._total:
            sys.stderr.write("\r\033[K")
        else:
            full = _BAR * self._done // self._total
            left_s = (now - self._began) / self._done * (self._total - self._done)
            bar = "█" * full + "·" * (_BAR - full)
            sys.stderr.write(f"\r\033[K{bar} {self._done} of {self._total}, {left_s:.0f} s left")
        sys.stderr.flush()
