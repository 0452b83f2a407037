"""How long a failure takes, worst case, as `failover check` prints it: what happens when, counted from the cut.

    the last renewal   the cut        all is frozen, at the latest   the session ends, at the earliest   given away
    ──────┼───────────────┼────────────────────────┼───────────────────────────────┼───────────────────────┼──────▶
          └ one pause at most ┘                    └── proved: never in the other order ──┘

Rule 1: what keeps a vserver from running twice is proved (failover/timing.py, docs/safety.md): when all is frozen at
        the latest, and when a session can end at the earliest. How soon the rest has happened is not: those figures
        are measured, or follow from ZooKeeper's ticks while it is well, and are marked by `~`.
Rule 2: all was well until the cut, so the last renewal was sent no more than one pause before it; the last that counts
        (failover/touches.py) two ticks to two pauses, if those are longer than that.
Rule 3: a right that rests on something else than the session is one more `Right` in `rights`: it differs in when what
        runs is frozen, and in when it may be given away.
Rule 4: grants end with the leader that granted them. It grants to its own host until its own lease ends, cables or not;
        all others have gone back to their sessions long before another one is elected (failover/grants/granting.py).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from failover.timing import Timing

SYNC_LIMIT_TICKS = 5  # as `failover init` writes it (failover/ensemble.py)
ELECTED_S = 0.5  # measured with ZooKeeper 3.8: from when its leader is missed until writes are served again
LEADS_S = 0.1  # typical: until another process of ours leads and has read everything, some round trips
READ_S = 0.05  # typical: until the leader has read a lease record once more, and looked again
GIVEN_S = 0.1  # typical: the transaction that gives a vserver away, 5 to 80 ms, and the word on its way to the host

WIDTH = 80
# of the leader, as failover/grants/granting.py has them; of the host that asks, as agents/asking.py does
PATIENCE = 4  # such a part of a session is the time that hosts have to return to theirs
ELECTED = 0.5  # grants: the time to return after an election
ALMOST = 1 / 3  # of a grant: what is left of the leader's lease when it grants nothing more
PING = 3  # such a part of a session is between two signs of life of a host that renews nothing
MISSED = 2.5  # pauses without an answer: the host goes back to its session

_FROZEN = "what ran there stands still, and no frame of it leaves"
_LEADS = "another host leads: the session of the leader is over"
_OVER = "its last grant is over, by the leader's clock, too"
_RETURNED = "all others had time to come back: its grants are over"


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
    to others. In `Span`s: from then on it counts anew, or it is known only then, where that is so."""

    name: str
    frozen: Moment
    over: Moment
    leading: Moment  # as `frozen`, of the host that leads
    anew: Span | None = None  # from a new leader of ZooKeeper
    led_anew: Span | None = None  # from a new leader of ours


@dataclass(frozen=True)
class Span:
    """What takes so many seconds, at the least and at the most."""

    what: str
    least_s: float
    most_s: float

    def after(self, moment: Moment) -> Moment:
        return moment.later(self.what, self.least_s, self.most_s)


def rights(timing: Timing) -> tuple[Right, ...]:
    """The usual one, and what hosts fall back upon."""
    return _grants(timing), _session(timing)


def _session(timing: Timing) -> Right:
    frozen_s = (timing.lease_s + timing.freeze_s) / (1 - timing.drift) - timing.kept_s
    least_s, most_s = timing.session_s, timing.session_s + 2 * timing.tick_s
    told_s = timing.told_s(timing.renew_s)
    frozen = Moment(_FROZEN, Figure(timing.lease_s - told_s), Figure(frozen_s))
    over = Moment("ZooKeeper ends its session", Figure(least_s - told_s), Figure(most_s, proved=False))
    return Right(
        "on ZooKeeper sessions, until all is quiet",
        frozen,
        over,
        frozen,
        Span("ZooKeeper ends its session, which has counted anew", least_s, most_s),
    )


def _grants(timing: Timing) -> Right:
    """The last question was sent no more than one pause before the cut."""
    right_s, length_s = timing.granted_s(timing.grant_s), timing.grant_s
    frozen_s = (right_s + timing.grant_freeze_s) / (1 - timing.drift)
    return_s = timing.session_s / PATIENCE
    return Right(
        "on grants of the leader, as in quiet times",
        Moment(_FROZEN, Figure(right_s - timing.ask_grant_s), Figure(frozen_s)),
        Moment(_OVER, Figure(length_s - timing.ask_grant_s), Figure(length_s + READ_S, proved=False)),
        _leading(timing),
        Span(_RETURNED, return_s, return_s + 2 * timing.prove_s + READ_S),
        Span(_RETURNED, ELECTED * length_s, length_s + READ_S),  # a whole one where nothing was known of it before
    )


def _leading(timing: Timing) -> Moment:
    """Of the host that leads, which grants to itself until its own lease is over, or almost. The last proof that it
    leads was sent no more than one pause before the cut."""
    lease_s, told_s = timing.leads_s(timing.leader_session_s), timing.told_s(timing.prove_s)
    longest_s = ALMOST * timing.grant_s + timing.ask_grant_s  # of the last grant to itself
    lost_s = longest_s * timing.drift + timing.grant_freeze_s + timing.grant_margin_s
    return Moment(_FROZEN, Figure(lease_s - told_s - lost_s), Figure(lease_s / (1 - timing.drift) - timing.kept_s))


def _leadership(timing: Timing, *, proves: bool) -> tuple[Moment, Span]:
    """When the session of the leader's process ends, after a cut and after an election. It writes proofs that it leads
    while others ask; else it pings."""
    least_s, most_s = timing.leader_session_s, timing.leader_session_s + 2 * timing.tick_s
    told_s = timing.told_s(timing.prove_s if proves else timing.leader_session_s / PING)
    over = Moment("", Figure(least_s - told_s, proved=False), Figure(most_s, proved=False))
    return over, Span("", least_s, most_s)


