"""A client prefers the server on its own host, and comes home to it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from failover.timing import Timing
from failover.zookeeper import ZooKeeperStore, home
from tests.zookeeper_server import ZooKeeperServers

SERVERS = ("10.0.0.1:2181", "[fd00::2]:2181", "10.0.0.3:2182")
NEAR = {
    "the one with the address of this host": ("10.0.0.3", ("10.0.0.3", 2182)),
    "also with IPv6": ("fd00::2", ("fd00::2", 2181)),
    "none where no server is": ("10.0.0.4", None),
    "none of a host that nobody knows": (None, None),
}


@pytest.mark.parametrize(("address", "server"), NEAR.values(), ids=NEAR)
def test_the_near_server_is(address: str | None, server: home.Server | None) -> None:
    assert home.near(SERVERS, address) == server


SAYS = {
    "a follower": (b"Zxid: 0x1\nMode: follower\n", True),
    "one without a quorum": (b"This ZooKeeper instance is not", False),
}


@pytest.mark.parametrize(("said", "serves"), SAYS.values(), ids=SAYS)
def test_a_server_serves_by_its_own_word(said: bytes, serves: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            asked, _ = server.accept()
            with asked:
                assert asked.recv(4) == b"srvr"
                asked.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        assert home.serves(server.getsockname()) is serves
    assert not home.serves(("127.0.0.1", 1)), "nobody is there"


def test_who_comes_home_in_vain_tries_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "LOOK_S", 0.01)
    monkeypatch.setattr(home, "serves", lambda _: True)
    tries: list[float] = []
    watched = home.Home(("10.0.0.1", 2181), lambda: False, lambda: tries.append(time.monotonic()))
    _until(lambda: len(tries) == 4)
    watched.close()
    assert tries[3] - tries[2] > 1.5 * (tries[1] - tries[0])


@pytest.fixture
def three(tmp_path: Path) -> Iterator[ZooKeeperServers]:
    servers = ZooKeeperServers(tmp_path, 3)
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


@pytest.mark.needs("java")
def test_a_store_is_a_client_of_the_server_here_and_comes_home_to_it_in_the_same_session(
    three: ZooKeeperServers,
) -> None:
    far, here = three.servers[0], three.servers[1]
    clients = [far.client, here.client.replace("127.0.0.1", "localhost"), three.servers[2].client]
    store = ZooKeeperStore(
        "home", clients, "user:secret", role="leader", host="alpha", timing=Timing(session_s=2.0), near="localhost"
    )
    try:
        _until(lambda: store.connected and store._client.at_home)
        session = store._client.session
        three.kill(here.number)
        _until(lambda: store.connected and not store._client.at_home)
        three.start(here.number)
        _until(lambda: store.connected and store._client.at_home)
        assert store._client.session == session
    finally:
        store.close()


def _until(holds: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.005)
