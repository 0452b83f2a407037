"""What only a real ZooKeeper can show: strangers, sessions that outlive processes, servers that die."""

from __future__ import annotations

import contextlib
import logging
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NotEmptyError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from failover.boot import boot_time
from failover.errors import BadInput, Denied, Refused, Unreachable, Unsafe
from failover.model import Assignment, Cluster, Event, Hold, Host, Report, Vserver, frozen_map
from failover.store import Change
from failover.timing import Timing
from failover.zookeeper import ZooKeeperStore, connect, read_credentials
from tests.zookeeper_server import ZooKeeperServers, free_ports

pytestmark = pytest.mark.needs("java")

TIMING = Timing(session_s=2.0)
SECRET = "user:secret"
CLUSTER = Cluster(
    "real",
    hosts=frozen_map({"alpha": Host("alpha", "10.0.0.1"), "beta": Host("beta", "10.0.0.2")}),
    vservers=frozen_map({"web1": Vserver("web1", "alpha", ("beta",))}),
)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[ZooKeeperServers]:
    yield from running(tmp_path, 1)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[ZooKeeperServers]:
    yield from running(tmp_path, 3)


def running(directory: Path, count: int) -> Iterator[ZooKeeperServers]:
    servers = ZooKeeperServers(directory, count)
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    stores: list[ZooKeeperStore] = []

    def open_(servers: ZooKeeperServers, role: str, host: str | None = None, **rest: Any) -> ZooKeeperStore:
        store = ZooKeeperStore(
            "real", servers.clients, rest.pop("secret", SECRET), role=role, host=host, timing=TIMING, **rest
        )
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()


def until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.005)


@contextlib.contextmanager
def stranger(servers: ZooKeeperServers, secret: str = "") -> Iterator[Any]:
    client = KazooClient(servers.clients[0], auth_data=[("digest", secret)] if secret else None)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


@contextlib.contextmanager
def renewing(store: ZooKeeperStore) -> Iterator[list[float]]:
    """An agent's loop; collects how old the lease was at each look."""
    ages: list[float] = []
    over = threading.Event()

    def loop() -> None:
        while not over.wait(TIMING.renew_s / 4):
            store.renew(boot_time())
            if store.renewed_at is not None:
                ages.append(boot_time() - store.renewed_at)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield ages
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("made", [("",), ("", "cluster", "intent", "leader", "assignments")])
def test_what_another_has_only_begun_to_make_is_made_whole_and_followed(
    one: ZooKeeperServers, opened: Callable[..., Any], made: tuple[str, ...]
) -> None:
    """Processes of several hosts start at one moment in an empty store; or the one that made it was killed."""
    acl = [make_digest_acl(*SECRET.split(":"), all=True)]
    with stranger(one, SECRET) as client:
        client.create("/failover", b"", acl=acl)
        for relative in made:
            client.create(f"/failover/real/{relative}".rstrip("/"), b"", acl=acl)
        leader = opened(one, "leader", "alpha")
        until(lambda: leader.fresh)
        operator, agent = opened(one, "operator"), opened(one, "agent", "alpha")
        until(lambda: operator.connected and agent.fresh)
        operator.apply(CLUSTER, "")
        agent.report(Report("alpha"))
        until(lambda: leader.fresh and has_report(leader, "alpha"))


def has_report(store: ZooKeeperStore, host: str) -> bool:
    try:
        return host in store.view().reports
    except Refused:  # nothing is applied, as far as it has read
        return False


def everything_written(servers: ZooKeeperServers, opened: Callable[..., Any]) -> Any:
    """Every kind of znode that there is."""
    operator, agent, leader = (
        opened(servers, "operator"),
        opened(servers, "agent", "alpha"),
        opened(servers, "leader"),
    )
    until(lambda: operator.connected)
    operator.apply(CLUSTER, "text")
    operator.wish("web1", lambda wish: wish)
    operator.wish_host("alpha", lambda wish: wish)
    until(lambda: agent.fresh and leader.lead())
    agent.report(Report("alpha"))
    assert leader.commit(Change(assignments=(Assignment("web1", "alpha", 1),), events=(Event("first", 1.0, "x"),)))
    leader.hold([Hold("web1", "x")])
    return operator


