"""Setting a cluster up: init, check, apply."""

from __future__ import annotations

import secrets
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from failover.cli.operate import Commands
from failover.errors import BadInput, Refused

if TYPE_CHECKING:
    from failover.model import Cluster, View


def add(commands: Commands) -> None:
    text = "make this host's keys, credentials and ZooKeeper configuration; what is there already stays"
    init = commands.add_parser("init", help="make this host's keys and configuration", description=text)
    init.add_argument("--host", required=True, help="this host's name in cluster.yaml")
    init.add_argument("--directory", type=Path, default=Path("/etc/failover"), help="default: %(default)s")
    init.set_defaults(run=_init)
    check = commands.add_parser("check", help="read cluster.yaml, report every problem, print the timing's proof")
    check.add_argument("file", nargs="?", type=Path, help="default: --config")
    check.set_defaults(run=_check)
    apply = commands.add_parser("apply", help="make cluster.yaml the cluster's law")
    apply.add_argument("file", nargs="?", type=Path, help="default: --config")
    apply.set_defaults(run=_apply)


def _init(options: Namespace) -> None:
    from failover import ensemble
    from failover.config import load

    declared = load(options.config)
    if options.host not in declared.hosts:
        raise BadInput(
            f"{options.host} is not under hosts in {options.config}", hint=f"it has {', '.join(declared.hosts)}"
        )
    directory: Path = options.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = Path(declared.zookeeper.credentials)
    if secret.exists():
        print(f"{secret} stays as it is")
    else:
        secret.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(f"failover:{secrets.token_urlsafe(24)}\n")
        print(f"{secret} made; every host needs this same file")
    key = directory / "id_ed25519"
    if key.exists():
        print(f"{key} stays as it is")
    else:
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"failover {options.host}", "-f", str(key)]
        subprocess.run(argv, check=True)
        print(f"{key} made; its peers need the public half: {key}.pub")
    servers = [
        ensemble.Server(number, address.strip("[]"), int(port))
        for number, (address, _, port) in enumerate((s.rpartition(":") for s in declared.zookeeper.servers), start=1)
    ]
    address = declared.hosts[options.host].address
    mine = next((server for server in servers if server.address == address), None)
    if mine is None:
        print(f"{options.host} carries no ZooKeeper server")
        return
    ensemble.prepare(servers, mine.number, directory / "zookeeper")
    print(f"{directory / 'zookeeper' / 'zoo.cfg'} written; ZooKeeper server {mine.number} starts with:")
    print("  " + " ".join(ensemble.command(directory / "zookeeper")))


def _check(options: Namespace) -> None:
    from failover.config import examine, text_of
    from failover.timing import PROFILES

    path = options.file or options.config
    loaded = examine(text_of(path), str(path))
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    cluster = loaded.cluster
    print(f"{path} is fine: {len(cluster.hosts)} hosts, {len(cluster.vservers)} vservers")
    print(f"timing {cluster.timing}: {PROFILES[cluster.timing].proof()}")


def _apply(options: Namespace) -> None:
    from failover.cli.connect import connected
    from failover.config import examine, text_of

    path = options.file or options.config
    text = text_of(path)
    loaded = examine(text, str(path))
    options.config = path
    with connected(options) as store:
        try:
            view = store.view()
        except Refused:  # nothing has been applied yet
            view = None
        if view is not None:
            _refuse_losses(view, loaded.cluster)
        store.apply(loaded.cluster, text)
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    print(f"applied: {len(loaded.cluster.hosts)} hosts, {len(loaded.cluster.vservers)} vservers")


def _refuse_losses(view: View, new: Cluster) -> None:
    """What still owns or runs something is not taken away by a file: the command that must come first is named."""
    from failover.model import State

    reasons = []
    for name, word in sorted(view.assignments.items()):
        kept = new.vservers.get(name)
        report = view.reports.get(word.owner)
        seen = report.vservers.get(name) if report else None
        if kept is None and seen is not None and seen.state in (State.RUNNING, State.FROZEN):
            reasons.append(f"{name} runs on {word.owner} (first: failover stop {name})")
        elif kept is not None and word.owner not in kept.hosts:
            reasons.append(f"{name} is owned by {word.owner} (first: failover move {name} {kept.primary})")
    if reasons:
        raise Refused(f"this file takes away what is still in use: {'; '.join(reasons)}")