def failures(timing: Timing, right: Right) -> tuple[Failure, ...]:
    """Every kind of failure of which the cluster's terms decide how long it takes."""
    return (*_losses(timing, right), _without_zookeeper(timing, right))


def _losses(timing: Timing, right: Right) -> Iterator[Failure]:
    """Whoever leads has a session of its own, whatever the right of a host rests on."""
    frozen, leading, over = right.frozen, right.leading, right.over
    led, led_anew = _leadership(timing, proves=right.led_anew is not None)
    yield Failure("a host is lost: all its cables; or its power, and all stops at once", (frozen, over, _given(over)))
    leads = _soon(_LEADS, LEADS_S, led)
    yield Failure("the host that leads is lost", (leading, *_by_another(right, over, leads)))
    elected = _elected(timing)
    over = _anew(right, elected)
    yield Failure("the host of ZooKeeper's own leader is lost", (frozen, elected, over, _given(elected, over)))
    leads = _soon(_LEADS, LEADS_S, led_anew.after(elected))
    yield Failure("a host is lost that is all of these", (leading, elected, *_by_another(right, over, leads)))


def _by_another(right: Right, over: Moment, leads: Moment) -> tuple[Moment, ...]:
    """What follows where the leader is lost as well."""
    if right.led_anew is None:
        return (*sorted((over, leads), key=lambda moment: moment.latest.s), _given(over, leads))
    sure = right.led_anew.after(leads)
    return (leads, sure, _given(sure))


def _soon(what: str, within_s: float, *after: Moment) -> Moment:
    """What follows from the last of them, at once or within a typical time."""
    earliest = max((moment.earliest for moment in after), key=lambda figure: figure.s)
    latest = max((moment.latest for moment in after), key=lambda figure: figure.s)
    return Moment(what, earliest, latest.later(within_s))


def _given(*after: Moment) -> Moment:
    return _soon("other hosts are given what it owned, and start it", GIVEN_S, *after)


def _anew(right: Right, elected: Moment) -> Moment:
    return right.over if right.anew is None else right.anew.after(elected)


def _elected(timing: Timing) -> Moment:
    """The other servers miss it after syncLimit ticks."""
    missed_s = SYNC_LIMIT_TICKS * timing.tick_s
    what = "ZooKeeper has another leader; none is answered before"
    return Moment(what, Figure(missed_s, proved=False), Figure(missed_s + ELECTED_S, proved=False))


def _without_zookeeper(timing: Timing, right: Right) -> Failure:
    """Its session ends first, whatever its right rests on: who has none is granted nothing more. From the word on
    nobody renews a promise; the last may be as old as the pause between two questions."""
    ended = _session(timing).over
    granted: tuple[Moment, ...] = ()
    if right.led_anew is not None:
        granted = (ended.later("the last grant to it is over", 0.0, timing.grant_s),)
    told = _soon("other hosts are given it, and wait for their promises", GIVEN_S, *(granted or (ended,)))
    right_s, bond_s = timing.promised_s(timing.promise_s), timing.promise_s
    moments = (
        ended,
        *granted,
        told,
        told.later(_FROZEN, right_s - timing.ask_s, right_s / (1 - timing.drift)),
        told.later("the promises are over, and they start it", bond_s - timing.ask_s, bond_s),
    )
    return Failure("a host has lost ZooKeeper alone: by promises all goes on there", moments)


# --- in an operator's words -------------------------------------------------------------------------------------------


def table(timing: Timing) -> str:
    usual, then = rights(timing)
    lines = [_heading(usual)]
    for failure in failures(timing, usual):
        lines.append(f"  {failure.of}")
        lines += [f"    {_line(moment.what, moment, 56)}" for moment in failure.moments]
    lines += [*textwrap.wrap(_others(timing, usual), WIDTH), _heading(then)]
    for failure in failures(timing, then):
        lines.append(f"  {_line(failure.of.partition(':')[0] + ': given away', failure.moments[-1], 58)}")
    return "\n".join([*lines, *textwrap.wrap(_others(timing, then), WIDTH), *textwrap.wrap(_LEGEND, WIDTH)])


def _heading(right: Right) -> str:
    return f"{f'after the cut, {right.name}:':<60}{'earliest':>10}{'latest':>10}"


def _line(what: str, moment: Moment, width: int) -> str:
    return f"{what:<{width}}{moment.earliest!s:>10}{moment.latest!s:>10}"


def _others(timing: Timing, right: Right) -> str:
    """Whether what runs on the other hosts goes on while ZooKeeper elects, or while nobody leads."""
    away, left = _elected(timing).latest, right.leading.earliest
    last, what = ("other leases", "each") if right.led_anew is None else ("grants", "the leader's own lease")
    if left.s > away.s:
        text = f"While ZooKeeper elects, {away}, all {last} last: at least {left} of {what} are left."
    else:
        text = (
            f"While ZooKeeper elects, {away}, {last} may end, too, for only {left} of {what} may be left: what runs "
            "there goes on by promises, or stands still for a moment."
        )
    if right.led_anew is None:
        return text
    rest = Figure(timing.granted_s(timing.grant_s) - MISSED * timing.ask_grant_s)
    return f"{text} When the leader is lost all others go back to their sessions, with {rest} of their grants left."


_LEGEND = (
    "`~` is measured or typical, for hosts and a ZooKeeper that are well, with the zoo.cfg of `failover init`; all "
    "else is proved, if all was well until the cut. When what a host ran stands still, and when it is given away, both "
    "count from the last renewal or question before it: for one host they never come in the other order. After the "
    "last line of each a vserver takes as long as its own start."
)