# --- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["", "user:wrong"], ids=["without credentials", "with wrong ones"])
def test_a_stranger_can_do_nothing_to_any_znode(one: ZooKeeperServers, opened: Callable[..., Any], secret: str) -> None:
    everything_written(one, opened)
    with stranger(one, SECRET) as friend:
        paths, unseen = [], ["/failover"]
        while unseen:
            path = unseen.pop()
            paths.append(path)
            unseen += [f"{path}/{name}" for name in friend.get_children(path)]
    assert len(paths) >= 20
    with stranger(one, secret) as client:
        for path in paths:
            for attempt in (
                lambda path=path: client.get(path),
                lambda path=path: client.get_children(path),
                lambda path=path: client.set(path, b"x"),
                lambda path=path: client.create(path + "/x", b""),
                lambda path=path: client.delete(path),
                lambda path=path: client.set_acls(path, OPEN_ACL_UNSAFE),
            ):
                # `/` is everybody's, but what is not empty cannot be deleted from there either.
                with pytest.raises((NoAuthError, NotEmptyError) if path == "/failover" else NoAuthError):
                    attempt()


def test_wrong_credentials_are_denied_in_one_line_that_names_the_file(
    one: ZooKeeperServers, opened: Callable[..., Any]
) -> None:
    everything_written(one, opened)
    with pytest.raises(Denied, match="does not accept our credentials") as denied:
        connect("real", one.clients, "user:wrong", timing=TIMING, credentials_path="/etc/x.secret")
    assert "/etc/x.secret" in denied.value.hint


