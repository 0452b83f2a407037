"""The operator's hand: move, takeover, start, stop, drain, undrain.

A command is checked against the present view, with the leader's own rules; what could not be obeyed is refused. Then it
is written as a wish for the present epoch, and the command waits until the leader and the agents have answered.
"""

from __future__ import annotations

import argparse
import getpass
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from failover.cli.arguments import seconds
from failover.errors import BadInput, Refused
from failover.model import Assignment, HostIntent, MoveWish, State, View, VserverIntent, Want

Commands = Any  # argparse has no public name for what add_subparsers returns


def add(commands: Commands) -> None:
    move = _command(commands, "move", "move a vserver to another host, nothing is lost", _move)
    move.add_argument("vserver")
    move.add_argument("host")
    takeover = _command(commands, "takeover", "take everything away from a host", _takeover)
    takeover.add_argument("host")
    start = _command(commands, "start", "want a vserver started, and forgive its past errors", _start)
    start.add_argument("vserver")
    start.add_argument("--on", metavar="HOST", help="start the replica of this host")
    start.add_argument("--accept-loss", action="store_true", help="with --on: however old it is")
    stop = _command(commands, "stop", "want a vserver stopped", _stop)
    stop.add_argument("vserver")
    drain = _command(commands, "drain", "move everything off a host and keep it free", _drain)
    drain.add_argument("host")
    drain.add_argument("--reason", default="")
    undrain = _command(commands, "undrain", "let a host run vservers again", _undrain)
    undrain.add_argument("host")


def _command(commands: Commands, name: str, help_: str, run: Callable[[Namespace], None]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=help_)
    parser.add_argument("--no-wait", action="store_true", help="return once the wish is written")
    parser.add_argument(
        "--timeout", type=seconds, default=600.0, metavar="S", help="wait so long (default: %(default)g s)"
    )
    parser.set_defaults(run=run)
    return parser


def _move(options: Namespace) -> None:
    from failover.cli.answer import Awaited, follow
    from failover.cli.connect import assignment_of, connected, host_of, led, vserver_of
    from failover.plan import alive, judge_move

    with connected(options) as store:
        view = store.view()
        vserver, target, now = (
            vserver_of(view, options.vserver),
            host_of(view, options.host),
            assignment_of(view, options.vserver),
        )
        led(view)
        if now.owner == target:
            print(f"{vserver.name} is on {target} already")
            return
        if now.target:
            raise Refused(f"{vserver.name} is being moved to {now.target} right now")
        if not alive(view, now.owner):
            raise Refused(
                f"{now.owner}, its owner, is lost: it cannot hand over",
                hint=f"failover start {vserver.name} --on {target} --accept-loss",
            )
        verdict = judge_move(view, vserver, replace(now, failed_on=()), target)
        if not verdict.may:
            raise Refused(f"{vserver.name} may not go to {target}: {target} {verdict.because}")
        store.wish(vserver.name, _moving(MoveWish(target, now.epoch)))
        follow(store, options, [Awaited(vserver.name, now.epoch, lambda word: word.owner == target)])


def _takeover(options: Namespace) -> None:
    from failover.cli.answer import Awaited, follow
    from failover.cli.connect import connected, host_of, led
    from failover.plan import alive

    with connected(options) as store:
        view = store.view()
        host = host_of(view, options.host)
        led(view)
        owned = [word for word in view.assignments.values() if word.owner == host]
        if not owned:
            print(f"{host} owns nothing")
            return
        if alive(view, host):
            stuck = [f"{word.vserver} has nowhere to go: {why}" for word in owned if (why := _stuck(view, word))]
            if stuck:
                raise Refused("; ".join(stuck), hint="add or repair a backup, or move the others one by one")
            for word in owned:
                store.wish(word.vserver, _moving(MoveWish(None, word.epoch)))
        follow(store, options, [Awaited(word.vserver, word.epoch, lambda word: word.owner != host) for word in owned])


