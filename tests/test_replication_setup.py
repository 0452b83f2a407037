"""Hosts are introduced to each other as docs/operations.md says: `init`, `receive --authorize`, known_hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLUSTER = """
cluster: prod
zookeeper: {{servers: [{servers}], credentials: {secret}}}
hosts:
  hostA: {{address: 127.0.0.1}}
  hostB: {{address: 10.0.0.2}}
vservers: {{}}
"""


def _init(
    directory: Path, servers: str, *options: str, host: str = "hostA", before: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    cluster = directory / "cluster.yaml"
    cluster.write_text(CLUSTER.format(servers=servers, secret=directory / "secret"))
    argv: list[str | Path] = [*before, sys.executable, "-m", "failover", "--config", cluster, "init", "--host", host]
    argv += ["--directory", directory / "etc", *options]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def _authorize(host: str, key: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "agents.replication.receive", "--authorize", host]
    return subprocess.run(argv, input=key, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.needs("sshd")
def test_init_makes_a_key_and_names_what_the_other_hosts_need(tmp_path: Path) -> None:
    done = _init(tmp_path, "10.0.0.9:2181")
    assert done.returncode == 0, done.stderr
    host_key = " ".join(Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    assert f"  127.0.0.1 {host_key}\n" in done.stdout
    assert "receive --authorize hostA < hostA.pub" in done.stdout
    assert "hostA carries no ZooKeeper server" in done.stdout
    key = (tmp_path / "etc/id_ed25519.pub").read_text()
    line = _authorize("hostA", key)
    assert line.returncode == 0
    expected = f'command="{sys.executable} -I -m agents.replication.receive --from hostA",restrict '
    assert line.stdout == f"{expected}{' '.join(key.split()[:2])} failover:hostA\n"
    again = _init(tmp_path, "10.0.0.9:2181")
    assert again.stdout.count("stays as it is") == 2
    assert (tmp_path / "etc/id_ed25519.pub").read_text() == key


NO_KEYS = {
    "nothing": ("hostA", "", "not a public key"),
    "the secret half": ("hostA", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "give the file id_ed25519.pub that hostA"),
    "a host with options": ('hostA" ssh-rsa', "ssh-ed25519 AAAA", "not a name"),
}


@pytest.mark.parametrize("policy", NO_KEYS)
def test_what_is_no_key_authorizes_nobody(policy: str) -> None:
    host, key, words = NO_KEYS[policy]
    done = _authorize(host, key)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


SERVERS = {
    "an address of this host": ("10.0.0.2:2181, '127.0.0.1:2181'", (), 0, "ZooKeeper server 2 starts with"),
    "a name of this host": ("10.0.0.2:2181, 'localhost:2181'", (), 0, "ZooKeeper server 2 starts with"),
    "other addresses": ("10.0.0.2:2181", (), 0, "hostA carries no ZooKeeper server"),
    "a name that nobody knows": ("zk.invalid:2181", (), 2, "zk.invalid cannot be resolved"),
    "a name that nobody knows, but which one is said": ("zk.invalid:2181", ("--server", "1"), 0, "server 1 starts"),
    "none, as is said": ("127.0.0.1:2181", ("--server", "0"), 0, "hostA carries no ZooKeeper server"),
    "one that is not there": ("127.0.0.1:2181", ("--server", "2"), 2, "there is no ZooKeeper server 2"),
}


@pytest.mark.parametrize("policy", SERVERS)
def test_which_zookeeper_server_is_this_hosts(tmp_path: Path, policy: str) -> None:
    servers, options, code, words = SERVERS[policy]
    done = _init(tmp_path, servers, *options)
    assert done.returncode == code, done.stderr
    assert words in (done.stderr if code else done.stdout)
    assert (tmp_path / "etc/zookeeper/data/myid").exists() == ("starts" in words)
    assert (tmp_path / "secret").exists() == (code == 0), "what is refused has made nothing"


def test_a_name_that_is_this_host_only_to_itself_is_refused(tmp_path: Path) -> None:
    """Debian's installer maps a host's own name to 127.0.1.1."""
    done = _init(tmp_path, "localhost:2181", host="hostB")
    assert done.returncode == 2
    assert "localhost is a loopback address here" in done.stderr
    assert "--server N" in done.stderr


def test_without_ssh_keygen_it_is_one_clear_line(tmp_path: Path) -> None:
    done = _init(tmp_path, "10.0.0.9:2181", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("failover: ssh-keygen cannot be started")
    assert "Traceback" not in done.stderr


@pytest.mark.needs("root")
def test_without_the_privilege_it_is_denied(tmp_path: Path) -> None:
    """Without its capabilities root may not write where the mode forbids it."""
    (tmp_path / "etc").mkdir(mode=0o500)
    done = _init(tmp_path, "10.0.0.9:2181", "--server", "1", before=("setpriv", "--bounding-set=-all"))
    assert done.returncode == 6, done.stderr
    assert "Permission denied" in done.stderr
    assert "run it as root" in done.stderr