def test_a_daemon_with_wrong_credentials_says_so_and_goes_on(
    one: ZooKeeperServers, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    everything_written(one, opened)
    with caplog.at_level(logging.ERROR, "failover.zookeeper"):
        agent = opened(one, "agent", "beta", secret="user:wrong")
        until(lambda: agent.trouble)
        time.sleep(1.5)
    assert isinstance(agent.trouble, Denied)
    assert not agent.fresh
    assert len(caplog.records) == 1, "said once, not at every attempt"


def test_a_root_that_is_open_to_the_world_is_refused(one: ZooKeeperServers, opened: Callable[..., Any]) -> None:
    with stranger(one) as client:
        client.create("/failover")
    operator, agent = opened(one, "operator"), opened(one, "agent", "alpha")
    until(lambda: operator.connected and agent.trouble)
    with pytest.raises(Unsafe, match="may be used by others"):
        operator.apply(CLUSTER, "text")
    assert isinstance(agent.trouble, Unsafe)
    with stranger(one) as client:
        client.delete("/failover")
    until(lambda: agent.fresh)


CREDENTIALS = {
    "no file": (None, 0o600, BadInput, "does not exist"),
    "readable by others": ("user:secret\n", 0o644, Denied, "read by others"),
}


@pytest.mark.parametrize(("text", "mode", "kind", "because"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_that_cannot_be_used(
    tmp_path: Path, text: str | None, mode: int, kind: type[Exception], because: str
) -> None:
    path = tmp_path / "secret"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(kind, match=because):
        read_credentials(path)


def test_credentials_without_a_password_are_refused() -> None:
    with pytest.raises(BadInput, match="user:password"):
        connect("real", ["127.0.0.1:1"], "user")


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_the_next_process_goes_on_with_the_session(
    one: ZooKeeperServers, opened: Callable[..., Any], tmp_path: Path
) -> None:
    operator = everything_written(one, opened)
    path = tmp_path / "session"
    first = opened(one, "agent", "beta", session_file=path)
    until(lambda: first.fresh)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    session = first._client.session
    first.close()
    second = opened(one, "agent", "beta", session_file=path)
    until(lambda: second.fresh)
    assert second._client.session == session
    second.close()
    until(lambda: not operator.view().leases["beta"].alive)
    third = opened(one, "agent", "beta", session_file=path)
    until(lambda: third.fresh)
    assert third._client.session != session, "one that has expired is replaced by a new one"
    assert operator.view().leases["beta"].alive


def test_an_older_session_of_the_same_host_is_replaced_when_it_is_silent(
    one: ZooKeeperServers, opened: Callable[..., Any]
) -> None:
    operator = everything_written(one, opened)
    first = opened(one, "agent", "beta")
    until(lambda: first.fresh)
    first.close()  # its session lives on, and nobody has kept its password
    version = operator.view().leases["beta"].version
    second = opened(one, "agent", "beta")
    until(lambda: second.fresh)
    assert operator.view().leases["beta"].version == version + 1


def test_a_second_agent_of_the_same_name_is_never_fresh(one: ZooKeeperServers, opened: Callable[..., Any]) -> None:
    everything_written(one, opened)
    first = opened(one, "agent", "beta")
    until(lambda: first.fresh)
    with renewing(first):
        second = opened(one, "agent", "beta")
        until(lambda: second.trouble)
        assert isinstance(second.trouble, Refused)
        time.sleep(2 * TIMING.session_s)
        assert first.fresh
        assert not second.fresh


def test_the_granted_session_is_known(one: ZooKeeperServers) -> None:
    """ZooKeeper grants between 1 and 60 s, and more is not asked for."""
    for asked_s, granted_s in ((2.0, 2.0), (60.0, 60.0)):
        store = ZooKeeperStore("real", one.clients, SECRET, role="agent", host="alpha", timing=Timing(asked_s))
        try:
            until(lambda store=store: store.fresh)
            assert store.session_s == granted_s
        finally:
            store.close()


def test_a_session_goes_on_with_its_own_length_or_is_made_anew(
    one: ZooKeeperServers, opened: Callable[..., Any], tmp_path: Path
) -> None:
    """What runs may go by an end that the agent before has given it, under longer terms; and ZooKeeper's next leader
    goes by the length that a session was made with."""
    everything_written(one, opened)
    path, sessions = tmp_path / "session", []
    for asked_s, granted_s in ((4.0, 4.0), (2.0, 4.0), (6.0, 6.0)):
        timing = Timing(asked_s)
        store = ZooKeeperStore("real", one.clients, SECRET, role="agent", host="beta", timing=timing, session_file=path)
        try:
            until(lambda store=store: store.fresh)
            assert store.session_s == granted_s
            sessions.append(store._client.session)
        finally:
            store.close()
    assert sessions[0] == sessions[1] != sessions[2]


# --- servers that are not there ---------------------------------------------------------------------------------------


def test_a_command_without_zookeeper_names_the_servers() -> None:
    servers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with pytest.raises(Unreachable) as unreachable:
        connect("real", servers, SECRET, timing=TIMING, deadline_s=0.5)
    assert all(server in str(unreachable.value) for server in servers)
    assert unreachable.value.hint


def test_daemons_start_before_zookeeper_and_survive_its_absence(tmp_path: Path, opened: Callable[..., Any]) -> None:
    servers = ZooKeeperServers(tmp_path)
    try:
        agent, leader = opened(servers, "agent", "alpha"), opened(servers, "leader", "alpha")
        time.sleep(1.0)
        assert not agent.connected
        assert leader.lead() is None
        for _ in range(2):
            servers.start()
            until(lambda: agent.fresh and leader.lead())
            with renewing(agent) as ages:
                until(lambda ages=ages: len(ages) > 3)
            servers.kill(1)
            until(lambda: not agent.connected and not leader.connected)
            time.sleep(TIMING.session_s)
    finally:
        servers.close()


@pytest.mark.parametrize("mode", ["follower", "leader"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_one_server_of_three_is_lost_and_no_session_with_it(
    three: ZooKeeperServers, opened: Callable[..., Any], how: signal.Signals, mode: str
) -> None:
    agents = [opened(three, "agent", f"host{number}") for number in range(6)]
    leader = opened(three, "leader", "host0")
    until(lambda: all(agent.fresh for agent in agents) and leader.lead())
    epoch = leader.lead()
    sessions = [agent._client.session for agent in agents]
    with contextlib.ExitStack() as stack:
        for agent in agents:
            stack.enter_context(renewing(agent))
        victim = next(server.number for server in three.servers if three.mode(server.number) == mode)
        time.sleep(0.5)
        three.signal(victim, how)
        time.sleep(2 * TIMING.session_s)
        lost_at = boot_time()
        until(lambda: all(agent.fresh and agent.renewed_at > lost_at for agent in agents))
    assert [agent._client.session for agent in agents] == sessions
    until(leader.lead)
    assert leader.lead() == epoch


def resting(three: ZooKeeperServers, opened: Callable[..., Any]) -> list[Any]:
    """Six agents whose leases rest on grants."""
    agents = [opened(three, "agent", f"host{number}") for number in range(6)]
    until(lambda: all(agent.fresh for agent in agents))
    for agent in agents:
        agent.rest_on_grants()
    until(lambda: all(agent.rest.granted and agent.rest.settled for agent in agents))
    return agents


def test_one_server_of_three_falls_silent_and_who_rests_on_grants_keeps_its_session(
    three: ZooKeeperServers, opened: Callable[..., Any]
) -> None:
    """What is sent keeps the client from asking by itself whether its server is there."""
    agents = resting(three, opened)
    sessions = [agent._client.session for agent in agents]
    with contextlib.ExitStack() as stack:
        for agent in agents:
            stack.enter_context(renewing(agent))
        victim = next(server.number for server in three.servers if three.mode(server.number) == "follower")
        time.sleep(0.5)
        three.signal(victim, signal.SIGSTOP)
        time.sleep(2 * TIMING.session_s)
        operator = opened(three, "operator")
        until(lambda: operator.connected)
        alive = "/failover/real/alive"
        assert len(operator._client.names((alive,))[alive]) == len(agents)
    assert [agent._client.session for agent in agents] == sessions


def test_who_rested_on_grants_claims_its_lease_in_time_though_its_server_is_silent(
    three: ZooKeeperServers, opened: Callable[..., Any]
) -> None:
    """It has written nothing for long, so it has not noticed; and a new leader does not wait for long."""
    agents = resting(three, opened)
    victim = next(server.number for server in three.servers if three.mode(server.number) == "follower")
    three.signal(victim, signal.SIGSTOP)
    began = time.monotonic()
    for agent in agents:
        agent.claim_anew()
    until(lambda: all(agent.fresh and not agent.rest.granted for agent in agents))
    assert time.monotonic() - began < 0.45 * TIMING.session_s


@pytest.mark.parametrize("busy", [True, False], ids=["with other answers", "silent"])
def test_a_leader_goes_to_another_server_only_when_its_own_answers_nothing(
    busy: bool, one: ZooKeeperServers, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long reading may be ahead of the question whether the server is there."""
    everything_written(one, opened)
    leader = opened(one, "leader", "beta")
    until(lambda: leader.fresh)
    client, link = leader._client, leader._link

    class Behind:
        """The answer comes after others."""

        left = 3

        def wait(self, timeout: float) -> bool:
            if busy:
                client.read(("/",))
                self.left -= 1
            return self.left == 0

    monkeypatch.setattr(client._kazoo, "exists_async", lambda path: Behind())
    client.await_answer(0.01)
    monkeypatch.undo()
    time.sleep(0.2)
    until(lambda: leader.fresh)
    assert (leader._link == link) is busy


def test_who_has_stepped_down_without_an_answer_leads_only_under_another_epoch(
    one: ZooKeeperServers, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = opened(one, "leader", "alpha")
    until(leader.lead)
    epoch = leader.lead()

    def lost(*_: object) -> None:
        raise Unreachable("lost on its way")

    with monkeypatch.context() as lossy:
        lossy.setattr(leader._client, "write", lost)
        with pytest.raises(Unreachable):
            leader.step_down()
        assert leader.lead() is None
    until(leader.lead)
    assert leader.lead() == epoch + 1
