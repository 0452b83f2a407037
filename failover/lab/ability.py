"""What of a story no lab can do: told in full, each with its place, before anything is started.

A lab has real clocks, real disks and real vservers, so it cannot let them misbehave as a simulator can; and at 0 s its
cluster is new, with everything that is wanted started running on its primary.
"""

from __future__ import annotations

from collections.abc import Iterator

from failover.config.problem import BadConfig, Mark, Path, Problem, dotted
from failover.lab.lab import may_be_called
from failover.model import Cluster, Want
from failover.stories.reading import Opened

MOST_HOSTS = 5
_WEB_PORT = 80  # the quick tree answers there
_CANNOT = {
    "clock": "a lab's hosts have the wall clock of the machine",
    "drift": "a lab's hosts have the monotonic clock of the machine",
    "disk-error": "a lab's disks do not fail",
    **dict.fromkeys(("fence-works", "fence-fails", "fence-hangs", "fence-takes"), "a lab has no such devices"),
    "check-fails": "a lab cannot make a health check fail",
}


def refuse(opened: Opened) -> None:
    """Raises BadConfig with one problem per event, trait or beginning that no lab can do."""
    problems = [Problem(message, hint, dotted(path), _mark(opened, path)) for path, message, hint in _problems(opened)]
    if problems:
        raise BadConfig(opened.where, problems)


def _mark(opened: Opened, path: Path) -> Mark | None:
    return next((opened.places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in opened.places), None)


def _problems(opened: Opened) -> Iterator[tuple[Path, str, str]]:
    story = opened.story
    clusters = [story.cluster, *(event.cluster for event in story.events or () if event.cluster is not None)]
    if story.events is None:
        yield (), "has no events, so there is nothing to play", "failover simulate draws random faults"
    yield from _hosts(clusters)
    yield from _checks(story.cluster)
    for path in opened.places:
        if path[0:1] == ("traits",) and len(path) == 3:
            yield path, f"no lab can do this: {path[1]} is a real vserver", "failover simulate plays it"
    yield from _beginning(opened)
    for path, event in zip(opened.happens, story.events or (), strict=True):
        if event.word in _CANNOT:
            yield path, f"no lab can do '{event.text}': {_CANNOT[event.word]}", "failover simulate plays it"


def _hosts(clusters: list[Cluster]) -> Iterator[tuple[Path, str, str]]:
    names = list(dict.fromkeys(name for cluster in clusters for name in cluster.hosts))
    if len(names) > MOST_HOSTS:
        yield ("cluster", "hosts"), f"there are {len(names)} hosts", f"a lab plays stories of up to {MOST_HOSTS}"
    for name in names:
        if not may_be_called(name):
            hint = "up to 15 letters, and not client or store"
            yield ("cluster", "hosts", name), f"a host of a lab cannot be called '{name}'", hint


def _checks(cluster: Cluster) -> Iterator[tuple[Path, str, str]]:
    for name, vserver in cluster.vservers.items():
        if any(check.tcp != _WEB_PORT for check in vserver.checks):
            hint = f"use tcp: {_WEB_PORT}"
            yield ("cluster", "vservers", name, "checks"), f"a lab's quick tree answers on port {_WEB_PORT} only", hint


def _beginning(opened: Opened) -> Iterator[tuple[Path, str, str]]:
    cluster, initial = opened.story.cluster, opened.story.initial
    here: Path = ("initial",)
    hint = "let events bring it about"
    off = [host for host in cluster.hosts if not initial.power.get(host, True)]
    new = "no lab can begin like this: its cluster is new at 0 s"
    for key, given in (("replica_age", initial.replica_age_s), ("recovering", initial.recovering)):
        if given:
            yield (*here, key), new, hint
    if initial.down_cleanly:
        yield (*here, "down_cleanly"), new, hint
    elif off and initial.owners:
        yield (*here, "power"), f"{new}, so nobody owns anything while {off[0]} is off", hint
    if initial.watchdog:
        yield (*here, "watchdog"), "a host of a lab has no watchdog", "leave it out"
    for name, owner in initial.owners.items():
        vserver = cluster.vservers.get(name)
        if vserver and (vserver.primary != owner or vserver.want is Want.IGNORED):
            yield (*here, "owners", name), f"{new}, and {name} begins on its primary", hint
    for name, hosts in initial.running.items():
        vserver = cluster.vservers.get(name)
        if vserver and (hosts != (vserver.primary,) or vserver.want is not Want.STARTED):
            yield (*here, "running", name), f"{new}, and runs what is wanted started, each on its primary", hint
