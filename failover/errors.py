"""What can go wrong, in an operator's words.

Rule 1: an error says what is wrong and what to do, and carries its exit code.
Rule 2: only the entry points print and exit; everybody else raises.
"""

from __future__ import annotations


class FailoverError(Exception):
    """Something that an operator must know; `hint` is what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class BadInput(FailoverError):
    """The command line or a file cannot be understood, or names what does not exist."""

    exit_code = 2


class Unsafe(FailoverError):
    """Refused: it could run a vserver twice or lose data."""

    exit_code = 3


class Refused(FailoverError):
    """Understood and harmless, but it cannot be done now."""

    exit_code = 4


class Unreadable(Refused):
    """A record in the store is not what it should be; `where`: its znode."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where} in ZooKeeper {message}", hint="who else writes there?")
        self.where = where


class NotApplied(Refused):
    """There is no cluster yet."""


class Unreachable(FailoverError):
    """ZooKeeper, a host or a program does not answer (in time)."""

    exit_code = 5


class Denied(FailoverError):
    """Wrong credentials, or not enough privilege."""

    exit_code = 6
