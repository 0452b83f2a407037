"""failover lab: several real hosts on this machine."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from failover.cli.arguments import duration
from failover.errors import Denied
from failover.timing import PROFILES

if TYPE_CHECKING:
    from failover.lab.lab import Lab


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lab = subparsers.add_parser("lab", help="several real hosts on this machine, to try and to test")
    commands = lab.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, *positionals: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text)
        for positional in positionals:
            parser.add_argument(positional.lower(), metavar=positional)
        parser.add_argument("--name", help="which lab (default: lab)")
        parser.set_defaults(run=_run, lab_command=name)
        return parser

    up = command("up", "make the hosts, and wait until they serve")
    up.add_argument("--hosts", type=int, default=3, metavar="N")
    up.add_argument("--config", type=Path, metavar="cluster.yaml", help="a cluster file whose hosts the lab shall have")
    up.add_argument("--services", metavar="A,B", help="what the hosts run (default: everything)")
    up.add_argument("--fs", default="btrfs", help="file system of /vservers: btrfs, ext4 or xfs")
    up.add_argument("--disk", default="4G", metavar="SIZE", help="size of /vservers (default: 4G, sparse)")
    down = command("down", "take the lab away, whatever is left of it")
    down.add_argument("--all", action="store_true", help="every lab on this machine")
    status = command("status", "hosts, links and cuts")
    status.add_argument("--json", action="store_true")
    execute = command("exec", "run a program in a host", "HOST")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD")
    for name, text in _ON_A_HOST.items():
        command(name, text, "HOST")
    stall = command("stall", "stop a whole host for a time", "HOST")
    stall.add_argument("duration", metavar="T", help="such as 5s")
    for name, text in (("cut", "cut the link between two"), ("mend", "mend it again")):
        link = command(name, text)
        link.add_argument("ends", nargs=2, metavar=("A", "B"), help="hosts, 'store' or 'clients'")
        link.add_argument("--one-way", action="store_true", help="only from A to B")
    _add_play(command("play", "play stories: on a lab of their own if they have a cluster, else onto the lab"))
    _add_chaos(command("chaos", "random faults on a lab of their own, and whether all goes well"))


def _add_play(play: argparse.ArgumentParser) -> None:
    play.add_argument("files", nargs="+", type=Path, metavar="FILE", help="one after another")
    play.add_argument("--json", action="store_true", help="the outcome as failover simulate --json has it")
    play.add_argument("--speed", type=_factor, default=1.0, metavar="N", help="divide the waits between events by N")
    play.add_argument(
        "--longest",
        type=duration,
        metavar="T",
        help="shorten longer waits, as far as they decide nothing (default 25s)",
    )


def _add_chaos(chaos: argparse.ArgumentParser) -> None:
    chaos.add_argument("--minutes", type=_factor, default=5.0, metavar="N", help="of faults (default: %(default)g)")
    chaos.add_argument("--seed", type=int, metavar="S", help="from which they are drawn (default: any)")
    chaos.add_argument("--hosts", type=int, default=3, metavar="N", help="3 to 5 (default: %(default)s)")
    chaos.add_argument("--timing", choices=sorted(PROFILES), default="normal", help="default: %(default)s")
    chaos.add_argument("--write", type=Path, metavar="FILE", help="write them as a story, and play nothing")
    chaos.add_argument("--keep", action="store_true", help="keep the hosts' logs also when all went well")
    chaos.add_argument("--json", action="store_true", help="the verdict as one JSON object")


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no factor, such as 2")
    return factor


_ON_A_HOST = {
    "power-off": "pull the plug of a host",
    "power-on": "boot a host",
    "isolate": "pull the network cable of a host",
    "join": "plug it in again, and mend all its links",
}


def _run(options: argparse.Namespace) -> int:
    if os.geteuid() != 0 and not getattr(options, "write", None):
        raise Denied("a lab needs root", hint="sudo failover lab …")
    from failover.lab.lab import Lab

    name = options.lab_command
    if name == "down" and options.all:
        return _down_all()
    if name == "play":
        from failover.cli.played import play

        return play(options)
    if name == "chaos":
        from failover.cli.chaos import run

        return run(options)
    lab = Lab(options.name or "lab")
    if name == "up":
        return _up(lab, options)
    if name == "down":
        lab.down()
        return 0
    if name == "status":
        print(json.dumps(lab.status()) if options.json else _shown(lab.status()))
        return 0
    if name == "exec":
        argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        command = lab.host(options.host).command(argv or ["bash"])
        os.execvp(command[0], command)
    from failover.lab.faults import perform

    perform(lab, _event(options))
    return 0


def _event(options: argparse.Namespace) -> str:
    """The fault in the words of a story."""
    if options.lab_command == "stall":
        rest = [options.host, options.duration]
    elif options.lab_command in ("cut", "mend"):
        rest = [options.ends[0], *(["->"] if options.one_way else []), options.ends[1]]
    else:
        rest = [options.host]
    return shlex.join([options.lab_command, *rest])


def _up(lab: Lab, options: argparse.Namespace) -> int:
    from failover.lab.services import ALL

    chosen = options.services.split(",") if options.services else ALL
    lab.up(options.hosts, config=options.config, services=chosen, fs=options.fs, disk=options.disk)
    print(_shown(lab.status()))
    return 0


def _down_all() -> int:
    from failover.lab.lab import Lab
    from failover.lab.place import BASE

    for directory in sorted(BASE.glob("*")):
        Lab(directory.name).down()
    return 0


def _shown(status: dict[str, object]) -> str:
    hosts: dict[str, dict[str, object]] = status["hosts"]  # type: ignore[assignment]
    lines = [f"lab {status['name']} is {'up' if status['up'] else 'down'}"]
    for name, host in hosts.items():
        words = [f"power {host['power']}", f"link {host['link']}", *(["stalled"] if host["stalled"] else [])]
        lines.append(f"  {name:15} {', '.join(words):30} {' '.join(host['addresses'])}")  # type: ignore[arg-type]
    cuts: list[str] = status["cuts"]  # type: ignore[assignment]
    return "\n".join([*lines, *(f"  cut: {cut}" for cut in cuts)])
