"""Durations, sizes and rates: one number and one unit, as in 500ms, 4G, 20M/s.

Rule 1: no number without its unit, so that nobody has to guess.
Rule 2: sizes and rates count in steps of 1024, as memory and rsync's --bwlimit do.
"""

from __future__ import annotations

import re

from failover.config.problem import Misread, quoted

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NUMBER_UNIT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)")
_LONGEST_S = 3650 * 86400.0


def duration(text: str) -> float:
    """Seconds: `500ms`, `2s`, `5m`, `1h`, `1d`, or a part as in `1.5h`."""
    number, unit = _split(text, "duration", "one number and one of ms, s, m, h, d, as in 5s")
    if not unit:
        raise Misread(f"{quoted(text)} has no unit", f"did you mean {text}s?")
    if unit not in _SECONDS:
        raise Misread(f"{quoted(text)} has an unknown unit", "the units are ms, s, m, h and d")
    seconds = float(number) * _SECONDS[unit]
    if seconds > _LONGEST_S:
        raise Misread(f"{quoted(text)} is longer than ten years", "is the unit right?")
    return seconds


def some_duration(text: str) -> float:
    """A duration that is not zero."""
    seconds = duration(text)
    if seconds < 0.001:
        raise Misread(f"{quoted(text)} is no time at all", "name at least 1ms")
    return seconds


def size(text: str, per: str = "") -> int:
    """Bytes: `512M`, `4G`. `per` is what follows it in a rate, for the messages."""
    number, unit = _split(text, "size", "one number and one of K, M, G, T, as in 512M")
    written = quoted(text + per)
    if not unit:
        raise Misread(f"{written} has no unit", f"did you mean {text}M{per}?")
    if unit not in _BYTES:
        letter = unit[0].upper()
        guess = f"did you mean {number}{letter}{per}?" if letter in _BYTES else "the units are K, M, G and T"
        raise Misread(f"{written} has an unknown unit", guess)
    count = int(float(number) * _BYTES[unit])
    if not 0 < count < 2**63:
        raise Misread(f"{written} is {'nothing at all' if not count else 'more than any machine has'}")
    return count


def rate(text: str) -> int:
    """Bytes per second: `20M/s`."""
    amount, slash, time = text.partition("/")
    if slash + time != "/s":
        raise Misread(f"{quoted(text)} is not a rate", "write an amount per second, as in 20M/s")
    return size(amount, "/s")


def spoken_size(count: int) -> str:
    """As an operator writes it: 1536 M is 1.5G."""
    unit = next((unit for unit in "TGMK" if count >= _BYTES[unit]), "K")
    return f"{count / _BYTES[unit]:.4g}{unit}"


def _split(text: str, what: str, how: str) -> tuple[str, str]:
    match = _NUMBER_UNIT.fullmatch(text)
    if not match:
        raise Misread(f"{quoted(text)} is not a {what}", f"write {how}")
    return match[1], match[2]
