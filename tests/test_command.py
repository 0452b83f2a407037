"""Foreign programs: the exit code, the tail of stderr, and the time-out are in the error."""

from __future__ import annotations

import pytest

from agents.command import CommandFailed, run


def test_what_it_prints_comes_back() -> None:
    assert run(["cat"], stdin=b"word", timeout_s=10).stdout == b"word"


@pytest.mark.parametrize(
    ("argv", "message", "returncode"),
    [
        (["sh", "-c", "echo no such thing >&2; exit 3"], "sh ended with 3: no such thing", 3),
        (["sleep", "10"], "sleep did not end within 0.1 s", None),
        (["/nonexistent"], "/nonexistent cannot be started (No such file or directory): is it installed?", None),
    ],
    ids=["an unexpected exit code", "too long", "not there"],
)
def test_a_failure_says_what_and_why(argv: list[str], message: str, returncode: int | None) -> None:
    with pytest.raises(CommandFailed) as failure:
        run(argv, timeout_s=0.1 if argv[0] == "sleep" else 10)
    assert str(failure.value) == message
    assert failure.value.returncode == returncode


def test_an_expected_exit_code_is_no_failure() -> None:
    assert run(["sh", "-c", "exit 24"], timeout_s=10, expect=(0, 24)).returncode == 24
