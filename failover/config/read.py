"""YAML as words with their places: the only file that knows YAML.

Rule 1: nothing is resolved. `on`, `no`, `010`, `10:30` and `1e3` stay the words that the operator wrote; the schema
        says what they mean. So YAML's surprises with booleans, octal and base-60 numbers cannot bite.
Rule 2: whatever the bytes are, the answer is a tree or BadConfig. The tree is built from YAML's events, so its depth is
        bounded here, and aliases are refused in cluster.yaml: what vservers share has its own key, `defaults`. A story
        may have them (and `<<`), but no more than a person writes: what they stand for is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from failover.config.problem import BadConfig, Mark, Problem, quoted

LARGEST_BYTES = 400_000  # ZooKeeper keeps the file and what was read from it in one record of at most 1 MiB
_DEEPEST = 40
_LARGEST_BY_ALIASES = 10_000  # words, keys, lists and groups that aliases stand for, in all
_START = Mark(1, 1)
_SHARE = "write the value itself; what all vservers share belongs under defaults"

_SAID_PLAINLY = {  # what YAML's parser says -> what an operator can use; {} is the line of what it belongs to
    "found character '\\t'": ("a tab cannot be used here", "indent with spaces"),
    "unexpected end of stream": ("the quote that opens on line {} is never closed", "close it"),
    "found unexpected document separator": ("the quote that opens on line {} is never closed", "close it"),
    "expected ',' or ']'": ("the [ of line {} is not closed, or lacks a comma before this", "close it with ]"),
    "expected ',' or '}'": ("the {{ of line {} is not closed, or lacks a comma before this", "close it with }"),
    "mapping values are not allowed": ("a colon cannot stand here", "check the indentation, or put the text in quotes"),
    "expected <block end>": ("this does not fit the indentation that began on line {}", "align it"),
    "could not find expected ':'": ("the key on line {} has no colon", "write it as key: value"),
    "sequence entries are not allowed": ("a list cannot begin here", "put it on a line of its own, or write [a, b]"),
    "found character '@'": ("a word cannot begin with @", "put it in quotes"),
    "found character '`'": ("a word cannot begin with `", "put it in quotes"),
    "found character '%'": ("a word cannot begin with %", "put it in quotes"),
    "found unknown escape character": ("an unknown \\ in a text in double quotes", "use single quotes"),
}


@dataclass(frozen=True)
class Scalar:
    text: str
    mark: Mark
    plain: bool = True  # not in quotes

    @property
    def nothing(self) -> bool:
        return self.plain and self.text in ("", "~", "null")


@dataclass(frozen=True)
class Items:
    items: tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True)
class Pairs:
    pairs: tuple[tuple[Scalar, Node], ...]
    mark: Mark


Node = Scalar | Items | Pairs
Plain = str | list["Plain"] | dict[str, "Plain"]


def text_of(path: Path, *, like: str = "cluster.yaml.example") -> str:
    """The text of a file; raises BadConfig with one line when there is none to be had. `like`: what to begin with."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise _refused(str(path), "is not there", f"begin with {like}" if like else "") from None
    except IsADirectoryError:
        raise _refused(str(path), "is a directory", "name the file in it") from None
    except PermissionError:
        raise _refused(str(path), "may not be read by you", "become root, or change its mode") from None
    except OSError as error:
        raise _refused(str(path), f"cannot be read ({error.strerror})") from None
    if len(data) > LARGEST_BYTES:
        raise _refused(str(path), f"is larger than {LARGEST_BYTES // 1000} kB, more than ZooKeeper keeps in one record")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        mark = Mark(before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        raise _refused(str(path), "is not UTF-8 text", "save it as UTF-8", mark) from None


def read(text: str, where: str = "cluster.yaml", *, like: str = "cluster.yaml.example", aliases: bool = False) -> Node:
    """The tree of one YAML document; raises BadConfig with every problem that can be told.

    `like`: what to begin with, when there is nothing in it. `aliases`: may be used.
    """
    builder = _Builder(aliases)
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        builder.problems.append(_unreadable(text, error))
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_translated(error))
    except _Enough as enough:
        builder.problems.append(enough.problem)
    if builder.problems:
        raise BadConfig(where, builder.problems)
    if builder.root is None or (isinstance(builder.root, Scalar) and builder.root.nothing):
        raise _refused(where, "is empty", f"begin with {like}")
    return builder.root


