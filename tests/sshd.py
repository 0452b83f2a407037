"""A real sshd of the test's own: its keys, its configuration, and what it lets in."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.trees import wait_until


def make_key(path: Path) -> str:
    """The public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


def start(directory: Path, address: str, port: int, allowed: Iterable[str]) -> subprocess.Popen[bytes]:
    """Returns when it listens; `directory` has its key, host_key."""
    (directory / "authorized_keys").write_text("\n".join(allowed) + "\n")
    (directory / "sshd_config").write_text(
        f"ListenAddress {address}:{port}\nHostKey {directory}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
    argv = ["/usr/sbin/sshd", "-D", "-f", directory / "sshd_config", "-E", directory / "sshd.log"]
    process = subprocess.Popen(argv, start_new_session=True)
    wait_until(lambda: _listens(address, port), "the test's sshd listens")
    return process


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
