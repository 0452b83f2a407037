"""The `failover` command before it reaches a cluster: help, and errors that need none."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("yaml", "kazoo", "pyroute2", "paramiko", "asyncio", "failover.zookeeper", "failover.config", "agents")


def failover(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "failover", *words], capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    script = f"import sys, failover.cli.main as m; m.parser(); print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_help_names_the_exit_codes() -> None:
    assert "3 refused as unsafe" in failover("--help").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--config", "/nonexistent", "status"), 2, "/nonexistent"),
        (("check", "/dev/null"), 2, "/dev/null"),
        (("move", "v1"), 2, "the following arguments are required: host"),
        (("nonsense",), 2, "invalid choice: 'nonsense'"),
        (("history", "--limit", "0"), 2, "--limit must be at least 1"),
        (("fence", "hostA", "--confirmed", "--though-alive"), 2, "not allowed with argument --confirmed"),
        (("drain", "hostA", "--until", "2"), 2, "did you mean 2s?"),
    ],
    ids=[
        "no file",
        "an empty file",
        "a word too few",
        "no such command",
        "a limit of nothing",
        "a fence that cuts and does not",
        "an end without a unit",
    ],
)
def test_bad_input_is_one_clear_line(words: tuple[str, ...], code: int, says: str) -> None:
    done = failover(*words)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
