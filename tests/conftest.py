"""What the tests need of the machine. In CI a missing feature is an error; elsewhere a skip that says why."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.replication import rsync
from failover.errors import FailoverError
from tests.machines import InSimulation, Machines, OnRealHosts
from tests.real_host import real_hosts
from tests.stores import CLUSTER, InMemory, InZooKeeper, Stores
from tests.trees import unique
from tests.wired import OverWires
from tests.wires import Wires
from tests.zookeeper_server import ZooKeeperServers


def _rsync() -> bool:
    try:
        rsync.check_version()
    except FailoverError:
        return False
    return True


FENCE_AGENTS = Path("/var/cache/failover/agents")  # packages, see the Makefile

FEATURES: dict[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "java": lambda: shutil.which("java") is not None and Path("/usr/share/java/zookeeper.jar").exists(),
    "rsync": _rsync,
    "sshd": lambda: Path("/usr/sbin/sshd").exists(),
    "nft": lambda: shutil.which("nft") is not None,
    "fuse": Path("/dev/fuse").exists,
    "btrfs": lambda: shutil.which("mkfs.btrfs") is not None,
    "busybox": lambda: Path("/bin/busybox").exists(),
    "fence-agents": lambda: any(FENCE_AGENTS.glob("fence-agents_*.deb")),
    "debian": lambda: shutil.which("mmdebstrap") is not None,
}


def pytest_configure() -> None:
    """A run that is told to end takes down what it has built: namespaces, mounts, loop devices, processes. What was
    forked from it ends as ever."""
    ours = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() == ours:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("needs"):
            missing = [feature for feature in marker.args if not FEATURES[feature]()]
            if missing and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason=f"this machine lacks {', '.join(missing)}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        missing = [feature for feature in marker.args if not FEATURES[feature]()]
        if missing:
            pytest.fail(f"this machine lacks {', '.join(missing)}, and CI may skip nothing")


# --- the contract of a machine ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_real_hosts() -> Iterator[Any]:
    wires = Wires()
    try:
        client = wires.host("client", "10.0.0.200/24")
        with real_hosts("alpha", "beta", wires=wires) as made:
            yield made, client
    finally:
        wires.close()


REAL = pytest.param("real", marks=pytest.mark.needs("root", "busybox", "nft", "rsync", "sshd"))


@pytest.fixture(params=["simulated", REAL])
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    made: Machines
    if request.param == "real":
        made = OnRealHosts(unique(), *request.getfixturevalue("two_real_hosts"))
    else:
        made = InSimulation(unique())
    try:
        made.told()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    servers = ZooKeeperServers(tmp_path_factory.mktemp("zookeeper"))
    try:
        servers.start()
        yield servers.clients[0]
    finally:
        servers.close()


@pytest.fixture(params=["memory", "wires", pytest.param("zookeeper", marks=pytest.mark.needs("java"))])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    made: Stores
    if request.param == "zookeeper":
        made = InZooKeeper(request.getfixturevalue("server"))
    else:
        made = InMemory() if request.param == "memory" else OverWires()
    operator = made.fresh("operator")
    operator.apply(CLUSTER, "cluster: contract\n")
    try:
        yield made
    finally:
        made.close()
