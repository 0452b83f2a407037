"""A tree of words against the schema: the values, where each of them stands, and every problem on the way.

Rule: a value with a problem is left out of the values but keeps its place, so that no second problem follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from failover.config.problem import Mark, Misread, Path, Problem, dotted, nearest, quoted
from failover.config.read import Items, Node, Pairs, Scalar
from failover.config.schema import NOT_YET, Either, List, OneOf, Record, Table, Type, Word

_BAD: Any = object()  # in place of a value that has a problem
_SHAPE = {Scalar: "a word", Items: "a list", Pairs: "a group of keys"}


@dataclass
class Found:
    """`values` is made of dicts, tuples, words and numbers. `waived`: required keys that may be left out. `story`:
    what is moot in a story is left out of the values."""

    waived: frozenset[str] = frozenset()
    story: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kept: dict[Path, list[int]] = field(default_factory=dict)  # list -> where in it its values stand

    def report(self, path: Path, message: str, hint: str = "") -> None:
        """A problem at a path, or at the nearest place above it that the file has."""
        mark = next((self.places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.places), None)
        self.problems.append(Problem(message, hint, dotted(path), mark))

    def line(self, path: Path) -> str:
        return f"line {self.places[path].line}"

    def items(self, path: Path, values: Sequence[Any]) -> Iterator[tuple[Path, Any]]:
        """The values of the list at `path`, each with its own path."""
        return zip(((*path, index) for index in self.kept[path]), values, strict=True)


def match(node: Node, schema: Record, waived: frozenset[str], *, story: bool = False) -> Found:
    found = Found(waived, story)
    if not isinstance(node, Pairs):
        found.places[()] = node.mark
        found.report((), "begins with no key", "begin with cluster: and a name")
        return found
    found.places[()] = node.mark
    found.values = _record(found, schema, node, (), "")
    return found


def _value(found: Found, kind: Type, node: Node, path: Path, pattern: str) -> Any:
    if isinstance(kind, Either):
        alone = _needs_more(kind, node)
        if alone:
            found.report(path, *alone)
            return _BAD
        kind = kind.word if isinstance(node, Scalar) else kind.group
    empty = isinstance(node, Scalar) and node.nothing
    if isinstance(kind, (Record, Table)):
        if empty and not (isinstance(kind, Record) and (kind.short or kind.one_of)):
            node = Pairs((), node.mark)
        if isinstance(kind, Record) and kind.short and isinstance(node, Scalar) and not empty:
            node = Pairs(((Scalar(kind.short, node.mark), node),), node.mark)
        if isinstance(node, Pairs):
            return _group(found, kind, node, path, pattern)
        return _misshapen(found, path, node, "a group of keys", empty)
    if isinstance(kind, List):
        if empty or (isinstance(node, Pairs) and not isinstance(kind.of, Record)):
            return _misshapen(found, path, node, "a list", empty)
        return _list(found, kind, node if isinstance(node, Items) else Items((node,), node.mark), path, pattern)
    if not isinstance(node, Scalar) or empty:
        return _misshapen(found, path, node, kind.what, empty)
    return _word(found, kind, node.text, path)


def _needs_more(kind: Either, node: Node) -> tuple[str, str] | None:
    """A key of the group that stands there as a word: `keep`, where only {keep: 10m} says enough."""
    if not isinstance(node, Scalar) or not isinstance(kind.group, Record) or not isinstance(kind.word, OneOf):
        return None
    if node.text in kind.word.choices or node.text not in kind.group.required:
        return None
    return f"{quoted(node.text)} says too little", kind.group.required[node.text]


def _group(found: Found, kind: Record | Table, node: Pairs, path: Path, pattern: str) -> dict[str, Any]:
    if isinstance(kind, Record):
        return _record(found, kind, node, path, pattern)
    values: dict[str, Any] = {}
    for key, child in node.pairs:
        here = (*path, key.text)
        _place(found, here, key, child)
        if _word(found, kind.name, key.text, here) is not _BAD:
            values[key.text] = _value(found, kind.of, child, here, f"{pattern}.*")
    return {name: value for name, value in values.items() if value is not _BAD}


def _record(found: Found, kind: Record, node: Pairs, path: Path, pattern: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    given = {key.text for key, _ in node.pairs}
    for key, child in node.pairs:
        here = (*path, key.text)
        _place(found, here, key, child)
        if key.text not in kind.keys:
            given.add(_unknown_key(found, kind, key, here))
            continue
        inner = "vservers.*" if here == ("defaults",) else f"{pattern}.{key.text}".removeprefix(".")
        value = _value(found, kind.keys[key.text], child, here, inner)
        if not _is_moot(found, inner, value):
            _refuse_not_yet(found, here, inner, value)
        else:
            value = _BAD
        if value is not _BAD:
            values[key.text] = value
    for name, hint in kind.required.items():
        if name not in given | found.waived:
            found.report((*path, name), "is missing", hint)
    _choose_one(found, kind, given, path)
    return values


def _choose_one(found: Found, kind: Record, given: set[str], path: Path) -> None:
    chosen = [name for name in kind.one_of if name in given]
    for name in chosen[1:]:
        found.report((*path, name), f"stands beside {chosen[0]}", f"keep one of {', '.join(kind.one_of)}")
    if kind.one_of and not chosen:
        found.report((*path, kind.one_of[0]), "is missing", f"name one of {', '.join(kind.one_of)}")
    for name, needed in kind.only_with.items():
        if name in given and chosen and needed not in chosen:
            found.report((*path, name), f"means nothing beside {chosen[0]}", f"it goes with {needed} alone")


def _unknown_key(found: Found, kind: Record, key: Scalar, path: Path) -> str:
    """The known key that was probably meant, so that it is not called missing too; else the key itself."""
    near = nearest(key.text, tuple(kind.keys))
    found.places[path] = key.mark
    found.report(path, "is not a key that is known here", near)
    return next((known for known in kind.keys if near == f"did you mean {known}?"), key.text)


def _list(found: Found, kind: List, node: Items, path: Path, pattern: str) -> tuple[Any, ...]:
    values = []
    found.kept[path] = []
    for index, child in enumerate(node.items):
        here = (*path, index)
        found.places[here] = child.mark
        value = _value(found, kind.of, child, here, pattern)
        if value is not _BAD:
            values.append(value)
            found.kept[path].append(index)
    if len(node.items) < kind.least:
        found.report(path, "is empty", "name at least one" if kind.least == 1 else f"name at least {kind.least}")
    return tuple(values)


def _word(found: Found, kind: Word | OneOf, text: str, path: Path) -> Any:
    if isinstance(kind, OneOf):
        if text in kind.choices:
            return text
        if kind.other is None or (text.isalpha() and nearest(text, kind.choices).endswith("?")):
            found.report(path, f"{quoted(text)} is not one of {', '.join(kind.choices)}", _guess(text, kind.choices))
            return _BAD
        kind = kind.other
    try:
        return kind.read(text)
    except Misread as misread:
        found.report(path, misread.message, misread.hint)
        return _BAD


def _guess(text: str, choices: tuple[str, ...]) -> str:
    hint = nearest(text, choices)
    return hint if hint.endswith("?") else ""


def _misshapen(found: Found, path: Path, node: Node, wanted: str, empty: bool) -> Any:
    if empty:
        found.report(path, "has no value", f"write {wanted}, or leave the key out")
    else:
        found.report(path, f"is {_SHAPE[type(node)]}", f"write {wanted}")
    return _BAD


def _place(found: Found, path: Path, key: Scalar, child: Node) -> None:
    """A word stands where it is written; a list or group, and what is not there, where its key is."""
    found.places[path] = child.mark if isinstance(child, Scalar) and not child.nothing else key.mark


def _is_moot(found: Found, pattern: str, value: object) -> bool:
    """Whether it has no function yet, and is left out in a story: nothing that is played depends on it."""
    return found.story and pattern in NOT_YET and NOT_YET[pattern].moot(value)


def _refuse_not_yet(found: Found, path: Path, pattern: str, value: object) -> None:
    rule = NOT_YET.get(pattern)
    if rule is not None and not (rule.built(value) or (value is _BAD and rule.partly)):
        what = f"{quoted(value)} is not supported yet" if isinstance(value, str) else "is not supported yet"
        found.report(path, what, rule.instead)


def merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` laid under a vserver's own keys; groups such as `sync` are laid under key by key."""
    both = {key: value for key, value in defaults.items() if key not in own}
    for key, value in own.items():
        under = defaults.get(key)
        both[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return both
