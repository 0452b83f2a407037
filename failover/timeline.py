"""How long a failure takes, worst case, as `failover check` prints it: what happens when, counted from the cut.

    the last renewal   the cut        all is frozen, at the latest   the session ends, at the earliest   given away
    ──────┼───────────────┼────────────────────────┼───────────────────────────────┼───────────────────────┼──────▶
          └ one pause at most ┘                    └── proved: never in the other order ──┘

Rule 1: what keeps a vserver from running twice is proved (failover/timing.py, docs/safety.md): when all is frozen at
        the latest, and when a session can end at the earliest. How soon the rest has happened is not: those figures
        are measured, or follow from ZooKeeper's ticks while it is well, and are marked by `~`.
Rule 2: all was well until the cut, so the last renewal was sent no more than one pause before it.
Rule 3: a right that rests on something else than the session, as on grants, is one more `Right` in `rights`: it differs
        in when what runs is frozen, and in when it may be given away.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from failover.timing import Timing

SYNC_LIMIT_TICKS = 5  # as `failover init` writes it (failover/ensemble.py)
ELECTED_S = 0.5  # measured with ZooKeeper 3.8: from when its leader is missed until writes are served again
LEADS_S = 0.1  # typical: until another process of ours leads and has read everything, some round trips
GIVEN_S = 0.1  # typical: the transaction that gives a vserver away, 5 to 80 ms, and the word on its way to the host

WIDTH = 80
_FROZEN = "what ran there stands still, and no frame of it leaves"
_LEADS = "another host leads: the leader's session is over, too"


@dataclass(frozen=True)
class Figure:
    """Seconds after the cut."""

    s: float
    proved: bool = True

    def __str__(self) -> str:
        return f"{self.s:.2f} s" if self.proved else f"~{self.s:.1f} s"

    def later(self, by_s: float) -> Figure:
        return Figure(self.s + by_s, proved=False)


@dataclass(frozen=True)
class Moment:
    what: str
    earliest: Figure
    latest: Figure

    def later(self, what: str, least_s: float, most_s: float) -> Moment:
        return Moment(what, self.earliest.later(least_s), self.latest.later(most_s))


@dataclass(frozen=True)
class Failure:
    """One kind of failure, and what follows from it in order."""

    of: str
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class Right:
    """What a host's right to run something rests on. `frozen`: all that ran there stands still; `over`: it may be given
    to others. `anew`: seconds from a new leader of ZooKeeper until `over`, at the least and at the most, where its loss
    makes the right count anew."""

    name: str
    frozen: Moment
    over: Moment
    anew: tuple[float, float] | None = None


def rights(timing: Timing) -> tuple[Right, ...]:
    return (_session(timing),)


def _session(timing: Timing) -> Right:
    frozen_s = (timing.lease_s + timing.freeze_s) / (1 - timing.drift)
    least_s, most_s = timing.session_s - timing.tick_s, timing.session_s + 2 * timing.tick_s
    return Right(
        "the ZooKeeper session",
        Moment(_FROZEN, Figure(timing.lease_s - timing.renew_s), Figure(frozen_s)),
        Moment("ZooKeeper ends its session", Figure(least_s - timing.renew_s), Figure(most_s, proved=False)),
        (least_s, most_s),
    )


def failures(timing: Timing, right: Right) -> tuple[Failure, ...]:
    """Every kind of failure of which the cluster's terms decide how long it takes."""
    return (*_losses(timing, right), _without_zookeeper(timing, right))


def _losses(timing: Timing, right: Right) -> Iterator[Failure]:
    """Whoever leads has a session of its own, whatever the right of a host rests on."""
    frozen, over, led = right.frozen, right.over, _session(timing)
    yield Failure("a host is lost: all its cables; or its power, and all stops at once", (frozen, over, _given(over)))
    leads = _soon(_LEADS, LEADS_S, led.over)
    yield Failure("the host that leads is lost", (frozen, over, leads, _given(over, leads)))
    elected = _elected(timing)
    over, over_there = _anew(right, elected), _anew(led, elected)
    yield Failure("the host of ZooKeeper's own leader is lost", (frozen, elected, over, _given(elected, over)))
    leads = _soon(_LEADS, LEADS_S, over_there)
    yield Failure("a host is lost that is all of these", (frozen, elected, over, leads, _given(over, leads)))


def _soon(what: str, within_s: float, *after: Moment) -> Moment:
    """What follows from the last of them, at once or within a typical time."""
    earliest = max((moment.earliest for moment in after), key=lambda figure: figure.s)
    latest = max((moment.latest for moment in after), key=lambda figure: figure.s)
    return Moment(what, earliest, latest.later(within_s))


def _given(*after: Moment) -> Moment:
    return _soon("other hosts are given what it owned, and start it", GIVEN_S, *after)


def _anew(right: Right, elected: Moment) -> Moment:
    return (
        right.over if right.anew is None else elected.later(f"{right.over.what}, which has counted anew", *right.anew)
    )


def _elected(timing: Timing) -> Moment:
    """The other servers miss it after syncLimit ticks."""
    missed_s = SYNC_LIMIT_TICKS * timing.tick_s
    what = "ZooKeeper has another leader; none is answered before"
    return Moment(what, Figure(missed_s, proved=False), Figure(missed_s + ELECTED_S, proved=False))


def _without_zookeeper(timing: Timing, right: Right) -> Failure:
    """From the word on nobody renews a promise; the last may be as old as the pause between two questions."""
    told = _soon("other hosts are given it, and wait for their promises", GIVEN_S, right.over)
    right_s, bond_s = timing.promised_s(timing.promise_s), timing.promise_s
    moments = (
        right.over,
        told,
        told.later(_FROZEN, right_s - timing.ask_s, right_s / (1 - timing.drift)),
        told.later("the promises are over, and they start it", bond_s - timing.ask_s, bond_s),
    )
    return Failure("a host has lost ZooKeeper alone: by promises all goes on there", moments)


# --- in an operator's words -------------------------------------------------------------------------------------------


def table(timing: Timing) -> str:
    lines = []
    for right in rights(timing):
        lines.append(f"{f'after the cut, with leases on {right.name}:':<60}{'earliest':>10}{'latest':>10}")
        for failure in failures(timing, right):
            lines.append(f"  {failure.of}")
            lines += [f"    {m.what:<56}{m.earliest!s:>10}{m.latest!s:>10}" for m in failure.moments]
        lines += textwrap.wrap(_others(timing, right), WIDTH)
    return "\n".join([*lines, *textwrap.wrap(_LEGEND, WIDTH)])


def _others(timing: Timing, right: Right) -> str:
    """Whether what runs on the other hosts goes on while ZooKeeper elects."""
    away, left = _elected(timing).latest, right.frozen.earliest
    if left.s > away.s:
        return f"While ZooKeeper elects, {away}, all other leases last: at least {left} of each are left."
    return (
        f"While ZooKeeper elects, {away}, other leases may end, too, for only {left} of one may be left: what runs "
        "there goes on by promises, or stands still for a moment."
    )


_LEGEND = (
    "`~` is measured or typical, for hosts and a ZooKeeper that are well, with the zoo.cfg of `failover init`; all "
    "else is proved, if all was well until the cut. The stand-still and the end of the session both count from the "
    "last renewal before it: for one host they never come in the other order. After the last line of each a vserver "
    "takes as long as its own start."
)
