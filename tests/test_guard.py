"""The guard, for real: what runs in cgroups stands still when its lease ends, whatever becomes of agent and guard."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents import fence, lease, network
from agents.asking import Asking
from agents.guard import Keeper
from agents.isolation import cgroup
from agents.lease import Asks, Granted, Word, granted_of
from agents.overdue import Overdue
from failover.boot import boot_time
from failover.errors import BadInput, FailoverError
from failover.grants.protocol import Footing
from failover.model import Network
from failover.timing import PROFILES
from tests.guarded import BRIDGE, DEVICE, Guard, Vserver, guarded
from tests.wires import eventually

MAC = "02:fa:10:00:00:01"
ASKS = Asks("alpha", "10.0.0.2", Footing(3, 1), "0a", PROFILES["fast"])

# --- pure: the words --------------------------------------------------------------------------------------------------

WORDS = {
    "alive": Word(),
    "a device": Word(812.5, {"v1": MAC}, DEVICE),
    "a bridge": Word(812.5, {"v1": MAC, "v-2.x": "02:fa:10:00:00:02"}, BRIDGE),
    "nothing may run": Word(812.5, {}, DEVICE),
    "one is released": Word(812.5, {"v1": MAC}, DEVICE, ("v2",)),
    "one only extends": Word(812.5, {"v1": MAC}, DEVICE, extends=True),
    "the leader is to be asked": Word(812.5, {"v1": MAC}, DEVICE, asks=ASKS),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_arrives_as_it_was_sent(name: str) -> None:
    assert lease.decode(lease.encode(WORDS[name])) == WORDS[name]


def test_an_answer_says_what_was_granted() -> None:
    for granted in (Granted(), Granted(Footing(3, 1), 812.5, True)):
        assert granted_of(lease.answer(granted)) == granted_of(lease.answer(granted, "why not")) == granted


REFUSED = {
    "no JSON": "until tomorrow",
    "no object": "[1]",
    "released and named": (
        '{"until": 1, "vservers": {"v": "02:fa:10:00:00:01"}, "network": {"device": "e"}, "released": ["v"]}'
    ),
    "extends, perhaps": '{"until": 1, "vservers": {}, "network": {"device": "eth0"}, "extends": 1}',
    "no until": '{"vservers": {}, "network": {"device": "eth0"}}',
    "until as text": '{"until": "1", "vservers": {}, "network": {"device": "eth0"}}',
    "until as truth": '{"until": true, "vservers": {}, "network": {"device": "eth0"}}',
    "until that is no number": '{"until": NaN, "vservers": {}, "network": {"device": "eth0"}}',
    "a name that no vserver may have": (
        '{"until": 1, "vservers": {"a..b": "02:fa:10:00:00:01"}, "network": {"bridge": "br0"}}'
    ),
    "a path as a name": '{"until": 1, "vservers": {"../v1": "02:fa:10:00:00:01"}, "network": {"bridge": "br0"}}',
    "a rule as a MAC address": '{"until": 1, "vservers": {"v1": "02 }; flush ruleset"}, "network": {"bridge": "br0"}}',
    "a rule as a device": '{"until": 1, "vservers": {}, "network": {"device": "eth0\\" drop"}}',
    "two networks": '{"until": 1, "vservers": {}, "network": {"device": "eth0", "bridge": "br0"}}',
    "questions that are not understood": (
        '{"until": 1, "vservers": {}, "network": {"device": "eth0"}, "asks": "{\\"format\\": 2}"}'
    ),
    "a key that is none": lease.encode(Word(812.5, {}, DEVICE, asks=replace(ASKS, key="secret"))).decode(),
    "no network": '{"until": 1, "vservers": {}, "network": {}}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exactly_a_word_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        lease.decode(REFUSED[name].encode())


# --- a guard with real processes --------------------------------------------------------------------------------------


@pytest.fixture
def guard() -> Iterator[Guard]:
    with guarded() as made:
        yield made


@pytest.fixture
def v1(guard: Guard) -> Iterator[Vserver]:
    made = Vserver(guard.directory, "v1")
    yield made
    made.close()


@pytest.fixture
def v2(guard: Guard) -> Iterator[Vserver]:
    made = Vserver(guard.directory, "v2")
    yield made
    made.close()


@pytest.mark.needs("root", "nft")
def test_a_vserver_stands_still_at_the_end_of_its_lease(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(0.6, v1)
    assert v1.goes_on()
    assert eventually(lambda: v1.frozen)
    assert max(v1.beats()) < until


@pytest.mark.needs("root", "nft")
def test_a_vserver_that_is_renewed_goes_on_and_one_that_stood_still_is_thawed(guard: Guard, v1: Vserver) -> None:
    guard.start()
    first = guard.hold(1.0, v1)
    while boot_time() < first + 0.5:
        guard.hold(1.0, v1)
        assert not v1.frozen
        time.sleep(0.1)
    assert eventually(lambda: v1.frozen)
    guard.hold(30, v1)
    assert v1.goes_on() and not v1.frozen


@pytest.mark.needs("root", "nft")
def test_a_vserver_that_is_withdrawn_stands_still_at_its_old_end_and_stays_so(
    guard: Guard, v1: Vserver, v2: Vserver
) -> None:
    guard.start()
    until = guard.hold(1.0, v1, v2)
    guard.hold(30, v1)
    assert v2.goes_on()
    assert eventually(lambda: v2.frozen)
    assert max(v2.beats()) < until
    for _ in range(5):
        guard.hold(30, v1)
        assert v2.frozen and v1.goes_on()


@pytest.mark.needs("root", "nft")
def test_a_vserver_that_nobody_named_is_left_alone(guard: Guard, v1: Vserver, v2: Vserver) -> None:
    guard.start()
    guard.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    assert v2.goes_on() and not v2.frozen


@pytest.mark.needs("root", "nft")
def test_a_vserver_that_its_agent_froze_within_the_lease_is_not_thawed(guard: Guard, v1: Vserver) -> None:
    guard.start()
    guard.hold(30, v1)
    cgroup.freeze(v1.group)
    guard.hold(31, v1)
    assert v1.frozen


@pytest.mark.needs("root", "nft")
def test_a_start_that_was_under_way_at_the_end_is_frozen_when_it_appears(guard: Guard) -> None:
    guard.start()
    guard.hold(0.2, f"{guard.directory.name}-v3")
    time.sleep(0.4)
    late = Vserver(guard.directory, "v3", late=True)
    try:
        assert eventually(lambda: cgroup.populated(late.group) and late.frozen)
    finally:
        late.close()


@pytest.mark.needs("root", "nft")
def test_what_a_killed_guard_knew_the_next_one_enforces(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(2.5, v1)
    guard.end(signal.SIGKILL)
    guard.start()
    assert v1.goes_on()
    assert eventually(lambda: v1.frozen)
    assert max(v1.beats()) < until


@pytest.mark.needs("root", "nft")
def test_what_became_overdue_without_a_guard_is_frozen_at_once_and_can_be_thawed(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(0.3, v1)
    guard.end(signal.SIGKILL)
    assert eventually(lambda: boot_time() > until)
    assert v1.goes_on()
    guard.start()
    assert eventually(lambda: v1.frozen)
    guard.end(signal.SIGKILL)
    guard.start()
    guard.hold(30, v1)
    assert v1.goes_on()


@pytest.mark.needs("root", "nft")
def test_a_guard_that_cannot_listen_freezes_what_is_overdue_all_the_same(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(0.3, v1)
    guard.end(signal.SIGKILL)
    assert eventually(lambda: boot_time() > until)
    guard.socket.unlink()
    guard.socket.mkdir()
    argv = [sys.executable, "-m", "agents.guard", "--directory", str(guard.directory)]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode != 0
    assert v1.frozen


@pytest.mark.needs("root", "nft")
def test_a_guard_that_is_told_to_end_stays_until_all_is_frozen(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(1.5, v1)
    assert guard.end(signal.SIGTERM) == 0
    assert v1.frozen
    assert boot_time() > until - 0.1


@pytest.mark.needs("root", "nft")
def test_a_guard_that_is_told_to_end_waits_for_a_start_that_was_under_way(guard: Guard) -> None:
    guard.start()
    until = guard.hold(0.5, f"{guard.directory.name}-v3")
    os.kill(guard.pid, signal.SIGTERM)
    assert eventually(lambda: boot_time() > until)
    late = Vserver(guard.directory, "v3", late=True)
    try:
        assert guard.end(signal.SIGTERM) == 0
        assert eventually(lambda: cgroup.populated(late.group) and late.frozen)
    finally:
        late.close()


@pytest.mark.needs("root", "nft")
def test_what_is_released_is_left_alone(guard: Guard, v1: Vserver, v2: Vserver) -> None:
    guard.start()
    until = guard.hold(1.0, v1, v2)
    assert guard.says(until, {v2.name: network.mac_of(v2.name)}, released=(v1.name,))
    assert eventually(lambda: v2.frozen)
    assert boot_time() > until - 0.1
    assert v1.goes_on() and not v1.frozen


@pytest.mark.needs("root", "nft")
def test_a_guard_whose_successor_follows_leaves_all_as_it_is(guard: Guard, v1: Vserver) -> None:
    guard.start()
    guard.hold(30, v1)
    assert guard.end(signal.SIGUSR1) == 0
    assert v1.goes_on() and not v1.frozen
    rules = subprocess.run(["nsenter", f"--net={guard.netns}", "nft", "list", "ruleset"], capture_output=True)
    assert network.mac_of(v1.name).encode() in rules.stdout
    assert v1.name in json.loads((guard.directory / "guard.json").read_text())["ends"]


@pytest.mark.needs("root", "nft")
def test_a_word_that_cannot_be_kept_changes_nothing(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(1.5, v1)
    macs = {v1.name: network.mac_of(v1.name)}
    assert not guard.says(boot_time() - 1, macs)
    assert not guard.says(boot_time() + 3600, macs)
    assert eventually(lambda: v1.frozen)
    assert max(v1.beats()) < until
    assert not guard.says(until, macs), "the same word again, but its end is past"


@pytest.mark.needs("root", "nft")
def test_without_a_fence_nothing_is_held(guard: Guard, v1: Vserver) -> None:
    guard.start(without="net_admin")
    assert not guard.says(boot_time() + 30, {v1.name: network.mac_of(v1.name)})
    assert "nftables refuses: netlink: Error: cache initialization failed: Operation not permitted" in (
        guard.log.read_text()
    )


@pytest.mark.needs("root")
def test_a_fence_that_could_not_be_closed_is_closed_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel was busy, and what it was busy with may have opened it again."""
    ends = {"no-such-vserver": {"until": boot_time() - 0.1, "mac": MAC}}
    (tmp_path / "guard.json").write_text(json.dumps({"network": {"device": "eth0", "bridge": None}, "ends": ends}))
    changes: list[str] = []

    def apply(text: str, *, timeout_s: float) -> None:
        changes.append(text)
        if len(changes) == 1:
            raise FailoverError("the kernel is still busy with the last change of nftables")

    monkeypatch.setattr(fence, "apply", apply)
    keeper = Keeper(tmp_path, Overdue(), Asking(lambda asks, letter: None))
    for _ in range(3):
        keeper.enforce()
    assert changes == [fence.closed(Network(device="eth0"), [MAC])] * 2


