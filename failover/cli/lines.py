"""Lines for a person: on a terminal none is wider than it is. Into a pipe or a file they go whole, one thing a line.

Rule: a command that may be copied stays in one piece, however long it is; `print` does that.
"""

from __future__ import annotations

import shutil
import sys
import textwrap


def say(text: str, *, column: int | None = None) -> None:
    """Print one line. What does not fit goes on at `column`, or else a little to the right of where it began."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(fitted(text, columns, column)))


def fitted(text: str, columns: int | None, column: int | None = None) -> list[str]:
    """`columns`: None: as it is. A word that is wider than the terminal is not broken."""
    if columns is None or len(text) <= columns:
        return [text]
    lead = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text.lstrip(),
        columns,
        initial_indent=lead,
        subsequent_indent=f"{lead}    " if column is None else " " * column,
        break_long_words=False,
        break_on_hyphens=False,
    )
