"""cluster.yaml -> Cluster: validated in full before anything happens, every problem at once with its place.

    text ── read ──▶ tree ── match ──▶ values and places ── check ──▶ rules between them ── build ──▶ Cluster
            (YAML)           (schema)

`load` and `parse` are for whoever needs the Cluster; `read_all` and `examine` are for whoever shows the warnings too. A
tree that was read from a part of another file (a story of the simulator) can be given in place of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from failover.config.build import build
from failover.config.check import check
from failover.config.match import match
from failover.config.problem import BadConfig, Mark, Problem
from failover.config.read import Node, read, text_of
from failover.config.schema import SCHEMA
from failover.config.warn import warnings
from failover.model import Cluster

__all__ = ["BadConfig", "Loaded", "Mark", "Problem", "examine", "load", "parse", "read_all", "text_of"]

_STORY_MAY_OMIT = frozenset(("cluster", "zookeeper", "address"))


@dataclass(frozen=True)
class Loaded:
    cluster: Cluster
    warnings: tuple[Problem, ...] = ()


def load(path: Path) -> Cluster:
    """The cluster of a file; raises BadConfig."""
    return read_all(path).cluster


def read_all(path: Path) -> Loaded:
    """The cluster of a file and its warnings; raises BadConfig."""
    return examine(text_of(path), str(path))


def parse(text: str | Node, where: str = "cluster.yaml", *, story: bool = False) -> Cluster:
    """The cluster of a text; raises BadConfig with all its problems.

    `story`: the name, zookeeper and the hosts' addresses may be left out, as scenarios do; and what has no
    function yet is left out, if what is played is the same without it.
    """
    return examine(text, where, story=story).cluster


def examine(text: str | Node, where: str = "cluster.yaml", *, story: bool = False) -> Loaded:
    tree = read(text, where) if isinstance(text, str) else text
    found = match(tree, SCHEMA, _STORY_MAY_OMIT if story else frozenset(), story=story)
    check(found)
    if found.problems:
        raise BadConfig(where, found.problems)
    return Loaded(build(found), tuple(warnings(found)))
