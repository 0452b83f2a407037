"""What several commands take on their command lines."""

from __future__ import annotations

from argparse import ArgumentTypeError


def seconds(text: str) -> float:
    """A length of time that can be waited; argparse makes a refusal of the ValueError."""
    length_s = float(text)
    if not 0 <= length_s < float("inf"):
        raise ValueError(text)
    return length_s


def duration(text: str) -> float:
    """A duration as cluster.yaml has them: 30m, 2h, in seconds."""
    from failover.config.problem import Misread
    from failover.config.units import some_duration

    try:
        return some_duration(text)
    except Misread as wrong:
        raise ArgumentTypeError(f"{wrong.message}: {wrong.hint}") from wrong
