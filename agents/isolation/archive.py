"""Trees as tar archives: packed with all that a system needs, and unpacked without trust.

Rule 1: owners are numbers; extended attributes and ACLs go along.
Rule 2: a stranger's archive is read to its end before a byte of it is unpacked: so a torn one is refused, a member that
        would leave the tree is refused, and the room that it takes is known.
Rule 3: tar itself never follows a symbolic link that it has just unpacked if that may lead out (GNU tar makes those
        last); rule 2 refuses before it comes to that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agents.command import CommandFailed
from agents.isolation import tools
from failover.errors import BadInput, FailoverError, Unsafe

_WHOLE = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")

# One line of `tar --list --verbose`, blanks in names quoted: kind and mode, owner, size or device, date, time, name.
_NAME = r"(?:\\.|[^\s\\])+"
_LINE = re.compile(
    rf"\S+ \S+ +(?P<size>\S+) \S+ \S+ (?P<name>{_NAME})(?: -> (?P<symlink>{_NAME})| link to (?P<link>{_NAME}))?"
)


class BrokenArchive(FailoverError):
    """It cannot be read to its end."""


@dataclass(frozen=True)
class Member:
    """Names as tar quotes them (a blank is `\\ `): good enough to compare, not to open."""

    name: str
    bytes: int = 0
    symlink: str | None = None
    link: str | None = None


def pack(tree: Path, archive: Path) -> None:
    """Write a tree to a .tar.zst, whole or not at all, and flushed."""
    partial = archive.with_name(archive.name + ".partial")
    try:
        tools.run(
            ["tar", "--create", "--use-compress-program=zstd -T0", *_WHOLE, "--file", partial, "--directory", tree, "."]
        )
        tools.run(["sync", partial])
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive: Path, tree: Path) -> None:
    """Unpack into an existing empty directory. Raises BrokenArchive."""
    try:
        tools.run(
            [
                "tar",
                "--extract",
                *_WHOLE,
                "--preserve-permissions",
                "--same-owner",
                "--file",
                archive,
                "--directory",
                tree,
            ]
        )
    except CommandFailed as failed:
        raise _broken(archive, failed) from failed


def members(archive: Path) -> tuple[Member, ...]:
    """What is in an archive (compressed or not). Raises BadInput if it is not there, BrokenArchive if it is torn."""
    if not archive.is_file():
        raise BadInput(f"{archive} is not there" if not os.path.lexists(archive) else f"{archive} is no file")
    listing = ["--list", "--verbose", "--numeric-owner", "--quoting-style=escape", "--quote-chars= "]
    try:
        done = tools.run(["tar", *listing, "--absolute-names", "--file", archive])
    except CommandFailed as failed:
        raise _broken(archive, failed) from failed
    return tuple(_members(done.stdout.decode("ascii", "replace").splitlines()))


def check(found: Iterable[Member], archive: Path) -> None:
    """Refuse an archive of which a member would leave the tree, or that is no root file system."""
    found = tuple(found)
    names = {_plain(member.name) for member in found}
    if not names & {"sbin/init", "usr/sbin/init", "bin/sh", "usr/bin/sh"}:
        raise BadInput(
            f"{archive} has neither sbin/init nor bin/sh at its top: it is no root file system",
            hint="make it with: tar -C TREE --numeric-owner --xattrs --acls -cf FILE .",
        )
    leading_out = {_plain(m.name) for m in found if m.symlink is not None and _leaves(m.symlink)}
    for member in found:
        for name in (member.name, member.link or "."):
            if _leaves(name):
                raise Unsafe(f"{archive} is not unpacked: {name} would leave the tree", hint="do not trust its maker")
            through = leading_out & set(_parents(_plain(name)))
            if through:
                raise Unsafe(
                    f"{archive} is not unpacked: {name} goes through the symbolic link {min(through)}, out of the tree",
                    hint="do not trust its maker",
                )


def _members(lines: Iterable[str]) -> Iterator[Member]:
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise BrokenArchive(f"tar lists what is not understood: {line}")
        size = found["size"]
        yield Member(found["name"], int(size) if size.isdigit() else 0, found["symlink"], found["link"])


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _leaves(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _broken(archive: Path, failed: CommandFailed) -> BrokenArchive:
    first = failed.stderr.split(" | ")[0] or failed.message
    return BrokenArchive(f"{archive} is no complete tar archive ({first})", hint="copy it again")
