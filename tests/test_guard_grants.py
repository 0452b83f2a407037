"""The guard and the leader's ear, for real: what runs goes on by grants, and ends with them."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import lease, network
from agents.lease import Asks
from failover import wire
from failover.boot import boot_time
from failover.grants.granting import Granting
from failover.grants.hearing import Hearing
from failover.grants.protocol import Footing, Grant, Letter
from failover.seal import Seal
from failover.timing import PROFILES
from tests.guarded import Guard, Vserver, guarded
from tests.test_granting import Cluster
from tests.wires import eventually, inside

TIMING = PROFILES["fast"]
SEAL = Seal(b"the cluster's")
LEADER, STRANGER = "10.9.0.2", "10.9.0.3"

pytestmark = pytest.mark.needs("root", "nft")


class Leader:
    """An ear on a host of its own, for the agent of alpha."""

    def __init__(self, guard: Guard) -> None:
        self.cluster = Cluster()
        self.cluster.agent._clock = self.cluster.leader._clock = boot_time
        self.cluster.leader._timing = TIMING
        self._netns = guard.wires.host("beta", f"{LEADER}/24")
        self.speak()

    def speak(self) -> None:
        self.cluster.leader._proofs.begun(boot_time())
        self.granting = Granting(self.cluster.leader, TIMING, boot_time)
        self.granting.lead(self.cluster.leader.lead())
        self.hearing = inside(self._netns, lambda: Hearing(self.granting, SEAL, lambda: LEADER, threading.Event().set))
        assert eventually(lambda: self.hearing.ready)

    def fall_silent(self) -> None:
        self.granting.resign()

    @property
    def asks(self) -> Asks:
        footing = self.cluster.agent.footing
        assert footing is not None
        return Asks("alpha", LEADER, footing, SEAL.key.hex(), TIMING)


@pytest.fixture
def guard() -> Iterator[Guard]:
    with guarded("10.9.0.1/24") as made:
        yield made


@pytest.fixture
def v1(guard: Guard) -> Iterator[Vserver]:
    made = Vserver(guard.directory, "v1")
    yield made
    made.close()


@pytest.fixture
def leader(guard: Guard) -> Iterator[Leader]:
    made = Leader(guard)
    yield made
    made.hearing.close()


def hold(guard: Guard, seconds: float, vserver: Vserver, asks: Asks | None) -> float:
    until = boot_time() + seconds
    assert guard.says(until, {vserver.name: network.mac_of(vserver.name)}, asks=asks), guard.log.read_text()
    return until


def test_what_runs_goes_on_by_grants_after_the_end_of_the_word_and_ends_with_them(
    guard: Guard, v1: Vserver, leader: Leader
) -> None:
    guard.start()
    until = hold(guard, 0.3, v1, leader.asks)
    while boot_time() < until + 1.0:
        assert not v1.frozen
        time.sleep(0.02)
    leader.fall_silent()
    last = boot_time()
    assert eventually(lambda: v1.frozen)
    assert max(v1.beats()) < last + TIMING.grant_s, "so the leader may give it away then"


def test_a_grant_after_the_end_thaws(guard: Guard, v1: Vserver, leader: Leader) -> None:
    guard.start()
    leader.fall_silent()
    hold(guard, 0.2, v1, leader.asks)
    assert eventually(lambda: v1.frozen)
    leader.hearing.close()
    time.sleep(1.2)  # its socket is closed within a second
    leader.speak()
    assert v1.goes_on()


def test_the_next_guard_asks_on(guard: Guard, v1: Vserver, leader: Leader) -> None:
    guard.start()
    hold(guard, 0.3, v1, leader.asks)
    assert eventually(lambda: guard.says(boot_time() - 1, {v1.name: network.mac_of(v1.name)}, asks=leader.asks))
    guard.end(signal.SIGKILL)
    guard.start()
    assert v1.goes_on()
    time.sleep(0.5)
    assert not v1.frozen


def test_the_next_guard_knows_what_was_granted(guard: Guard, v1: Vserver, leader: Leader) -> None:
    """Else the agent would take its right for over, and freeze."""
    guard.start()
    hold(guard, 0.3, v1, leader.asks)
    assert eventually(lambda: "granted" in (guard.directory / "guard.json").read_text())
    leader.fall_silent()
    guard.end(signal.SIGKILL)
    state = json.loads((guard.directory / "guard.json").read_text())
    guard.start()
    granted = inside(guard.netns, lambda: lease.alive(socket=guard.socket, timeout_s=10))
    assert granted is not None
    assert (granted.footing, granted.until) == (leader.asks.footing, state["granted"])


def test_a_guard_that_is_told_to_end_asks_no_more_and_ends_when_all_is_frozen(
    guard: Guard, v1: Vserver, leader: Leader
) -> None:
    guard.start()
    hold(guard, 0.3, v1, leader.asks)
    assert guard.end(signal.SIGTERM) == 0
    assert v1.frozen


def test_a_word_without_questions_ends_them(guard: Guard, v1: Vserver, leader: Leader) -> None:
    guard.start()
    hold(guard, 0.3, v1, leader.asks)
    hold(guard, 0.3, v1, None)
    assert eventually(lambda: v1.frozen)


def test_a_footing_that_was_overtaken_is_granted_nothing(guard: Guard, v1: Vserver, leader: Leader) -> None:
    guard.start()
    asks = leader.asks
    leader.cluster.agent.renew(boot_time())
    hold(guard, 0.3, v1, asks)
    assert eventually(lambda: v1.frozen)
    hold(guard, 0.3, v1, leader.asks)
    assert v1.goes_on()


def attended(guard: Guard, v1: Vserver, leader: Leader) -> threading.Semaphore:
    """What an agent hears of its guard, which was granted something by now."""
    heard = threading.Semaphore(0)
    lease.attend(heard.release, guard.directory / "agent.sock")
    assert eventually((guard.directory / "agent.sock").exists)
    guard.start()
    hold(guard, 5.0, v1, leader.asks)
    assert heard.acquire(timeout=10), "granted"
    return heard


def test_the_agent_hears_of_the_first_grant_and_of_trouble(guard: Guard, v1: Vserver, leader: Leader) -> None:
    heard = attended(guard, v1, leader)
    leader.fall_silent()
    assert heard.acquire(timeout=10), "trouble"


def test_the_agent_hears_at_once_that_its_guard_has_ended_and_the_next_one_too(
    guard: Guard, v1: Vserver, leader: Leader
) -> None:
    heard = attended(guard, v1, leader)
    for _ in range(2):
        while heard.acquire(timeout=0.5):
            pass  # no more news: all is well
        guard.end(signal.SIGKILL)
        assert heard.acquire(timeout=10), "its end"
        guard.start()
        assert heard.acquire(timeout=10), "the next one was granted something"


def test_the_agent_hears_that_its_guard_is_silent_before_what_was_granted_is_over(
    guard: Guard, v1: Vserver, leader: Leader
) -> None:
    heard = attended(guard, v1, leader)
    while heard.acquire(timeout=0.5):
        pass
    os.kill(guard.pid, signal.SIGSTOP)
    assert heard.acquire(timeout=10), "its silence"
    os.kill(guard.pid, signal.SIGCONT)


def test_answers_of_strangers_and_answers_to_nobody_extend_nothing(guard: Guard, v1: Vserver, leader: Leader) -> None:
    """They are sent to the very port that the guard asks from."""
    guard.start()
    leader.fall_silent()
    hold(guard, 1.0, v1, leader.asks)
    stranger = guard.wires.host("gamma", f"{STRANGER}/24")
    port = json.loads(_ports(guard))[0]

    def lie() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            for seal, number in ((Seal(b"guessed"), 1), (SEAL, 1), (SEAL, 2**63)):
                body = wire.encode(Letter(grant=Grant(number, 60.0), target="alpha"))
                ours.sendto(seal.close(body), ("10.9.0.1", port))
                ours.sendto(body, ("10.9.0.1", port))
            ours.sendto(b"x" * 60_000, ("10.9.0.1", port))

    inside(stranger, lie)
    assert eventually(lambda: v1.frozen)
    assert max(v1.beats()) < boot_time()


def _ports(guard: Guard) -> str:
    """The UDP ports that are bound in the guard's network, as JSON."""
    return inside(guard.netns, lambda: json.dumps(sorted(_bound())))


def _bound() -> list[int]:
    table = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return [int(line.split()[1].rpartition(":")[2], 16) for line in table]


def test_a_footing_is_a_part_of_the_word(guard: Guard, v1: Vserver) -> None:
    """A leader at an address where nobody answers is asked in vain."""
    guard.start()
    hold(guard, 0.3, v1, Asks("alpha", STRANGER, Footing(1, 0), SEAL.key.hex(), TIMING))
    assert eventually(lambda: v1.frozen)
