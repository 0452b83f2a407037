"""`failover demo`: a Debian vserver survives the power cut of its host, in a lab of three, with everything real."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from failover.cli.operate import Commands
from failover.errors import Denied, Refused, Unreachable

if TYPE_CHECKING:
    from failover.lab.drill import Takeover
    from failover.lab.lab import Lab
    from failover.lab.writer import Writer

GRANTS_WITHIN_S = 30.0  # a start is trouble, after which a host waits for some calm
LOCK = Path("/run/failover-demo.lock")  # held by the demo that runs

WHAT = {
    "cut": "the power of {source} is cut",
    "noticed": "its right to run v1 is over, and all was frozen before that",
    "decided": "the leader gives v1 to {target}",
    "begun": "the word is in ZooKeeper, and {target} has read it",
    "promoted": "the newest complete generation is the tree of v1",
    "address": "the address is up and announced",
    "started": "the first process of v1 runs",
    "answered": "the client outside has an answer",
}


def add(commands: Commands) -> None:
    text = "watch a vserver survive the power cut of its host, in a lab on this machine"
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument(
        "--keep", action="store_true", help="leave the lab up: failover lab exec --name demo hostB -- bash"
    )
    demo.set_defaults(run=_demo)


def _demo(options: Namespace) -> int:
    if os.geteuid() != 0:
        raise Denied("the demo makes namespaces", hint="sudo make demo")
    from failover.lab import sample
    from failover.lab.lab import Lab

    lab = Lab("demo")
    with _alone():
        lab.down()  # what a demo before left behind, or kept
        try:
            with TemporaryDirectory() as directory:
                _say("three hosts, each with its own kernel namespaces, disk, sshd and ZooKeeper server")
                lab.up(config=sample.cluster_file(Path(directory), "demo"))
            facts = _play(lab)
        finally:
            if not options.keep:
                lab.down()
    print(json.dumps(facts))
    return 0 if facts["ok"] else 1


@contextmanager
def _alone() -> Iterator[None]:
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait until it is done, or take its lab away: failover lab down --name demo"
            raise Refused("a demo is running on this machine already", hint=hint) from error
        yield


def _play(lab: Lab) -> dict[str, float | int | bool]:
    from failover.lab import drill, parts, sample
    from failover.lab.probe import Probe
    from failover.lab.writer import Writer

    _set_up(lab)
    with Probe(lab, sample.URL) as probe, Writer(lab, sample.ADDRESS) as writer:
        sample.await_("write", lambda: len(writer.rows) > 20)
        sample.await_("fresh replicas", lambda: sample.fresh(lab))
        leader = parts.have_another_lead(lab, "hostA")
        _show(lab)
        _say(f"{leader} leads, and grants hostA to run v1, for a fraction of a second each time")
        try:
            parts.await_grants(lab, "hostA", within_s=GRANTS_WITHIN_S)
        except Unreachable:
            _say("this machine is too busy for that: hostA rests on its session, so its loss is noticed seconds later")
        _say("cutting the power of hostA while rows are being written")
        taken = drill.take_over(lab, probe, "hostA", ask="hostB")
        _show_timeline(taken)
        lost = _lost_rows(lab, writer, taken.cut, taken.answered)
        _say(f"rows acknowledged before the cut and not there now: {lost}")
        _show(lab)
        target = "hostC" if taken.target == "hostB" else "hostB"
        sample.await_("fresh replica", lambda: sample.fresh(lab, taken.target))
        _say(f"moving it by hand: failover move v1 {target}")
        outage = drill.move(lab, probe, target, ask=taken.target)
        lost_by_move = _lost_rows(lab, writer, time.monotonic(), time.monotonic(), since=taken.answered)
        _say(f"the client had no answer for {outage:.2f} s, and {lost_by_move} rows were lost")
        _say("bringing hostA back: it starts nothing, and what only it had is kept aside")
        drill.bring_back(lab, "hostA", ask="hostB")
        _show(lab)
    return {
        "takeover_s": round(taken.seconds, 3),
        "noticed_s": round(taken.noticed - taken.cut, 3),
        "decided_s": round(taken.decided - taken.cut, 3),
        "answered_s": round(taken.answered - taken.cut, 3),
        "move_outage_s": round(outage, 3),
        "rows_lost": lost,
        "ok": lost_by_move == 0 and sample.running_on(lab, target),
    }


def _set_up(lab: Lab) -> None:
    from failover.lab import sample

    _say("building v1: Debian with nginx and PostgreSQL (minutes the first time, from the cache after that)")
    sample.build(lab)
    sample.failover(lab, "hostA", "apply")
    _say("the cluster starts it on its primary")
    sample.await_("running v1", lambda: sample.running_on(lab, "hostA"))
    sample.await_("database", lambda: _table(lab))


def _table(lab: Lab) -> bool:
    from failover.lab import sample

    sample.create_table(lab, "hostA")
    return True


def _lost_rows(lab: Lab, writer: Writer, before: float, answered: float, since: float = 0.0) -> int:
    """Rows acknowledged to the client in that time and not in the database, once it takes new rows again."""
    from failover.lab import sample

    sample.await_("new row", lambda: writer.acknowledged(answered, time.monotonic()))
    return len(writer.acknowledged(since, before) - sample.rows(lab))


def _show(lab: Lab) -> None:
    """The command a person would type, and what it prints."""
    from failover.lab import sample

    up = next(name for name in lab.real_hosts if lab.host(name).powered)
    print(f"\n  {up}$ failover status")
    for line in sample.failover(lab, up, "status").splitlines():
        print(f"  {line}".rstrip())
    print(flush=True)


def _show_timeline(taken: Takeover) -> None:
    longest = max(seconds for _, seconds in taken.timeline()) or 1.0
    print()
    for name, seconds in taken.timeline():
        bar = "━" * round(20 * seconds / longest)
        print(f"  {seconds:6.3f} s  {bar:<20}  {WHAT[name].format(source=taken.source, target=taken.target)}")
    print(flush=True)


def _say(text: str) -> None:
    mark = "\x1b[1m▸\x1b[0m" if sys.stdout.isatty() else "▸"
    print(f"{mark} {text}", flush=True)
