"""Why and what if: history, plan."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from dataclasses import asdict, replace

from failover.cli.operate import Commands
from failover.errors import BadInput
from failover.model import Event, Hold, View
from failover.store import Change


def add(commands: Commands) -> None:
    history = commands.add_parser("history", help="what happened, when and why")
    history.add_argument("name", nargs="?", help="only of this vserver or host")
    history.add_argument("--limit", type=int, default=50, metavar="N", help="the newest N (default: %(default)s)")
    history.add_argument("--json", action="store_true", help="for programs: one object per line")
    history.set_defaults(run=_history)
    plan = commands.add_parser("plan", help="what the leader would do if hosts were lost now; changes nothing")
    plan.add_argument("--without", action="append", default=[], metavar="HOST", help="as if this host were lost")
    plan.set_defaults(run=_plan)


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
    from failover.cli.connect import connected
    from failover.orders import host_of
    from failover.plan import plan, without

    with connected(options) as store:
        view = store.view()
    lost = tuple(host_of(view, host) for host in options.without)
    decided = plan(without(view, lost))
    _print_decided(view, decided.changes, decided.holds)


def _print_decided(view: View, changes: tuple[Change, ...], holds: tuple[Hold, ...]) -> None:
    for change in changes:
        for word in change.assignments:
            old = view.assignments.get(word.vserver)
            print(f"{word.vserver}: {old.owner if old else 'nowhere'} -> {word.target or word.owner}  ({word.because})")
    for hold in holds:
        print(f"{hold.subject} would wait: {hold.because}")
        if hold.hint:
            print(f"  {hold.hint}")
    if not changes and not holds:
        print("nothing would change")
