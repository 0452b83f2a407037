"""The `vserver` command: one vserver on this host, by hand.

Rule 1: only here is printed: what was asked for on stdout, errors and hints on stderr.
Rule 2: on a managed host the cluster starts and stops what it knows; a hand that does so too is refused (but --force).
Rule 3: heavy imports are made by the command that needs them.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from failover.cli.arguments import seconds
from failover.errors import BadInput, Denied, FailoverError, Refused, Unreachable

if TYPE_CHECKING:
    from agents.isolation.build import Method
    from agents.isolation.vserver import Status

VSERVERS = Path("/vservers")
TOLD = Path("/run/failover/told.json")

STOPPED = 3  # exit code of `status`, as for any service (LSB)
_SPAWNER_S = 5.0

EXIT_CODES = """exit codes: 0 done, or running · 1 failed · 2 bad input · 3 refused as unsafe; `status`: stopped
            4 cannot be done now · 5 unreachable · 6 denied; `exec` and `enter`: that of the program"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    signal.signal(signal.SIGTERM, _terminated)
    options = parser().parse_args(argv)
    try:
        sys.exit(options.run(options))
    except FailoverError as error:
        print(f"vserver: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"vserver: {where}{error.strerror or error}", file=sys.stderr)
        if isinstance(error, PermissionError):
            print("  only root may do this", file=sys.stderr)
        sys.exit(Denied.exit_code if isinstance(error, PermissionError) else FailoverError.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)  # as an exception: a build removes what it has begun


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vserver",
        description="One vserver on this host: build it, start and stop it, look, go in.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("name", metavar="NAME")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_build(commands)
    _add_start(commands)
    for name, help_, run in (
        ("stop", "stop it in order; kill what is left", _stop),
        ("restart", "stop and start it; its network stays", _restart),
    ):
        command = _command(commands, name, help_, run, forceable=True)
        command.add_argument(
            "--timeout", type=seconds, default=30.0, metavar="S", help="kill it after this (default: %(default)g s)"
        )
    status = _command(commands, "status", "does it run?", _status)
    status.add_argument("--json", action="store_true")
    enter = _command(commands, "enter", "a login shell inside", _enter)
    execute = _command(commands, "exec", "run a program inside; its exit code is ours", _exec)
    for command in (enter, execute):
        command.add_argument("-u", "--user", default="root", help="a user of the vserver (default: %(default)s)")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="[--] CMD...")
    return top


def _add_build(commands: Any) -> None:
    build = _command(commands, "build", "make its tree", _build, forceable=True)
    build.add_argument("-m", "--method", choices=("debian", "tar", "busybox"), default="debian")
    build.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with -m tar: the archive")
    build.add_argument("--suite", help="with -m debian (default: bookworm)")
    build.add_argument("--packages", metavar="A,B", help="with -m debian: besides an init, ip and ps")
    build.add_argument("--mirror", metavar="URL", help="with -m debian (default: as this host's apt)")
    build.add_argument("--fresh", action="store_true", help="with -m debian: not from the cache")


def _add_start(commands: Any) -> None:
    start = _command(commands, "start", "start it; without an address it has no network but lo", _start, forceable=True)
    start.add_argument(
        "--address", action="append", default=[], metavar="CIDR", help="such as 10.0.0.101/24; repeatable"
    )
    start.add_argument("--gateway", metavar="IP")
    where = start.add_mutually_exclusive_group()
    where.add_argument("--device", metavar="DEV", help="the addresses live on this device of the host")
    where.add_argument("--bridge", metavar="BR", help="… or on this bridge")


def _command(
    commands: Any, name: str, help_: str, run: Callable[[Namespace], int], *, forceable: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=help_)
    if forceable:
        parser.add_argument("--force", action="store_true", help="even if the cluster manages it")
    parser.set_defaults(run=run, command=name)
    return parser


# --- build ------------------------------------------------------------------------------------------------------------


def _build(options: Namespace) -> int:
    from agents.isolation.build import build

    owner = _owner(options.name)
    if owner is not None and owner != _told().get("host") and not options.force:
        raise Refused(
            f"{options.name} belongs to {owner}: this host gets it by syncing", hint=f"build it there: ssh {owner} …"
        )
    build(options.name, _method(options), vservers=VSERVERS, say=lambda line: print(line, flush=True))
    return 0


def _method(options: Namespace) -> Method:
    from agents.isolation.build import Busybox, Debian, Tar

    for_debian = {
        key: getattr(options, key) for key in ("suite", "packages", "mirror", "fresh") if getattr(options, key)
    }
    if for_debian and options.method != "debian":
        raise BadInput(f"--{next(iter(for_debian))} goes with -m debian only")
    if (options.file is not None) != (options.method == "tar"):
        raise BadInput(
            "-m tar needs a FILE, and nothing else takes one", hint=f"vserver {options.name} build -m tar FILE"
        )
    if options.method == "tar":
        return Tar(options.file)
    if options.method == "busybox":
        return Busybox()
    if "packages" in for_debian:
        for_debian["packages"] = tuple(word for word in options.packages.split(",") if word)
    return Debian(**for_debian)


# --- start, stop, restart ---------------------------------------------------------------------------------------------


