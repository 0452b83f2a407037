"""What several commands take on their command lines."""

from __future__ import annotations


def seconds(text: str) -> float:
    """A length of time that can be waited; argparse makes a refusal of the ValueError."""
    length_s = float(text)
    if not 0 <= length_s < float("inf"):
        raise ValueError(text)
    return length_s