@pytest.mark.needs("root", "nft")
def test_it_is_never_paged_out(guard: Guard) -> None:
    guard.start()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{guard.pid}/status").read_text().splitlines())
    locked, resident = (int(status[key].split()[0]) for key in ("VmLck", "VmRSS"))
    assert locked > 0.9 * resident > 0  # the kernel's own pages, which every process has, cannot be locked


@pytest.mark.needs("root")
def test_without_a_guard_nothing_is_held(guard: Guard) -> None:
    assert not lease.hold(boot_time() + 1, {}, DEVICE, socket=guard.socket)
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    silent.bind(str(guard.socket))
    assert not lease.alive(socket=guard.socket)
    silent.close()


@pytest.mark.needs("root", "nft")
def test_there_is_one_guard(guard: Guard) -> None:
    guard.start()
    argv = [sys.executable, "-m", "agents.guard", "--directory", str(guard.directory)]
    second = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 4 and "another guard" in second.stderr


@pytest.mark.needs("root")
def test_an_agent_that_cannot_be_started_does_not_end_the_guard(guard: Guard, v1: Vserver) -> None:
    guard.start("--agent", "/nonexistent/agent --host alpha")
    guard.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    assert "cannot be started" in guard.log.read_text()


# --- words that rest on promises --------------------------------------------------------------------------------------


