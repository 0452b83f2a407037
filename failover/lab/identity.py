"""What a lab's hosts are given once, before they boot: the cluster file, the store's secret, and who may talk to whom.

Everything lands in the host's own etc directory, which the host sees as /etc/failover.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from agents.command import run
from agents.replication.receive import authorized_line
from failover import ensemble
from failover.lab.place import ETC, ZOOKEEPER

SERVERS = 3  # ZooKeeper servers: on the first three hosts


def cluster_text(name: str, addresses: Mapping[str, str]) -> str:
    """The cluster file of a lab that was given none."""
    servers = ", ".join(server.client for server in zookeeper_servers(addresses))
    hosts = [f"  {host}: {{address: {address}, network: {{device: eth0}}}}" for host, address in addresses.items()]
    lines = [f"cluster: {name}", "zookeeper:", f"  servers: [{servers}]", "timing: fast", "", "hosts:", *hosts, ""]
    return "\n".join([*lines, "vservers: {}", ""])


def zookeeper_servers(addresses: Mapping[str, str]) -> tuple[ensemble.Server, ...]:
    return tuple(
        ensemble.Server(number, address) for number, address in enumerate(list(addresses.values())[:SERVERS], start=1)
    )


def found(etc: Mapping[str, Path], addresses: Mapping[str, str], text: str, python: str) -> None:
    """Fill every host's etc directory. `etc`: where it lies on the machine."""
    secret = f"failover:{secrets.token_urlsafe(24)}\n"
    for host, directory in etc.items():
        _write(directory / "cluster.yaml", text)
        _write(directory / "zookeeper.secret", secret, mode=0o600)
        _write(directory / "sshd_config", _SSHD)
        for key in ("id_ed25519", "ssh_host_ed25519_key"):
            words = ["-q", "-t", "ed25519", "-N", "", "-C", f"failover@{host}", "-f", str(directory / key)]
            run(["ssh-keygen", *words], timeout_s=30)
    peers = {host: (directory / "id_ed25519.pub").read_text().strip() for host, directory in etc.items()}
    known = "".join(
        f"{host},{addresses[host]} {(directory / 'ssh_host_ed25519_key.pub').read_text()}"
        for host, directory in etc.items()
    )
    for host, directory in etc.items():
        lines = [authorized_line(peer, key, python) for peer, key in peers.items() if peer != host]
        _write(directory / "authorized_keys", "\n".join(lines) + "\n", mode=0o600)
        _write(directory / "known_hosts", known)


def prepare_zookeeper(state: Path, addresses: Mapping[str, str], host: str) -> None:
    """`state`: where the host's /var/lib/failover lies on the machine."""
    servers, number = zookeeper_servers(addresses), list(addresses).index(host) + 1
    directory = state / ZOOKEEPER.name
    directory.mkdir(parents=True, exist_ok=True)
    ensemble.prepare(servers, number, directory)
    as_the_host_sees_it = ZOOKEEPER / "data"
    (directory / "zoo.cfg").write_text(ensemble.configuration(servers, number, as_the_host_sees_it))


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)


_SSHD = f"""\
Port 22
HostKey {ETC}/ssh_host_ed25519_key
AuthorizedKeysFile {ETC}/authorized_keys
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin forced-commands-only
UsePAM no
PidFile none
MaxStartups 100
MaxSessions 100
LogLevel VERBOSE
"""
