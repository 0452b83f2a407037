"""What follows a fault by itself: a hang ends, a host that is being shut down loses its power."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from failover.errors import FailoverError


@dataclass(frozen=True)
class Later:
    """What follows `after_s` seconds from now. `text`: empty if it is not worth a word."""

    after_s: float
    text: str
    do: Callable[[], Later | None]
    undo: Callable[[], Later | None] | None = None  # in place of `do`, for who does not wait for it


def give_up(later: Later) -> None:
    """Do what follows now, or undo it."""
    with suppress(FailoverError):
        (later.undo or later.do)()
