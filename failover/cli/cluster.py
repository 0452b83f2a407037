"""Setting a cluster up: init, check, apply."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import sys
import textwrap
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from failover.cli.operate import Commands
from failover.errors import BadInput, Denied, FailoverError, NotApplied, Refused, Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from failover.ensemble import Server
    from failover.model import Cluster, View
    from failover.store import Store

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key.pub")


def add(commands: Commands) -> None:
    text = "make this host's keys, credentials and ZooKeeper configuration; what is there already stays"
    init = commands.add_parser("init", help="make this host's keys and configuration", description=text)
    init.add_argument("--host", required=True, help="this host's name in cluster.yaml")
    init.add_argument("--directory", type=Path, default=Path("/etc/failover"), help="default: %(default)s")
    init.add_argument(
        "--server", type=int, metavar="N", help="this host carries the Nth of zookeeper.servers; 0: none of them"
    )
    init.set_defaults(run=_init)
    check = commands.add_parser("check", help="read cluster.yaml, report every problem, print what its timing proves")
    check.add_argument("file", nargs="?", type=Path, help="default: --config")
    check.set_defaults(run=_check)
    apply = commands.add_parser("apply", help="make cluster.yaml the cluster's law")
    apply.add_argument("file", nargs="?", type=Path, help="default: --config")
    help_ = "although what was applied before cannot be read: it is replaced, and compared with nothing"
    apply.add_argument("--anew", action="store_true", help=help_)
    apply.set_defaults(run=_apply)


def _init(options: Namespace) -> None:
    try:
        _prepare(options)
    except PermissionError as error:
        raise Denied(f"{error.filename}: {error.strerror}", hint="run it as root") from error
    except OSError as error:
        raise FailoverError(f"{error.filename}: {error.strerror}") from error


def _prepare(options: Namespace) -> None:
    from failover.config import load
    from failover.ensemble import Server

    declared = load(options.config)
    if options.host not in declared.hosts:
        raise BadInput(
            f"{options.host} is not under hosts in {options.config}", hint=f"it has {', '.join(declared.hosts)}"
        )
    address = declared.hosts[options.host].address
    servers = [
        Server(number, server.strip("[]"), int(port))
        for number, (server, _, port) in enumerate((s.rpartition(":") for s in declared.zookeeper.servers), start=1)
    ]
    mine = _server_here(servers, address, options.server)
    directory: Path = options.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_secret(Path(declared.zookeeper.credentials))
    _make_key(directory / "id_ed25519", options.host)
    _name_host_key(address)
    _prepare_server(servers, mine, directory / "zookeeper", options.host)


def _server_here(servers: Sequence[Server], address: str, number: int | None) -> Server | None:
    """The ZooKeeper server that this host carries. A name counts as the addresses that it resolves to."""
    if number is not None:
        if not 0 <= number <= len(servers):
            raise BadInput(f"there is no ZooKeeper server {number}", hint=f"zookeeper.servers has {len(servers)}")
        return servers[number - 1] if number else None
    own, doubtful = ipaddress.ip_address(address), ""
    for server in servers:
        try:
            found = {ipaddress.ip_address(item[4][0]) for item in socket.getaddrinfo(server.address, None)}
        except (OSError, ValueError):
            doubtful = f"{server.address} cannot be resolved"
            continue
        if own in found:
            return server
        if any(here.is_loopback for here in found) and not own.is_loopback:
            doubtful = f"{server.address} is a loopback address here, where the other hosts cannot reach it"
    if doubtful:
        raise BadInput(
            f"whether this host carries a ZooKeeper server is unclear: {doubtful}",
            hint="write addresses under zookeeper.servers, or say --server N (0: none)",
        )
    return None


def _make_secret(path: Path) -> None:
    if path.exists():
        print(f"{path} stays as it is")
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(f"failover:{secrets.token_urlsafe(24)}\n")
    print(f"{path} made; every host needs this same file")


def _make_key(path: Path, host: str) -> None:
    from agents.command import CommandFailed, run

    if path.exists():
        print(f"{path} stays as it is")
    else:
        try:
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"failover {host}", "-f", path], timeout_s=30.0)
        except CommandFailed as error:
            if "Permission denied" in error.stderr:
                raise PermissionError(errno.EACCES, "Permission denied", str(path)) from error
            raise
        print(f"{path} made")
    print(f"every other host lets {host} in with a line of its /root/.ssh/authorized_keys, made there from {path}.pub:")
    print(f"  {sys.executable} -m agents.replication.receive --authorize {host} < {host}.pub")


def _name_host_key(address: str) -> None:
    """The hosts believe no key that they do not know: without this line no other host syncs to this one."""
    try:
        kind, key = HOST_KEY.read_text().split()[:2]
    except (OSError, ValueError):
        print(f"{HOST_KEY} cannot be read: install openssh-server, or ssh-keygen -A, and call this again")
        return
    print("every other host knows this one by a line of its /etc/failover/known_hosts:")
    print(f"  {address} {kind} {key}")


def _prepare_server(servers: Sequence[Server], mine: Server | None, directory: Path, host: str) -> None:
    from failover import ensemble

    if mine is None:
        print(f"{host} carries no ZooKeeper server")
        return
    ensemble.prepare(servers, mine.number, directory)
    print(f"{directory / 'zoo.cfg'} written; ZooKeeper server {mine.number} starts with:")
    print("  " + " ".join(ensemble.command(directory)))


def _check(options: Namespace) -> None:
    from failover.config import examine, text_of
    from failover.config.terms import name_of
    from failover.timeline import table

    path = options.file or options.config
    loaded = examine(text_of(path), str(path))
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    cluster = loaded.cluster
    print(f"{path} is fine: {_size(cluster)}")
    said = f"timing {name_of(cluster.timing)}: {cluster.timing.proof()}"
    print(textwrap.fill(said, 78, subsequent_indent="  "))
    print(table(cluster.timing))


def _apply(options: Namespace) -> None:
    from failover.cli.answer import give
    from failover.cli.connect import connected
    from failover.config import examine, text_of
    from failover.orders import refuse_losses, restore

    path = options.file or options.config
    text = text_of(path)
    loaded = examine(text, str(path))
    options.config = path
    with connected(options) as store:
        view = _applied(store, anew=options.anew)
        if view is not None:
            refuse_losses(view, loaded.cluster)
        _check_ticks(loaded.cluster)
        store.apply(loaded.cluster, text, view.cluster_version if view else None)
        if view is not None:
            give(store, restore(view, loaded.cluster))
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    print(f"applied: {_size(loaded.cluster)}")


def _check_ticks(cluster: Cluster) -> None:
    from failover.zookeeper import read_credentials, tick

    declared = cluster.zookeeper
    unseen = tick.check(declared.servers, read_credentials(Path(declared.credentials)), cluster.timing.tick_s)
    if unseen:
        print(f"warning: how long the ticks of ZooKeeper are is not known, it does not answer: {', '.join(unseen)}")


def _applied(store: Store, *, anew: bool) -> View | None:
    """What this is compared with; None: nothing was applied before, or it cannot be read, and `anew`."""
    try:
        return store.view()
    except NotApplied:
        return None
    except Unreadable as error:
        if error.where != "cluster":
            raise
        if not anew:
            hint = "failover apply --anew replaces it, and compares it with nothing"
            raise Refused(error.message, hint=hint) from error
        return None


def _size(cluster: Cluster) -> str:
    from failover.orders import counted

    return f"{counted(len(cluster.hosts), 'host')}, {counted(len(cluster.vservers), 'vserver')}"