def plain(node: Node) -> Plain:
    """The tree without its places: words, lists and dicts."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key.text: plain(value) for key, value in node.pairs}


class _Enough(Exception):
    """Nothing more can be told about this text."""

    def __init__(self, message: str, hint: str, mark: Mark) -> None:
        super().__init__(message)
        self.problem = Problem(message, hint, mark=mark)


@dataclass
class _Open:
    """A list or mapping whose end has not been read yet; of a mapping: key, value, key, value, …"""

    mark: Mark
    listed: bool
    anchor: str | None
    nodes: list[Node] = field(default_factory=list)


@dataclass
class _Builder:
    aliases: bool = False
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)
    _open: list[_Open] = field(default_factory=list)
    _anchored: dict[str, Node] = field(default_factory=dict)
    _by_aliases: int = 0

    def take(self, event: yaml.Event) -> None:
        start = event.start_mark
        mark = Mark(start.line + 1, start.column + 1) if start else _START
        if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise _Enough("a second document begins here", "keep one, and remove the line ---", mark)
        if isinstance(event, yaml.AliasEvent):
            self._add(self._aliased(event.anchor or "", mark))
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event.tag, mark)
            self._add(Scalar(event.value, mark, event.style is None), event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._refuse_tag(event.tag, mark)
            if len(self._open) >= _DEEPEST:
                raise _Enough(f"more than {_DEEPEST} levels deep", "is a bracket not closed?", mark)
            self._open.append(_Open(mark, isinstance(event, yaml.SequenceStartEvent), event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            self._add(Items(tuple(done.nodes), done.mark) if done.listed else self._pairs(done), done.anchor)

    def _aliased(self, anchor: str, mark: Mark) -> Node:
        """What stands at the anchor; in its place nothing, when there is a problem."""
        node = self._anchored.get(anchor)
        if not self.aliases:
            self.problems.append(Problem("an alias (*) is not understood", _SHARE, mark=mark))
        elif node is None:
            self.problems.append(Problem(f"*{anchor} stands for nothing", f"write &{anchor} before it", mark=mark))
        else:
            size, depth = _extent(node)
            self._by_aliases += size
            if self._by_aliases > _LARGEST_BY_ALIASES or len(self._open) + depth > _DEEPEST:
                raise _Enough("aliases (*) stand for too much here", "write the value itself", mark)
            return node
        return Scalar("", mark)

    def _add(self, node: Node, anchor: str | None = None) -> None:
        if anchor is not None:
            self._anchored[anchor] = node
        if self._open:
            self._open[-1].nodes.append(node)
        else:
            self.root = node

    def _refuse_tag(self, tag: str | None, mark: Mark) -> None:
        if tag not in (None, "!"):
            self.problems.append(Problem(f"the tag {quoted(tag)} is not understood", "leave it out", mark=mark))

    def _pairs(self, done: _Open) -> Pairs:
        seen: dict[str, Scalar] = {}
        pairs: list[tuple[Scalar, Node]] = []
        laid_under: list[tuple[Scalar, Node]] = []
        for key, value in zip(done.nodes[::2], done.nodes[1::2], strict=True):
            if self.aliases and isinstance(key, Scalar) and key.plain and key.text == "<<":
                laid_under += self._merged(key, value)
                continue
            problem = _bad_key(key, seen)
            if problem:
                self.problems.append(problem)
            elif isinstance(key, Scalar):
                seen[key.text] = key
                pairs.append((key, value))
        for key, value in laid_under:
            if key.text not in seen:  # who says a key itself, or says it first, is right
                seen[key.text] = key
                pairs.append((key, value))
        return Pairs(tuple(pairs), done.mark)

    def _merged(self, key: Scalar, value: Node) -> Iterator[tuple[Scalar, Node]]:
        """The keys that `<<: *anchor` or `<<: [*one, *two]` brings along."""
        for group in value.items if isinstance(value, Items) else (value,):
            if isinstance(group, Pairs):
                yield from group.pairs
            else:
                self.problems.append(Problem("<< takes groups of keys only", "as in <<: *anchor", mark=key.mark))


def _extent(node: Node) -> tuple[int, int]:
    """How many words, lists and groups there are in it, and how many levels."""
    if isinstance(node, Scalar):
        return 1, 0
    below = node.items if isinstance(node, Items) else [child for pair in node.pairs for child in pair]
    sizes = [_extent(child) for child in below]
    return 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)


def _bad_key(key: Node, seen: dict[str, Scalar]) -> Problem | None:
    if not isinstance(key, Scalar):
        return Problem("a list or a group cannot be a key", "is there a { or [ too many?", mark=key.mark)
    if key.plain and key.text == "<<":
        return Problem("<< is not understood", _SHARE, mark=key.mark)
    if key.nothing:
        return Problem("a key is missing before this colon", "write it as key: value", mark=key.mark)
    if key.text in seen:
        first = seen[key.text].mark.line
        return Problem(f"the key {quoted(key.text)} is there twice (first on line {first})", "keep one", mark=key.mark)
    return None


def _refused(where: str, message: str, hint: str = "", mark: Mark | None = None) -> BadConfig:
    return BadConfig(where, (Problem(message, hint, mark=mark),))


def _unreadable(text: str, error: yaml.reader.ReaderError) -> Problem:
    position = int(error.position)
    before = text[:position]
    mark = Mark(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
    code = error.character if isinstance(error.character, int) else ord(error.character)
    return Problem(f"the character {code:#06x} belongs in no text", "is it a binary file?", mark=mark)


def _translated(error: yaml.MarkedYAMLError) -> Problem:
    said = error.problem or "cannot be understood"
    place = error.problem_mark or error.context_mark
    mark = Mark(place.line + 1, place.column + 1) if place else _START
    opened = error.context_mark.line + 1 if error.context_mark else mark.line
    for beginning, (message, hint) in _SAID_PLAINLY.items():
        if beginning in said:
            return Problem(message.format(opened), hint, mark=mark)
    return Problem(f"this is not YAML: {said}", "check the quotes, brackets and indentation nearby", mark=mark)
