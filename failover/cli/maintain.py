"""The operator's hand on a host and on the whole cluster: takeover, drain, undrain, fence, disarm, arm.

What a command means and when it is refused stands in failover/orders; here it is read from the command line.
"""

from __future__ import annotations

from argparse import Namespace

from failover import orders
from failover.cli.arguments import duration
from failover.cli.operate import Commands, command
from failover.errors import FailoverError, Unreachable, Unsafe
from failover.model import View


def add(commands: Commands) -> None:
    takeover = command(commands, "takeover", "take everything away from a host", _takeover)
    takeover.add_argument("host")
    takeover.add_argument("--confirmed-off", action="store_true", help="at once: you have seen that it is off")
    drain = command(commands, "drain", "move everything off a host and keep it free", _drain)
    drain.add_argument("host")
    drain.add_argument("--reason", default="", metavar="TEXT", help="what for, as status shows it")
    drain.add_argument("--until", type=duration, metavar="DURATION", help="it ends by itself after so long, as in 2h")
    undrain = command(commands, "undrain", "let a host run vservers again", _undrain)
    undrain.add_argument("host")
    fence = command(commands, "fence", "cut a host's power; or let it count as off, at the word of a person", _fence)
    fence.add_argument("host")
    how = fence.add_mutually_exclusive_group()
    how.add_argument("--confirmed", action="store_true", help="cut nothing: you have seen that it is off")
    how.add_argument("--though-alive", action="store_true", help="cut its power although it takes part")
    disarm = command(commands, "disarm", "the manager starts, stops and moves nothing", _disarm)
    disarm.add_argument("--reason", default="", metavar="TEXT", help="what for, as status shows it")
    command(commands, "arm", "end a disarm", _arm)


def _takeover(options: Namespace) -> None:
    from failover.cli.answer import obey

    obey(options, lambda view: orders.takeover(view, options.host, confirmed_off=options.confirmed_off))


def _drain(options: Namespace) -> None:
    from failover.cli.answer import obey

    def order(view: View) -> orders.Order:
        until_at = None if options.until is None else view.now + options.until
        return orders.drain(view, options.host, reason=options.reason, until_at=until_at)

    obey(options, order)


def _undrain(options: Namespace) -> None:
    from failover.cli.answer import obey

    obey(options, lambda view: orders.undrain(view, options.host))


def _fence(options: Namespace) -> None:
    from failover.cli.answer import obey

    if not options.confirmed:
        _cut(options)
        return
    obey(options, lambda view: orders.fence(view, options.host))
    if not options.no_wait:
        _see_that_it_is_off(options)


def _see_that_it_is_off(options: Namespace) -> None:
    """Two renewals later it is known whether the word was right."""
    import time

    from failover.cli.connect import connected
    from failover.plan import alive, vouched_from

    with connected(options) as store:
        view = store.view()
        while alive(view, options.host):
            if vouched_from(view, options.host) is None:
                raise Unsafe(
                    f"{options.host} is not off: it has just renewed its lease",
                    hint="power it off, and say it again",
                )
            time.sleep(0.1)
            view = store.view()
    print(f"{options.host} counts as off")


def _cut(options: Namespace) -> None:
    """By its device, and see what that says."""
    from failover.cli.answer import obey

    asked: list[float] = []

    def order(view: View) -> orders.Order:
        found = orders.cut(view, options.host, though_alive=options.though_alive)
        asked.extend([view.now] if found.hosts else [])
        return found

    obey(options, order)
    if asked and not options.no_wait:
        _see_what_the_device_says(options, asked[0])


def _see_what_the_device_says(options: Namespace, wished_at: float) -> None:
    """The host may carry a ZooKeeper server, and ZooKeeper be away for a moment when that is off."""
    import time
    from contextlib import suppress

    from failover.cli.connect import connected
    from failover.plan.fencing import answer

    ends_at, found = time.monotonic() + options.timeout, None
    with connected(options) as store:
        while found is None:
            if time.monotonic() >= ends_at:
                raise Unreachable(f"no answer within {options.timeout:g} s", hint="failover status says more")
            time.sleep(0.1)
            with suppress(Unreachable):
                found = answer(store.view(), options.host, wished_at)
    is_off, text = found
    if not is_off:
        raise FailoverError(text, hint=f"once you have seen that it is off: failover fence {options.host} --confirmed")
    print(text)


def _disarm(options: Namespace) -> None:
    from failover.cli.answer import obey

    obey(options, lambda view: orders.disarm(view, reason=options.reason))


def _arm(options: Namespace) -> None:
    from failover.cli.answer import obey

    obey(options, orders.arm)
