"""What is written down of a story: its lines, moves, hosts declared dead, outages and losses.

It reads the store as an observer who sees every write at once; nothing that plays in the story depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

from failover import wire
from failover.model import Assignment, Event, HostIntent, Kind, Memory, Report, State, VserverIntent, Want
from failover.records import Node
from failover.simulate.body import Body
from failover.simulate.scene import Scene
from failover.stories.events import CLIENTS
from failover.stories.story import Move

_R = TypeVar("_R")
_PLANNED = (Kind.PLANNED, Kind.TAKEOVER)


class Record:
    """`assigned` is called with every new word: what it was before, and in which session it was written."""

    def __init__(self, scene: Scene, bodies: Mapping[str, Body]) -> None:
        self._scene, self._bodies = scene, bodies
        self.moves: list[Move] = []
        self.fenced: dict[str, None] = {}
        self.outages: dict[str, list[float]] = {}
        self.lost: dict[str, list[float]] = {}
        self.assigned: Callable[[Assignment | None, Assignment, int], None] = lambda old, new, session: None
        self._down_since: dict[str, float | None] = {}  # once it has answered: since when it does not; None: it does
        self._runs: dict[tuple[str, str], None] = {}  # (vserver, host)
        self._ran_until: dict[tuple[str, str], float] = {}
        self._accounted: dict[str, int] = {}  # the epoch of the last takeover whose loss is known
        self._gone: dict[str, set[int]] = {}  # the writes that takeovers have lost
        self._said: dict[str, str] = {}

    def begin(self) -> None:
        """What was there before the story is not written down."""
        self._scene.world.wrote = self._wrote

    def words(self) -> dict[str, Assignment]:
        nodes = self._scene.world.nodes
        return {
            name: word
            for name in self._scene.cluster.vservers
            if (word := decoded(Assignment, nodes, f"assignments/{name}")) is not None
        }

    # --- what the store hears -----------------------------------------------------------------------------------------

    def _wrote(self, paths: Sequence[str], before: Mapping[str, Node], session: int) -> None:
        self._taken_from = [path.removeprefix("taken/") for path in paths if path.startswith("taken/")]
        for path in paths:
            kind, _, name = path.partition("/")
            if kind == "assignments" and name:
                self._assigned(name, before, session)
            elif kind == "history":
                self._happened(path)
            elif kind == "reports" and (node := self._scene.world.nodes.get(path)) and b'"by_hand":true' in node.data:
                self._scene.touch()
            elif kind == "alive":
                self._session(name, before)
            elif kind == "leases":
                self._lease(path, name, before)
            elif kind == "leader" and name == "holder":
                holder = decoded(wire.Holder, self._scene.world.nodes, path)
                self._scene.say(f"{holder.name} leads" if holder else "nobody leads")
            elif kind == "holds":
                self._holds()
            elif kind == "memory":
                self._memory(before)
            elif kind in ("intent", "cluster"):
                self._scene.touch()

    def _assigned(self, name: str, before: Mapping[str, Node], session: int) -> None:
        path = f"assignments/{name}"
        old, new = decoded(Assignment, before, path), decoded(Assignment, self._scene.world.nodes, path)
        if new is None or new == old:
            return
        self._scene.say(f"{name}: {_shown(old, new)}: {new.because}")
        self._scene.touch()
        self.assigned(old, new, session)
        if old is None or old.owner == new.owner or new.kind not in _PLANNED or new.want is not Want.STARTED:
            return
        self.moves.append(Move(name, old.owner, new.owner, str(new.kind)))
        if new.kind is Kind.TAKEOVER and not self._takes_part(old.owner):
            self.fenced[old.owner] = None

    def _takes_part(self, host: str) -> bool:
        """An operator who accepts the loss takes it from an owner that lives."""
        lease = decoded(wire.LeaseRecord, self._scene.world.nodes, f"leases/{host}")
        by_grants = lease is not None and lease.granted and host in self._taken_from
        off = self._vouched(host) or by_grants or (host in self._bodies and self._bodies[host].known_off)
        return f"alive/{host}" in self._scene.world.nodes and not off

    def _vouched(self, host: str) -> bool:
        intent = decoded(HostIntent, self._scene.world.nodes, f"intent/hosts/{host}")
        return intent is not None and intent.vouched is not None

    def _happened(self, path: str) -> None:
        event = decoded(Event, self._scene.world.past, path)
        if event is None or event.vserver is not None:
            return
        self._scene.say(f"the leader: {event.text}")
        if event.kind == "lost" and event.host is not None and self._owned_started(event.host):
            self.fenced[event.host] = None

    def _owned_started(self, host: str) -> bool:
        report = decoded(Report, self._scene.world.nodes, f"reports/{host}")
        for name, word in self.words().items():
            if word.owner != host or word.want is not Want.STARTED:
                continue
            seen = report.vservers.get(name) if report else None
            gone = seen is not None and seen.state is State.STOPPED and report is not None and report.leaving
            if not gone and not (seen is not None and seen.state is State.ERROR):
                return True
        return False

    def _lease(self, path: str, host: str, before: Mapping[str, Node]) -> None:
        was, now = (
            path in nodes and b'"granted":true' in nodes[path].data for nodes in (before, self._scene.world.nodes)
        )
        if was != now:
            self._scene.say(f"{host} rests on {'the grants of the leader' if now else 'its session'}")

    def _session(self, host: str, before: Mapping[str, Node]) -> None:
        was, now = before.get(f"alive/{host}"), self._scene.world.nodes.get(f"alive/{host}")
        if (was is None) == (now is None):
            return
        self._scene.say(f"{host} has a session" if now else f"the session of {host} has ended")

    def _holds(self) -> None:
        found = decoded(wire.Holds, self._scene.world.nodes, "holds")
        said = {hold.subject: f"{hold.because}; {hold.hint}" for hold in found.holds} if found else {}
        for subject, text in said.items():
            if self._said.get(subject) != text:
                self._scene.say(f"{subject} waits: {text}")
            if not text.partition(";")[0].strip():
                self._scene.breach(9, f"{subject} is held without a reason")
        self._said = said

    def _memory(self, before: Mapping[str, Node]) -> None:
        was = decoded(Memory, before, "memory") or Memory()
        now = decoded(Memory, self._scene.world.nodes, "memory") or Memory()
        if was.disarmed != now.disarmed:
            self._scene.say("the leader: disarmed" if now.disarmed else "the leader: armed")

    # --- what runs and answers ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """After everything that changed what runs, or who reaches it."""
        nodes = self._scene.world.nodes
        for name, vserver in self._scene.cluster.vservers.items():
            running = [host for host, body in self._bodies.items() if body.runs(name)]
            for host in running:
                self._runs[name, host] = None
            for key in [key for key in self._runs if key[0] == name and key[1] not in running]:
                del self._runs[key]
                self._ran_until[key] = self._scene.now
            if running:
                self._account(name, running)
            word = decoded(Assignment, nodes, f"assignments/{name}")
            want = word.want if word else vserver.want
            wish = decoded(VserverIntent, nodes, f"intent/vservers/{name}") or VserverIntent()
            wanted = (wish.want or want) is Want.STARTED and not wish.removed
            self._answer(name, wanted=wanted, answers=any(self._answers(host, name) for host in running))

    def _answers(self, host: str, name: str) -> bool:
        links = self._scene.links
        reached = links.reaches(CLIENTS, host) and links.reaches(host, CLIENTS)
        return reached and self._bodies[host].answers_at(name)

    def _answer(self, name: str, *, wanted: bool, answers: bool) -> None:
        since = self._down_since.get(name)
        if answers or not wanted:
            if since is not None:
                self._end_outage(name, since)
            if answers or name in self._down_since:
                self._down_since[name] = None
        elif name in self._down_since and since is None:
            self._down_since[name] = self._scene.now

    def _end_outage(self, name: str, since: float) -> None:
        if self._scene.now > since:
            self.outages.setdefault(name, []).append(self._scene.now - since)

    def _account(self, name: str, running: Sequence[str]) -> None:
        """What a takeover did not find in the replica that it started."""
        word = decoded(Assignment, self._scene.world.nodes, f"assignments/{name}")
        if word is None or word.kind is not Kind.TAKEOVER or word.owner not in running or word.source is None:
            return
        taken = int(word.owned_at)
        if self._accounted.get(name) == taken or word.source not in self._bodies:
            return
        self._accounted[name] = taken
        old = self._bodies[word.source].copy(name)
        gone = self._gone.setdefault(name, set())  # what an earlier takeover has lost is not lost again
        missing = (old.content | old.kept) - self._bodies[word.owner].copy(name).content - gone
        gone |= missing
        times = [self._scene.written[number].at for number in missing]
        end = self._ran_until.get((name, word.source), self._scene.now)
        self.lost.setdefault(name, []).append(max(0.0, end - min(times)) if times else 0.0)
        size = sum(self._scene.written[number].size_bytes for number in missing)
        if size:
            self._scene.say(f"{name} on {word.owner} has not what {word.source} wrote last: {size} bytes")

    def finish(self) -> None:
        for name, since in self._down_since.items():
            if since is not None:
                self._end_outage(name, since)


def _shown(old: Assignment | None, new: Assignment) -> str:
    if old is None or old.owner != new.owner:
        where = f"to {new.owner}" if old is None else f"from {old.owner} to {new.owner} ({new.kind})"
    else:
        where = f"on {new.owner}" + (f", to go to {new.target}" if new.target else "")
    return f"epoch {new.epoch}, {where}, wanted {new.want}"


def decoded(kind: type[_R], nodes: Mapping[str, Node], path: str) -> _R | None:
    node = nodes.get(path)
    found: _R | None = _decoded(cast(Hashable, kind), node.data, path) if node is not None and node.data else None
    return found


@lru_cache(maxsize=16_384)
def _decoded(kind: Any, data: bytes, path: str) -> Any:
    return wire.decode(kind, data, where=path)