@pytest.mark.needs("root", "nft")
def test_a_word_that_extends_lets_run_on_what_runs(guard: Guard, v1: Vserver, v2: Vserver) -> None:
    guard.start()
    until = guard.hold(1.0, v1, v2)
    assert guard.extends(until + 20, v1)
    assert eventually(lambda: v2.frozen)
    assert v1.goes_on() and not v1.frozen


@pytest.mark.needs("root", "nft")
def test_a_word_that_extends_thaws_nothing_and_begins_nothing(guard: Guard, v1: Vserver, v2: Vserver) -> None:
    guard.start()
    guard.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    assert guard.extends(boot_time() + 20, v1, v2)
    time.sleep(0.2)
    assert v1.frozen
    guard.end(signal.SIGKILL)
    guard.start()
    assert guard.extends(boot_time() + 20, v1)
    assert v1.frozen and v2.goes_on()
    assert set(json.loads((guard.directory / "guard.json").read_text())["ends"]) == {v1.name}


@pytest.mark.needs("root", "nft")
def test_a_later_word_of_the_lease_shortens_what_was_extended(guard: Guard, v1: Vserver) -> None:
    guard.start()
    assert guard.extends(guard.hold(1.0, v1) + 20, v1)
    until = guard.hold(1.0, v1)
    assert eventually(lambda: v1.frozen)
    assert max(v1.beats()) < until


@pytest.mark.needs("root", "nft")
def test_the_fence_is_extended_with_the_vserver(guard: Guard, v1: Vserver) -> None:
    guard.start()
    assert guard.extends(guard.hold(1.0, v1) + 20, v1)
    listed = subprocess.run(
        ["nsenter", f"--net={guard.netns}", "nft", "-j", "list", "set", "netdev", "failover", "held"],
        capture_output=True,
        check=True,
    )
    (element,) = next(entry["set"]["elem"] for entry in json.loads(listed.stdout)["nftables"] if "set" in entry)
    assert element["elem"]["timeout"] >= 19
