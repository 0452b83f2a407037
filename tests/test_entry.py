"""What a command says of trouble that is not its own: one line, what to do, and an exit code."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from failover.cli import demo, main
from failover.errors import BadInput, Denied, FailoverError, Refused
from failover.lab.lab import Lab
from failover.zookeeper import read_credentials

SYSTEM = {
    "not allowed": (PermissionError(13, "Permission denied", "/run/x"), 6, "failover: /run/x: Permission denied"),
    "not permitted": (
        PermissionError(1, "Operation not permitted"),
        6,
        "failover: the system: Operation not permitted",
    ),
    "a full disk": (OSError(28, "No space left on device", "/var/x"), 1, "failover: /var/x: No space left on device"),
    "without a number": (OSError("odd"), 1, "failover: the system: odd"),
}


@pytest.mark.parametrize("name", SYSTEM)
def test_what_the_system_refuses_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, code, says = SYSTEM[name]

    def run(_options: Namespace) -> None:
        raise error

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(main, "parser", lambda: parser)
    monkeypatch.setattr(sys, "argv", ["failover"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"{says}\n"


def _made(path: Path, name: str) -> Path:
    """The file of credentials in some state."""
    if name == "a directory":
        path.mkdir()
    elif name == "a loop":
        path.symlink_to(path)
    elif name != "nothing":
        path.write_bytes(b"user:\xff" if name == "no text" else b"user:password\n")
        path.chmod(0o644 if name == "for all" else 0o600)
    return path


CREDENTIALS: dict[str, tuple[type[FailoverError], str]] = {
    "nothing": (BadInput, "does not exist"),
    "a directory": (BadInput, "is not a file with the line user:password"),
    "no text": (BadInput, "is not a file with the line user:password"),
    "a loop": (BadInput, "cannot be read: Too many levels of symbolic links"),
    "for all": (Denied, "can be read by others"),
}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    kind, says = CREDENTIALS[name]
    with pytest.raises(kind, match=says):
        read_credentials(_made(tmp_path / "secret", name))


def test_credentials_are_the_line_of_the_file(tmp_path: Path) -> None:
    assert read_credentials(_made(tmp_path / "secret", "good")) == "user:password"


@pytest.mark.needs("root")
def test_a_second_demo_is_refused_before_it_touches_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(Lab, "down", lambda _lab: pytest.fail("the running demo was taken down"))
    with demo._alone(), pytest.raises(Refused, match="failover lab down --name demo"):
        demo._demo(Namespace(keep=False))