def _stuck(view: View, word: Assignment) -> str:
    """Why no host could take it; empty when one can."""
    from failover.plan import judge_move

    vserver = view.cluster.vservers[word.vserver]
    judged = [judge_move(view, vserver, word, other) for other in vserver.hosts if other != word.owner]
    if any(verdict.may for verdict in judged):
        return ""
    return "; ".join(f"{verdict.host} {verdict.because}" for verdict in judged) or "it has no backup"


def _start(options: Namespace) -> None:
    from failover.cli.answer import Awaited, follow
    from failover.cli.connect import connected, host_of, led, vserver_of
    from failover.plan import judge

    if bool(options.on) != options.accept_loss:
        raise BadInput(
            "--on HOST and --accept-loss go together", hint="a host with a fresh replica is chosen without them"
        )
    with connected(options) as store:
        view = store.view()
        vserver = vserver_of(view, options.vserver)
        led(view)
        now = view.assignments.get(vserver.name)
        wish = None
        if options.on:
            if now is None:
                raise Refused(
                    f"{vserver.name} was never started: there is nothing to lose", hint=f"failover start {vserver.name}"
                )
            host_of(view, options.on)
            if now.owner == options.on or _runs(view, now):
                raise Refused(
                    f"{vserver.name} belongs to {now.owner}, which is up",
                    hint=f"failover move {vserver.name} {options.on}",
                )
            wish = MoveWish(options.on, now.epoch, accept_loss=True)
            verdict = judge(view, vserver, options.on, wish)
            if not verdict.may:
                raise Refused(f"{vserver.name} cannot be started on {options.on}: it {verdict.because}")
        epoch = now.epoch if now else 0

        def change(intent: VserverIntent) -> VserverIntent:
            wished = None if intent.want is Want.STOPPED or options.on else intent.want
            return _signed(replace(intent, want=wished or Want.STARTED, move=wish, cleared_epoch=epoch))

        store.wish(vserver.name, change)
        follow(store, options, [Awaited(vserver.name, epoch, _started_on(options.on))])


def _started_on(host: str | None) -> Callable[[Assignment], bool]:
    return lambda word: word.want is Want.STARTED and host in (None, word.owner)


def _stop(options: Namespace) -> None:
    from failover.cli.answer import Awaited, follow
    from failover.cli.connect import connected, led, vserver_of

    with connected(options) as store:
        view = store.view()
        vserver = vserver_of(view, options.vserver)
        led(view)
        store.wish(vserver.name, lambda intent: _signed(replace(intent, want=Want.STOPPED, move=None)))
        now = view.assignments.get(vserver.name)
        epoch = now.epoch if now else 0
        follow(store, options, [Awaited(vserver.name, epoch, lambda word: word.want is Want.STOPPED)])


def _drain(options: Namespace) -> None:
    from failover.cli.answer import Awaited, follow
    from failover.cli.connect import connected, host_of, led

    with connected(options) as store:
        view = store.view()
        host = host_of(view, options.host)
        led(view)
        store.wish_host(host, lambda _: HostIntent(True, reason=options.reason, by=getpass.getuser(), at=time.time()))
        owned = [word for word in view.assignments.values() if word.owner == host]
        print(f"{host} is drained; it owns {len(owned)} vservers")
        follow(store, options, [Awaited(word.vserver, word.epoch, lambda word: word.owner != host) for word in owned])


def _undrain(options: Namespace) -> None:
    from failover.cli.connect import connected, host_of

    with connected(options) as store:
        host = host_of(store.view(), options.host)
        store.wish_host(host, lambda _: HostIntent(by=getpass.getuser(), at=time.time()))
        print(f"{host} may run vservers again; nothing moves back by itself")


def _moving(wish: MoveWish) -> Callable[[VserverIntent], VserverIntent]:
    return lambda intent: _signed(replace(intent, move=wish))


def _signed(intent: VserverIntent) -> VserverIntent:
    return replace(intent, by=getpass.getuser(), at=time.time())


def _runs(view: View, word: Assignment) -> bool:
    from failover.plan import alive, own_report

    report = own_report(view, word)
    return alive(view, word.owner) and (report is None or report.state in (State.RUNNING, State.FROZEN))
