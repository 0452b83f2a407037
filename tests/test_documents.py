"""The documents show commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from failover.cli.main import parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^ *|`)(?:sudo )?(failover [a-z][^`\n]*)", re.MULTILINE)


def commands(text: str) -> list[str]:
    """On a line of their own or in backquotes; what is left out of a form (`…`, `a | b`) is nobody's command line."""
    return [found for found in COMMAND.findall(text) if "…" not in found and " | " not in found]


SHOWN = sorted({command for document in DOCUMENTS for command in commands(document.read_text())})


def test_the_documents_show_commands() -> None:
    assert len(SHOWN) >= 20
    assert any(" cut " in command for command in SHOWN)


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_in_the_documents_is_understood(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if len(words) > 1:
        assert callable(parser().parse_args(words).run)
    else:  # it may only be named
        with pytest.raises(SystemExit, match=r"^0$"):
            parser().parse_args([*words, "--help"])


def test_the_one_way_cut_is_an_option() -> None:
    options = parser().parse_args(["lab", "cut", "hostA", "hostB", "--one-way"])
    assert (options.ends, options.one_way) == (["hostA", "hostB"], True)
