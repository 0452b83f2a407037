"""A chaos run: a drawn story (chaos.py) on real processes, under load, judged by what is seen from outside.

watch      who runs and who speaks                 a second copy, a second answer        (performance.py, judge.py)
load       20 rows a second into each vserver      outages, what was acknowledged
rests      what the hosts' leases rest on         how much was by grants: of the time, of the takeovers
witness    what backups have whole, what starts    an acknowledged generation that is lost         (rows.py)
logs       what the daemons wrote                  an error that nobody has expected
status     in the end, and no later than GRACE_S   all that is wanted runs, every host is up, every copy follows
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from failover.errors import FailoverError
from failover.lab import load
from failover.lab.lab import Lab
from failover.lab.load import Load
from failover.lab.pace import LONGEST_S, paced
from failover.lab.performance import Performance, Say
from failover.lab.probe import outages
from failover.lab.rests import Rests, resting_s, was_granted
from failover.lab.rows import Loss, losses
from failover.lab.stage import Stage
from failover.lab.witness import Start, Witness, rows_of
from failover.stories.events import Event
from failover.stories.outcome import Outcome
from failover.stories.reading import Opened

FOLLOWS_S = 20.0  # a copy that follows is no older
FIRST_ANSWER_S = 30.0
_HEALS = ("power-on", "join", "mend", "store-up", "agent-start", "disk-free")


@dataclass(frozen=True)
class Looks:
    """What the verdict rests on."""

    watch: int  # looks of the watch
    longest_s: float  # between two of them
    late: int  # times at which two spoke, but between looks that were too far apart to say that it was at once
    tried: Mapping[str, int]  # rows, by vserver
    acknowledged: Mapping[str, int]
    granted: Mapping[str, float] = field(default_factory=dict)  # share of the time on grants, by host
    takeovers: tuple[int, int] = (0, 0)  # of hosts on grants, of hosts on their sessions


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    differences: tuple[str, ...]
    losses: tuple[Loss, ...]
    errors: tuple[str, ...]  # in the daemons' logs
    outages: Mapping[str, tuple[tuple[float, float], ...]]  # vserver -> (from, to), seconds of the story
    faults: Mapping[str, int]  # by word
    looks: Looks

    @property
    def broken(self) -> tuple[str, ...]:
        """Every reason why it failed; none: all was well."""
        lost = (
            f"{loss.at:9.3f} s  {loss.vserver} was started on {loss.host} without {len(loss.broken)} acknowledged rows "
            f"that were whole there: {_some(loss.broken)}"
            for loss in self.losses
            if loss.broken
        )
        return (*self.outcome.violations, *lost, *self.differences, *self.errors)


def try_out(opened: Opened, lab: Lab, say: Say) -> Verdict:
    """`lab`: down; the caller takes it away."""
    stage = Stage(opened, lab, lab.place.name, "normal", apart=False)
    stage.set_up(say)
    for vserver in opened.story.cluster.vservers.values():
        load.prepare(lab, vserver.primary, vserver.name)
    return _Trial(opened, stage, say).run()


class _Trial(Performance):
    def __init__(self, opened: Opened, stage: Stage, say: Say) -> None:
        super().__init__(opened, stage, paced(opened.story, LONGEST_S), say, 1.0)
        self._load = Load(stage.lab, {name: found[0].partition("/")[0] for name, found in stage.addresses.items()})
        self._witness = Witness(stage.lab, list(stage.addresses))
        self._rests = Rests(stage.lab, stage.lab.place.name)

    @contextmanager
    def _company(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._witness)
            stack.enter_context(self._rests)
            stack.enter_context(self._load)
            self._await_rows()
            yield

    def _await_rows(self) -> None:
        deadline = monotonic() + FIRST_ANSWER_S
        while silent := [name for name in self._load.samples if not self._load.acknowledged(name)]:
            if monotonic() > deadline:
                raise FailoverError(f"no row is written into {', '.join(silent)}")
            self._load.wait(0.1)

    def _look_before_it_goes(self) -> None:
        """It comes back; and looking takes seconds, by which the fault would be late."""

    def _lacks(self) -> tuple[str, ...]:
        return tuple(lacking(self._status))

    def run(self) -> Verdict:
        outcome, differing = self.play()
        ended = monotonic()
        names = list(self._load.samples)
        acknowledged = {name: self._load.acknowledged(name) for name in names}
        found = [
            loss
            for name in names
            for loss in losses(acknowledged[name], [*self._witness.of(name), *self._last(name, outcome)])
        ]
        sights = self._watch.all_seen()
        late = sum(sight.late and len(sight.speaks) > 1 for seen in sights.values() for sight in seen)
        looks = Looks(
            self._watch.looks,
            self._watch.longest_s,
            late,
            {name: len(self._load.samples[name]) for name in names},
            {name: len(rows) for name, rows in acknowledged.items()},
            self._granted(ended),
            self._takeovers(),
        )
        return Verdict(
            outcome,
            differing,
            tuple(Loss(loss.at - self._began, *(loss.vserver, loss.host, loss.rows, loss.broken)) for loss in found),
            tuple(self._logs.errors()),
            {name: tuple(self._outages(name)) for name in names},
            faults_of(self._story.events or ()),
            looks,
        )

    def _granted(self, ended: float) -> dict[str, float]:
        found = resting_s(self._rests.all_seen(), self._lab.real_hosts, self._began, ended)
        return {host: rested_s / (ended - self._began) for host, rested_s in found.items()}

    def _takeovers(self) -> tuple[int, int]:
        """By what the record of the host that was lost had said before."""
        seen, later_s = self._rests.all_seen(), self._began - self._began_at
        events = (event for event in self._history[self._old :] if event["kind"] == "takeover")
        by_grants = [was_granted(seen, event["facts"].get("from", ""), event["at"] + later_s) for event in events]
        return sum(by_grants), len(by_grants) - sum(by_grants)

    def _last(self, vserver: str, outcome: Outcome) -> Iterator[Start]:
        """What is in the tree that runs in the end, as if it had just been started there."""
        host = outcome.final[vserver].partition("@")[2]
        if outcome.final[vserver] == f"started@{host}":
            text = self._lab.exec(host, ["cat", f"/vservers/{vserver}/{load.ROWS}"]).stdout.decode()
            yield Start(monotonic(), vserver, host, frozenset(rows_of(text)))

    def _outages(self, vserver: str) -> Iterator[tuple[float, float]]:
        """An answer that came after that to a later row is slow, and no outage."""
        for began, ended in outages(self._load.tried(vserver)):
            if ended > began:
                yield began - self._began, ended - self._began


def lacking(status: Mapping[str, Any]) -> Iterator[str]:
    """What of `failover status --json` is not as it must be when all is mended."""
    yield from (f"{name} is {host['state']}" for name, host in status["hosts"].items() if host["state"] != "up")
    yield from (f"held back: {hold['subject']}: {hold['because']}" for hold in status["holds"])
    for name, vserver in status["vservers"].items():
        for host, copy in vserver["backups"].items():
            age_s = copy["age_s"]
            if copy["diverged"] or age_s is None or age_s > FOLLOWS_S:
                how = (
                    "has diverged"
                    if copy["diverged"]
                    else "is of unknown age"
                    if age_s is None
                    else f"is {age_s:.0f} s old"
                )
                yield f"the copy of {name} on {host} {how}"


def faults_of(events: tuple[Event, ...]) -> Mapping[str, int]:
    """How often each word was said; a cut one way is another fault than one both ways."""
    words = (event.word + (" one way" if len(event.links) == 1 else "") for event in events if event.word not in _HEALS)
    return dict(sorted(Counter(words).items()))


def _some(rows: frozenset[int], most: int = 5) -> str:
    first = sorted(rows)[:most]
    return ", ".join(map(str, first)) + (" …" if len(rows) > most else "")
