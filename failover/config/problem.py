"""What is wrong with a file, where, and what to do about it.

Rule 1: all problems of a file are told at once, in the order of the file.
Rule 2: a problem says what is wrong; its hint says what to do, or which known word is nearest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from failover.errors import BadInput

Path = tuple[str | int, ...]  # keys, and places in lists counted from 0

_LONGEST_QUOTE = 60
_LONGEST_LINE = 300
_LONGEST_CHOICE = 10


@dataclass(frozen=True, order=True)
class Mark:
    """A place in the text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """`path` is the key it is about, as in vservers.v1.backups; empty when it is about the file."""

    message: str
    hint: str = ""
    path: str = ""
    mark: Mark | None = None

    @property
    def place(self) -> str:
        return f"line {self.mark.line}, column {self.mark.column}" if self.mark else ""

    @property
    def advice(self) -> str:
        """The message with its hint, as one sentence."""
        if not self.hint:
            return _harmless(self.message)
        return _harmless(f"{self.message} ({self.hint})" if self.hint.endswith("?") else f"{self.message}: {self.hint}")

    def __str__(self) -> str:
        return "  ".join(part for part in (self.place, self.path, self.advice) if part)


class BadConfig(BadInput):
    """The file cannot be used. Carries all its problems; its text is ready to be printed."""

    def __init__(self, where: str, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.where = where
        self.problems = tuple(sorted(unique, key=lambda problem: problem.mark or Mark(0, 0)))
        super().__init__(_text(where, self.problems))


class Misread(ValueError):
    """A word that is not what the schema asks for; the reader of the file knows the place and makes it a Problem."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def quoted(text: str) -> str:
    """The words of the file in a message."""
    return f"'{_shortened(text, _LONGEST_QUOTE)}'"


def dotted(path: Path) -> str:
    """As operators write it: vservers.v1.checks[1].tcp; the number of a single word in a list is not told."""
    words = path[:-1] if path and isinstance(path[-1], int) else path
    parts = (f"[{w + 1}]" if isinstance(w, int) else f".{_shortened(w, _LONGEST_QUOTE)}" for w in words)
    return _harmless("".join(parts).removeprefix("."))


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint that names the known word which was probably meant, else all of them if they are few."""
    folded = {name.casefold(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.casefold()[:_LONGEST_QUOTE], folded, n=1)
    if close:
        return f"did you mean {folded[close[0]]}?"
    return f"known here: {', '.join(known)}" if 0 < len(known) <= _LONGEST_CHOICE else ""


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _harmless(text: str) -> str:
    """On one line, and with nothing that a terminal would obey."""
    short = _shortened(text, _LONGEST_LINE)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def _text(where: str, problems: Sequence[Problem]) -> str:
    if len(problems) == 1:
        problem = problems[0]
        return f"{where}: {problem}" if problem.mark or problem.path else f"{where} {problem.advice}"
    places = max(len(problem.place) for problem in problems)
    paths = max(len(problem.path) for problem in problems)
    rows = (f"  {p.place:{places}}  {p.path:{paths}}  {p.advice}".rstrip() for p in problems)
    return "\n".join((f"{where} has {len(problems)} problems", *rows))
