"""Why and what if: history, plan, capacity."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from failover.cli.lines import say
from failover.cli.operate import Commands
from failover.errors import BadInput
from failover.model import Assignment, Event, Hold, View
from failover.store import Change

if TYPE_CHECKING:
    from failover.plan.capacity import Survival


def add(commands: Commands) -> None:
    history = commands.add_parser("history", help="what happened, when and why")
    history.add_argument("name", nargs="?", help="only of this vserver or host")
    history.add_argument("--limit", type=int, default=50, metavar="N", help="the newest N (default: %(default)s)")
    history.add_argument("--json", action="store_true", help="for programs: one object per line")
    history.set_defaults(run=_history)
    plan = commands.add_parser("plan", help="what the leader would do if hosts were lost now; changes nothing")
    plan.add_argument("--without", action="append", default=[], metavar="HOST", help="as if this host were lost")
    plan.add_argument("--file", type=Path, metavar="CLUSTER.YAML", help="as if a cluster were as this file says")
    plan.set_defaults(run=_plan)
    capacity = commands.add_parser(
        "capacity",
        help="whether the others have room for what any host runs; changes nothing",
        description="Exit status 1 when the loss of some host would leave a vserver without one.",
    )
    capacity.add_argument("--lost", type=int, default=1, metavar="N", help="so many at once (default: %(default)s)")
    capacity.add_argument("--file", type=Path, metavar="CLUSTER.YAML", help="of a cluster as this file says")
    capacity.add_argument("--json", action="store_true", help="for programs: one object per line")
    capacity.set_defaults(run=_capacity)


def _history(options: Namespace) -> None:
    from failover.cli.connect import connected

    if options.limit < 1:
        raise BadInput("--limit must be at least 1")
    with connected(options) as store:
        events = store.history()
    wanted = [event for event in events if options.name in (None, event.vserver, event.host)][-options.limit :]
    for event in wanted:
        print(
            json.dumps({**asdict(replace(event, facts={})), "facts": dict(event.facts)})
            if options.json
            else _line(event)
        )


def _line(event: Event) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at)) + f".{int(event.at * 1000) % 1000:03d}"
    return f"{when}  {event.vserver or event.host or '':<12} {event.kind:<9} {event.text}"


def _plan(options: Namespace) -> None:
    from failover.orders import host_of
    from failover.plan import plan, without

    view = _seen(options)
    lost = tuple(host_of(view, host) for host in options.without)
    decided = plan(without(view, lost))
    _print_decided(view, decided.changes, decided.holds)


def _seen(options: Namespace) -> View:
    """The cluster as it is, or as a file would have it."""
    if options.file is None:
        from failover.cli.connect import connected

        with connected(options) as store:
            return store.view()
    from failover.config import load
    from failover.plan.capacity import as_written

    return as_written(load(options.file))


def _capacity(options: Namespace) -> int:
    from failover.plan.capacity import matrix

    view = _seen(options)
    if not 1 <= options.lost < max(2, len(view.cluster.hosts)):
        raise BadInput(f"--lost must be from 1 to {max(1, len(view.cluster.hosts) - 1)}", hint="some host must be left")
    found = list(matrix(view, options.lost))
    if options.json:
        for one in found:
            print(json.dumps({**asdict(one), "whole": one.whole}))
    else:
        for line in _matrix_lines(found, options.lost):
            say(line)
    return 0 if all(one.whole for one in found) else 1


def _matrix_lines(found: Sequence[Survival], at_once: int) -> Iterator[str]:
    bad = [one for one in found if not one.whole]
    if not found:
        yield "no host is up"
    elif not bad:
        what = "any one host" if at_once == 1 else f"any {at_once} hosts at once"
        yield f"N+{at_once} holds: {what} of {len({host for one in found for host in one.lost})} may be lost"
    else:
        yield f"N+{at_once} does not hold: {len(bad)} of {len(found)} losses would leave vservers without a host"
    for one in bad:
        yield f"without {' and '.join(one.lost)}:"
        yield from (f"  {name} would wait: {because}" for name, because in one.waiting)


def _print_decided(view: View, changes: tuple[Change, ...], holds: tuple[Hold, ...]) -> None:
    words = [word for change in changes for word in change.assignments if _is_news(view, word)]
    for word in words:
        old = view.assignments.get(word.vserver)
        say(f"{word.vserver}: {old.owner if old else 'nowhere'} -> {word.target or word.owner}  ({word.because})")
    for hold in holds:
        say(f"{hold.subject} would wait: {hold.because}")
        if hold.hint:
            say(f"  {hold.hint}")
    if not words and not holds:
        print("nothing would change")


def _is_news(view: View, word: Assignment) -> bool:
    """Whether anything would be started, stopped or moved by it."""
    old = view.assignments.get(word.vserver)
    return old is None or (old.owner, old.target, old.want) != (word.owner, word.target, word.want)
