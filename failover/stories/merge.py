"""A change laid over a file, as trees with their places: groups key by key, all else replaced, `~` takes a key away."""

from __future__ import annotations

import re

from failover.config.problem import Mark, Problem
from failover.config.read import Items, Node, Pairs, Scalar


def merged(under: Node, over: Node) -> Node:
    if not (isinstance(under, Pairs) and isinstance(over, Pairs)):
        return over
    changes = {key.text: node for key, node in over.pairs}
    kept = tuple(
        (key, merged(node, changes[key.text]) if key.text in changes else node)
        for key, node in under.pairs
        if not _takes_away(changes.get(key.text))
    )
    old = {key.text for key, _ in under.pairs}
    return Pairs((*kept, *((key, node) for key, node in over.pairs if key.text not in old)), under.mark)


def _takes_away(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.nothing


def pair(key: str, node: Node) -> Pairs:
    return Pairs(((Scalar(key, node.mark), node),), node.mark)


def moved(mark: Mark | None, origin: Mark) -> Mark:
    """A place in a text that itself stands at `origin`."""
    if mark is None:
        return origin
    if mark.line > 1:
        return Mark(origin.line + mark.line - 1, mark.column)
    return Mark(origin.line, origin.column + mark.column - 1)


def problem_at(problem: Problem, path: str, origin: Mark) -> Problem:
    """A problem of a text that itself stands at `origin`, as one of the file."""
    message = re.sub(r"(?<=line )\d+", lambda found: str(int(found[0]) + origin.line - 1), problem.message)
    return Problem(message, problem.hint, path, moved(problem.mark, origin))


def shifted(node: Node, origin: Mark) -> Node:
    """The tree of a text that stands at `origin`, with the places of the file."""
    mark = moved(node.mark, origin)
    if isinstance(node, Scalar):
        return Scalar(node.text, mark, node.plain)
    if isinstance(node, Items):
        return Items(tuple(shifted(item, origin) for item in node.items), mark)
    pairs = ((Scalar(key.text, moved(key.mark, origin), key.plain), value) for key, value in node.pairs)
    return Pairs(tuple((key, shifted(value, origin)) for key, value in pairs), mark)
