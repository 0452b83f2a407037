"""The operator's hand on a vserver: move, failback, start, stop, restart, ignore, remove, clear.

What a command means and when it is refused stands in failover/orders; here it is read from the command line.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from failover import orders
from failover.cli.arguments import seconds
from failover.model import View

Commands = Any  # argparse has no public name for what add_subparsers returns


def add(commands: Commands) -> None:
    move = command(commands, "move", "move a vserver to another host, nothing is lost", _move)
    move.add_argument("vserver")
    move.add_argument("host")
    start = command(commands, "start", "want a vserver started, and forgive its past errors", _start)
    start.add_argument("vserver")
    start.add_argument("--on", metavar="HOST", help="start the replica of this host")
    start.add_argument("--accept-loss", action="store_true", help="with --on: however old it is")
    for name, help_, order in (
        ("failback", "move a vserver back to its primary", orders.failback),
        ("stop", "want a vserver stopped", orders.stop),
        ("restart", "stop a vserver and start it again where it is", orders.restart),
        ("ignore", "leave a vserver alone as it is, until it is started", orders.ignore),
        ("remove", "forget a vserver; its processes and tree are left alone", orders.remove),
        ("clear", "forgive a vserver's errors: it is tried again", orders.clear),
    ):
        command(commands, name, help_, _simple(order)).add_argument("vserver")


def command(commands: Commands, name: str, help_: str, run: Callable[[Namespace], None]) -> argparse.ArgumentParser:
    """A command that waits for what becomes of it."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=help_)
    parser.add_argument("--no-wait", action="store_true", help="return once the wish is written")
    parser.add_argument(
        "--timeout", type=seconds, default=600.0, metavar="S", help="wait so long (default: %(default)g s)"
    )
    parser.set_defaults(run=run)
    return parser


def _simple(order: Callable[[View, str], orders.Order]) -> Callable[[Namespace], None]:
    def run(options: Namespace) -> None:
        from failover.cli.answer import obey

        obey(options, lambda view: order(view, options.vserver))

    return run


def _move(options: Namespace) -> None:
    from failover.cli.answer import obey

    obey(options, lambda view: orders.move(view, options.vserver, options.host))


def _start(options: Namespace) -> None:
    from failover.cli.answer import obey

    obey(options, lambda view: orders.start(view, options.vserver, on=options.on, accept_loss=options.accept_loss))
