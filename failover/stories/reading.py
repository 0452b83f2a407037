"""A story file -> Story. Every problem at once, with its place.

Rule 1: `cluster:` is read by cluster.yaml's own reader, and its problems stand among the story's.
Rule 2: an event may name what exists at its time, an expectation what exists at the end: `add` and `apply` bring
        hosts and vservers. Each of them is merged over the file as it would be by then, and that is checked in full.
Rule 3: a cluster.yaml alone is a story, too: one without events, for which they are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from failover import config
from failover.config.match import Found, match
from failover.config.problem import BadConfig, Mark, Misread, Problem, dotted
from failover.config.problem import Path as Keys
from failover.config.read import Items, Node, Pairs, Scalar, read, text_of
from failover.model import Cluster
from failover.stories import build
from failover.stories.events import WORDS, Event, Kind, Names, Token, known, read_event
from failover.stories.language import STORY
from failover.stories.merge import merged, pair, problem_at, shifted
from failover.stories.story import Story

DRAWN_UNTIL_S = 3600.0
_FOR_THE_LAB = frozenset(("id", "until", "cluster"))
_LIKE = "the story in docs/simulate.md"
_CLUSTER_HINT = "as in cluster: {hosts: {h1: {}}, vservers: {vA: {primary: h1, backups: []}}}"


@dataclass(frozen=True)
class Opened:
    """A story with what the places of its file are, for who can play only some of it."""

    story: Story
    where: str
    law: Pairs  # cluster:
    laws: Mapping[int, Pairs]  # number of an event that changes the cluster -> cluster: from then on
    happens: tuple[Keys, ...]  # where each event is written
    places: Mapping[Keys, Mark]


def load(path: Path) -> Story:
    """The story of a file; of a cluster.yaml one without events. Raises BadConfig with all problems."""
    return read_story(text_of(path, like=""), str(path))


def open_story(path: Path) -> Opened | None:
    """As `load`, with its places; None when it is no story with a cluster of its own. Raises BadConfig."""
    return open_text(text_of(path, like=""), str(path))


def open_text(text: str, where: str) -> Opened | None:
    tree = read(text, where, like=_LIKE, aliases=True)
    if _is_cluster(tree) or "cluster" not in _keys(tree):
        return None
    reader = _Reader.of(text, where)
    law = reader.law
    story = reader.story()
    return Opened(story, where, law, reader.laws, tuple(reader.happens), reader.found.places)


def load_events(path: Path) -> tuple[Event, ...]:
    """Only what happens, for who has a cluster already; names are checked if the file has a cluster of its own."""
    return _Reader.of(text_of(path, like=""), str(path), _FOR_THE_LAB).events()


def read_story(text: str, where: str) -> Story:
    tree = read(text, where, like=_LIKE, aliases=True)
    if _is_cluster(tree):
        cluster = config.parse(text, where, story=True)
        return Story(cluster.name, cluster, DRAWN_UNTIL_S, f"Random faults on {where}")
    return _Reader.of(text, where).story()


def _is_cluster(tree: Node) -> bool:
    keys = _keys(tree)
    return "hosts" in keys and not keys & {"id", "title", "events", "expect", "initial", "until"}


def _keys(node: Node | None) -> set[str]:
    return {key.text for key, _ in node.pairs} if isinstance(node, Pairs) else set()


@dataclass
class _Reader:
    where: str
    lines: list[str]
    tree: Pairs
    found: Found
    law: Pairs  # cluster: as the file would say it by now
    sound: bool = False  # whether `law` had no problem
    removed: set[str] = field(default_factory=set)
    happens: list[Keys] = field(default_factory=list)
    laws: dict[int, Pairs] = field(default_factory=dict)
    known: dict[str, dict[str, None]] = field(default_factory=lambda: {"hosts": {}, "vservers": {}})

    @classmethod
    def of(cls, text: str, where: str, waived: frozenset[str] = frozenset()) -> _Reader:
        tree = read(text, where, like=_LIKE, aliases=True)
        if not isinstance(tree, Pairs):
            raise BadConfig(where, (Problem("begins with no key", "begin with id: and a name", mark=tree.mark),))
        cluster = next((node for key, node in tree.pairs if key.text == "cluster"), None)
        outline = tuple((key, Scalar("there", node.mark) if node is cluster else node) for key, node in tree.pairs)
        found = match(Pairs(outline, tree.mark), STORY, waived)
        if cluster is not None and not isinstance(cluster, Pairs):
            found.report(("cluster",), "is not a group of keys", _CLUSTER_HINT)
            del found.values["cluster"]
        law = cluster if isinstance(cluster, Pairs) else Pairs((), tree.mark)
        return cls(where, text.splitlines(), tree, found, law)

    def story(self) -> Story:
        cluster = self._cluster("cluster")
        events = self._events()
        names = self._names()
        self._references(names)
        self._expectations()
        if self.found.problems or cluster is None:
            raise BadConfig(self.where, self.found.problems)
        return build.story(self.found.values, cluster, events)

    def _expectations(self) -> None:
        """An expectation that says nothing is a slip, and would let every story agree."""
        values = self.found.values
        if ("expect",) in self.found.places and not values.get("expect"):
            self.found.report(("expect",), "expects nothing", "say how it must end, or leave the key out")
        if ("expect", "final") in self.found.places and not values.get("expect", {}).get("final"):
            self.found.report(("expect", "final"), "names no vserver", "as in final: {vA: started@h1}")

    def events(self) -> tuple[Event, ...]:
        if "cluster" in self.found.values:
            self._cluster("cluster")
        if "events" not in self.found.values and not self.found.problems:
            self.found.report((), "has no events", "events: [{at: 2s, do: power-off hostA}]")
        events = self._events() or ()
        if self.found.problems:
            raise BadConfig(self.where, self.found.problems)
        return events

    # --- the cluster, at first and after each change of it

    def _cluster(self, at: str) -> Cluster | None:
        if not self.law.pairs:
            if "cluster" in self.found.values:
                self.found.report(("cluster",), "is empty", _CLUSTER_HINT)
            return None
        try:
            cluster = config.parse(self.law, self.where, story=True)
        except BadConfig as bad:
            self.sound = False
            self.found.problems += [replace(problem, path=f"{at}.{problem.path}") for problem in bad.problems]
            return None
        self.sound = True
        return cluster

    def _names(self) -> Names:
        """All that the file has had by now, whatever is wrong with it: what takes a name away may be refused."""
        if "cluster" not in self.found.values:
            return Names()
        for key, node in self.law.pairs:
            if key.text in self.known and isinstance(node, Pairs):
                self.known[key.text] |= dict.fromkeys(name.text for name, _ in node.pairs)
        return Names(tuple(self.known["hosts"]), tuple(self.known["vservers"]))

    # --- what happens

    def _events(self) -> tuple[Event, ...] | None:
        values = self.found.values
        if "events" not in values:
            return None
        entries = list(self.found.items(("events",), values["events"])) if ("events",) in self.found.kept else []
        events = []
        for path, entry in sorted(entries, key=lambda entry: entry[1].get("at", 0.0)):
            if entry.get("at", 0.0) > values.get("until", float("inf")):
                until = f"the story ends at {values['until']:g}s"
                self.found.report((*path, "at"), f"is after the end: {until}", "raise until, or let it happen earlier")
            here = (*path, "do")
            said = self.found.items(here, entry["do"]) if "do" in entry else ()
            events += [self._event(place, text, entry.get("at", 0.0)) for place, text in said]
        return tuple(events)

    def _event(self, path: Keys, text: str, at_s: float) -> Event:
        told = read_event(text, at_s, self._names())
        for complaint in told.complaints:
            mark = self._mark(path, complaint.about)
            self.found.problems.append(Problem(complaint.message, complaint.hint, dotted(path), mark))
        event = told.event
        self.happens.append(path)
        if event.word == "remove":
            self.removed.add(event.vserver)
        if told.complaints or told.group is None or Kind.GROUP not in WORDS[event.word].takes:
            return event
        return self._changed(path, event, told.group)

    def _changed(self, path: Keys, event: Event, group: Token) -> Event:
        """An event that changes the file: with the cluster as it is then."""
        origin = self._mark(path, group)
        try:
            change = shifted(read(group.text, self.where), origin)
        except BadConfig as bad:
            self.found.problems += [problem_at(problem, dotted(path), origin) for problem in bad.problems]
            return event
        if event.word == "add":
            self._refuse_second(path, event)
            change = pair("vservers", pair(event.vserver, change))
        if not isinstance(change, Pairs):
            self.found.problems.append(Problem("is not a group of keys", "write { }", dotted(path), origin))
            return event
        before: Node = self.law
        if event.word == "add" and event.vserver in self.removed:  # nothing of what it was before is left
            before = merged(before, pair("vservers", pair(event.vserver, Scalar("~", origin))))
        whole = merged(before, change)
        was_sound = self.sound
        self.law = self.laws[len(self.happens) - 1] = whole if isinstance(whole, Pairs) else self.law
        return replace(event, cluster=self._cluster(dotted(path)) if was_sound else None)

    def _refuse_second(self, path: Keys, event: Event) -> None:
        if event.vserver in (self._names().vservers or ()) and event.vserver not in self.removed:
            hint = f"change it with apply {{vservers: {{{event.vserver}: …}}}}, or remove it before"
            self.found.report(path, f"{event.vserver} is there already", hint)

    def _mark(self, path: Keys, about: Token) -> Mark:
        """Where a word of an event stands; if that cannot be told, where the event begins."""
        mark = self.found.places[path]
        node = _node(self.tree, path)
        column = mark.column + about.offset + (0 if isinstance(node, Scalar) and node.plain else 1)
        line = self.lines[mark.line - 1] if mark.line <= len(self.lines) else ""
        there = line[column - 1 :].startswith(about.text.partition("\n")[0])
        return Mark(mark.line, column) if there else mark

    # --- what is named elsewhere

    def _references(self, names: Names) -> None:
        for path, table, name in _named(self.found):
            try:
                known(name, names.hosts if table == "hosts" else names.vservers, table)
            except Misread as misread:
                self.found.report(path, misread.message, misread.hint)
        _contradictions(self.found)


def _node(tree: Node, path: Keys) -> Node:
    """The node at a path; one word stands for a list of one."""
    for step in path:
        if isinstance(tree, Pairs):
            tree = next((node for key, node in tree.pairs if key.text == step), tree)
        elif isinstance(tree, Items) and isinstance(step, int):
            tree = tree.items[step]
    return tree


def _named(found: Found) -> Iterator[tuple[Keys, str, str]]:
    """Every host and vserver that is named outside of cluster and events: where, of which table, which."""
    values = found.values
    for v, trait in values.get("traits", {}).items():
        yield ("traits", v), "vservers", v
        yield from _hosts(found, ("traits", v, "fails_start_on"), trait)
    yield from _initial(found, values.get("initial", {}))
    expect = values.get("expect", {})
    for v, states in expect.get("final", {}).items():
        yield ("expect", "final", v), "vservers", v
        for path, (_, host) in found.items(("expect", "final", v), states):
            yield from ((path, "hosts", host),) if host else ()
    yield from _hosts(found, ("expect", "fenced"), expect)
    for path, move in found.items(("expect", "moves"), expect["moves"]) if "moves" in expect else ():
        for key, table in (("vserver", "vservers"), ("from", "hosts"), ("to", "hosts")):
            yield from (((*path, key), table, move[key]),) if key in move else ()
    for path, (word, *about) in found.items(("forbid",), values["forbid"]) if "forbid" in values else ():
        tables = ("hosts",) if word == "takeover_of" else ("vservers", "hosts")
        yield from ((path, table, name) for table, name in zip(tables, about, strict=False))


def _initial(found: Found, initial: Mapping[str, Any]) -> Iterator[tuple[Keys, str, str]]:
    here: Keys = ("initial",)
    if isinstance(initial.get("power"), dict):
        yield from (((*here, "power", host), "hosts", host) for host in initial["power"])
    for key in ("owners", "running", "replica_age"):
        for v, where in initial.get(key, {}).items():
            yield (*here, key, v), "vservers", v
            if isinstance(where, str):
                yield (*here, key, v), "hosts", where
            elif isinstance(where, dict):
                yield from (((*here, key, v, host), "hosts", host) for host in where)
            else:
                yield from ((path, "hosts", host) for path, host in found.items((*here, key, v), where))
    yield from _hosts(found, (*here, "down_cleanly"), initial)
    yield from _hosts(found, (*here, "watchdog"), initial)
    for path, v in found.items((*here, "recovering"), initial["recovering"]) if "recovering" in initial else ():
        yield path, "vservers", v


def _hosts(found: Found, path: Keys, values: Mapping[str, Any]) -> Iterator[tuple[Keys, str, str]]:
    key = str(path[-1])
    yield from ((place, "hosts", host) for place, host in found.items(path, values[key])) if key in values else ()


def _contradictions(found: Found) -> None:
    """What cannot be so at 0 s, and moves that go nowhere."""
    initial = found.values.get("initial", {})
    power = initial.get("power", {})
    off = {host for host, state in power.items() if state == "off"} if isinstance(power, dict) else set()
    off |= set(initial.get("down_cleanly", ()))
    for v, hosts in initial.get("running", {}).items():
        for path, host in found.items(("initial", "running", v), hosts):
            if host in off or power == "all_off":
                found.report(path, f"{v} cannot run on {host}, which is off", "say power: on, or leave it out")
    for path, host in _hosts_on(found, initial, power):
        found.report(path, f"{host} was shut down but is on", "leave out one of the two")
    for path, v in found.items(("initial", "recovering"), initial["recovering"]) if "recovering" in initial else ():
        if v not in initial.get("owners", {}):
            found.report(path, f"{v} has no owner that could be lost", f"add owners: {{{v}: …}}")
    expect = found.values.get("expect", {})
    for path, move in found.items(("expect", "moves"), expect["moves"]) if "moves" in expect else ():
        if move.get("from") == move.get("to", ""):
            found.report((*path, "to"), f"{move['to']} is where it comes from", "name another host")


def _hosts_on(found: Found, initial: Mapping[str, Any], power: object) -> Iterator[tuple[Keys, str]]:
    down = found.items(("initial", "down_cleanly"), initial["down_cleanly"]) if "down_cleanly" in initial else ()
    yield from ((path, host) for path, host in down if isinstance(power, dict) and power.get(host) == "on")