def _start(options: Namespace) -> int:
    from agents.isolation import vserver

    _unless_managed(options)
    _where(options)
    now = _known(options.name)
    if now.state != "stopped":
        print(_described(now))
        return 0
    _have_spawner()
    netns = None
    if options.address:
        from agents import network
        from failover.model import Network

        carrier = Network(device=options.device, bridge=options.bridge)
        netns = network.prepare(options.name, carrier, options.address, options.gateway)
    else:
        _remove_network(options.name)  # of an earlier start
    try:
        if netns:
            network.up(options.name)
        now = vserver.start(vserver.Settings(options.name, VSERVERS / options.name, netns))
    except FailoverError:
        _remove_network(options.name)
        raise
    if netns:
        network.announce(options.name)
    print(_described(now))
    return 0


def _where(options: Namespace) -> None:
    where = options.device or options.bridge
    if options.address and not where:
        raise BadInput("where shall the address live?", hint="add --device eth0 or --bridge br0")
    if not options.address and (where or options.gateway):
        raise BadInput("without an address it has no network to set up", hint="add --address, such as 10.0.0.101/24")


def _stop(options: Namespace) -> int:
    from agents.isolation import vserver

    _unless_managed(options)
    if _known(options.name).state != "stopped":
        _have_spawner()  # some inits are stopped by a program of theirs
    now = vserver.stop(options.name, timeout_s=options.timeout)
    _remove_network(options.name)
    print(_described(now))
    return 0


def _restart(options: Namespace) -> int:
    from agents.isolation import vserver

    _unless_managed(options)
    _known(options.name)
    _have_spawner()
    vserver.stop(options.name, timeout_s=options.timeout)
    netns = vserver.RUN / options.name / "netns"
    settings = vserver.Settings(options.name, VSERVERS / options.name, netns if netns.exists() else None)
    print(_described(vserver.start(settings)))
    return 0


def _remove_network(name: str) -> None:
    from agents.isolation.record import RUN

    if (RUN / name / "netns").exists():
        from agents import network

        network.remove(name)


# --- looking and going in ---------------------------------------------------------------------------------------------


def _status(options: Namespace) -> int:
    now = _known(options.name)
    if options.json:
        words = {"name": now.name, "state": now.state, "pid": now.pid, "since_at": now.since_at, "because": now.because}
        print(json.dumps({**words, "init": list(now.init), "tree": str(VSERVERS / now.name)}))
    else:
        print(_described(now))
    return STOPPED if now.state == "stopped" else 0


def _enter(options: Namespace) -> int:
    return _inside(options, ())


def _exec(options: Namespace) -> int:
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise BadInput("exec needs a program", hint=f"vserver {options.name} exec -- CMD...; a shell: enter")
    return _inside(options, argv)


def _inside(options: Namespace, argv: Sequence[str]) -> int:
    """On a terminal of the vserver if we have one, else on pipes."""
    from agents.isolation import vserver

    if _known(options.name).state == "stopped":
        raise Refused(f"{options.name} does not run", hint=f"vserver {options.name} start")
    _have_spawner()
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    return vserver.execute(options.name, argv, user=options.user, stdin=0, stdout=1, stderr=2, tty=tty).returncode


def _known(name: str) -> Status:
    """Its status. BadInput if there is no such vserver here."""
    from agents.isolation import vserver

    now = vserver.status(name)
    if now.state == "stopped" and not (VSERVERS / name).is_dir():
        raise BadInput(f"there is no vserver {name} on this host", hint=f"make one: vserver {name} build")
    return now


def _described(now: Status) -> str:
    since = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(now.since_at)) if now.since_at else ""
    details = [f"pid {now.pid}" if now.pid else "", " ".join(now.init) if now.pid else "", now.because]
    return f"{now.name} is {now.state}{since}" + "".join(f", {detail}" for detail in details if detail)


# --- the cluster and the spawner --------------------------------------------------------------------------------------


def _told() -> dict[str, Any]:
    """What the agent of this host has been told; empty where there is none."""
    try:
        told = json.loads(TOLD.read_text())
    except FileNotFoundError:
        return {}
    return told if isinstance(told, dict) else {}


def _owner(name: str) -> str | None:
    """The host that the cluster lets run it; None if the cluster does not know it."""
    word = _told().get("assignments", {}).get(name)
    return str(word["owner"]) if word else None


def _unless_managed(options: Namespace) -> None:
    if options.force or _owner(options.name) is None:
        return
    commands = {"restart": f"failover stop {options.name} && failover start {options.name}"}
    raise Refused(
        f"the cluster manages {options.name}: a {options.command} by hand would be undone",
        hint=commands.get(options.command, f"failover {options.command} {options.name}"),
    )


def _have_spawner() -> None:
    """Start the spawner in the background, unless one answers or this is a managed host (whose services start it)."""
    from agents.isolation.record import RUN
    from agents.isolation.vserver import spawner_answers

    if spawner_answers() or _told():
        return
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (RUN / "spawner.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "agents.isolation.spawner"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _SPAWNER_S
    while not spawner_answers():
        if time.monotonic() > deadline:
            process.kill()
            raise Unreachable("the spawner does not start", hint=f"see {RUN}/spawner.log")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
