"""What is printed for a person: no wider than the terminal, and in one piece where nobody looks at a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from failover.cli import main
from failover.cli.lines import fitted, say

LONG = "vA would wait: h1 has 4.0G of memory free, and it needs 64.0G"
STORY = "tests/scenarios/shared/too-little-room.yaml"
FILE = """
cluster: small
zookeeper: {servers: ["10.0.0.1:2181"]}
hosts:
  alpha: {address: 10.0.0.1, capacity: {memory: 8G, cpus: 4}}
  beta: {address: 10.0.0.2, capacity: {memory: 4G, cpus: 4}}
vservers:
  v1: {primary: alpha, backups: [beta], needs: {memory: 3G}}
  v2: {primary: beta, backups: [alpha], needs: {memory: 3G}}
"""


FITTED = {
    "what fits stays": ("vA: h1 -> h2", 20, None, ["vA: h1 -> h2"]),
    "what does not goes on below": ("  one two three", 11, None, ["  one two", "      three"]),
    "... at a column, if there is one": ("1 s  one two", 9, 5, ["1 s  one", "     two"]),
    "a word is never broken": ("a 0123456789-0123456789", 10, None, ["a", "    0123456789-0123456789"]),
    "into a pipe all goes whole": (LONG, None, None, [LONG]),
}


@pytest.mark.parametrize(("text", "columns", "column", "lines"), FITTED.values(), ids=FITTED)
def test_a_line_fits(text: str, columns: int | None, column: int | None, lines: list[str]) -> None:
    assert fitted(text, columns, column) == lines


def test_a_pipe_gets_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    say(LONG)
    assert capsys.readouterr().out == f"{LONG}\n"


COMMANDS = (
    ["plan", "--file", "FILE", "--without", "alpha"],
    ["capacity", "--file", "FILE"],
    ["simulate", "--jobs", "1", "--story", STORY],
)


@pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_a_terminal_gets_no_wider_ones(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE)
    options = main.parser().parse_args([str(file) if word == "FILE" else word for word in words])
    options.run(options)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("    ") for line in lines), "something had to be wrapped"
    assert [line for line in lines if len(line) > 60] == []
