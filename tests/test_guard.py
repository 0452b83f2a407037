"""The guard, for real: processes in cgroups, frames on wires, agents that die, hang and are adopted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import fence, lease, network
from agents.isolation import cgroup
from agents.lease import Word
from failover.errors import BadInput
from failover.model import Network
from tests.wires import Wires, answers, eventually, inside

DEVICE, BRIDGE = Network(device="eth0"), Network(bridge="br0")
FORMS = pytest.mark.parametrize("form", [DEVICE, BRIDGE], ids=["macvlan", "bridge"])
MAC = "02:fa:10:00:00:01"


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --- pure: the words and the rules ------------------------------------------------------------------------------------

WORDS = {
    "alive": Word(),
    "a device": Word(812.5, {"v1": MAC}, DEVICE),
    "a bridge": Word(812.5, {"v1": MAC, "v-2.x": "02:fa:10:00:00:02"}, BRIDGE),
    "nothing may run": Word(812.5, {}, DEVICE),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_arrives_as_it_was_sent(name: str) -> None:
    assert lease.decode(lease.encode(WORDS[name])) == WORDS[name]


REFUSED = {
    "no JSON": "until tomorrow",
    "no object": "[1]",
    "no until": '{"vservers": {}, "network": {"device": "eth0"}}',
    "until as text": '{"until": "1", "vservers": {}, "network": {"device": "eth0"}}',
    "until as truth": '{"until": true, "vservers": {}, "network": {"device": "eth0"}}',
    "until that is no number": '{"until": NaN, "vservers": {}, "network": {"device": "eth0"}}',
    "a path as a name": '{"until": 1, "vservers": {"../v1": "02:fa:10:00:00:01"}, "network": {"bridge": "br0"}}',
    "a rule as a MAC address": '{"until": 1, "vservers": {"v1": "02 }; flush ruleset"}, "network": {"bridge": "br0"}}',
    "a rule as a device": '{"until": 1, "vservers": {}, "network": {"device": "eth0\\" drop"}}',
    "two networks": '{"until": 1, "vservers": {}, "network": {"device": "eth0", "bridge": "br0"}}',
    "no network": '{"until": 1, "vservers": {}, "network": {}}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exactly_a_word_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        lease.decode(REFUSED[name].encode())


def test_the_whole_fence_is_one_transaction() -> None:
    ours = "ether saddr & ff:ff:ff:00:00:00 == 02:fa:10:00:00:00"
    assert fence.laid(DEVICE, {MAC: 2.0, "02:fa:10:00:00:02": 0.05}, before=BRIDGE).splitlines() == [
        "add table bridge failover",
        "delete table bridge failover",
        "add table netdev failover",
        "delete table netdev failover",
        "add table netdev failover",
        "add set netdev failover held { type ether_addr; flags timeout; }",
        'add chain netdev failover vservers { type filter hook egress device "eth0" priority 0; policy accept; }',
        f"add rule netdev failover vservers {ours} ether saddr != @held drop",
        "add element netdev failover held { 02:fa:10:00:00:01 timeout 1900ms }",
    ]


def test_a_renewal_gives_an_element_new_time_whether_it_is_there_or_not() -> None:
    element = "{ 02:fa:10:00:00:01 timeout 1900ms }"
    assert fence.refreshed(BRIDGE, {MAC: 2.0}).splitlines() == [
        f"add element bridge failover held {element}",
        "delete element bridge failover held { 02:fa:10:00:00:01 }",
        f"add element bridge failover held {element}",
    ]


# --- a guard with real processes --------------------------------------------------------------------------------------


class Vserver:
    """A cgroup as a vserver has it, with a process in it that writes the time for as long as it runs."""

    def __init__(self, directory: Path, name: str, *, late: bool = False) -> None:
        self.name = f"{directory.name}-{name}"
        self.group = cgroup.of(self.name)
        self._beats = directory / f"{name}.beats"
        cgroup.create(self.name)
        program = (
            "import os, time\n"
            f"open({str(cgroup.payload(self.name) / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            f"file = open({str(self._beats)!r}, 'w', 1)\n"
            "while True:\n"
            "    file.write(f'{time.clock_gettime(time.CLOCK_BOOTTIME)}\\n')\n"
            "    time.sleep(0.002)\n"
        )
        self._process = subprocess.Popen([sys.executable, "-I", "-S", "-c", program])
        assert late or eventually(self.beats)

    def beats(self) -> list[float]:
        return [float(line) for line in self._beats.read_text().split("\n")[:-1]] if self._beats.exists() else []

    @property
    def frozen(self) -> bool:
        return cgroup.frozen(self.group)

    def goes_on(self) -> bool:
        before = len(self.beats())
        return eventually(lambda: len(self.beats()) > before)

    def close(self) -> None:
        cgroup.kill(self.group)
        self._process.wait()
        cgroup.remove(self.name)


class Guard:
    def __init__(self, netns: Path, directory: Path) -> None:
        self.netns, self.directory = netns, directory
        self.socket = directory / "guard.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "guard.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *arguments: str, path: Path | None = None) -> None:
        self.socket.unlink(missing_ok=True)
        argv = ["/usr/bin/nsenter", f"--net={self.netns}", sys.executable, "-m", "agents.guard"]
        argv += ["--directory", str(self.directory), *arguments]
        env = os.environ | ({"PATH": str(path)} if path else {})
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stderr=log, env=env)
        assert eventually(self.socket.exists), self.log.read_text()

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        return self._process.wait(timeout=30)

    def hold(self, seconds: float, *vservers: Vserver | str, form: Network = DEVICE) -> float:
        """Until when, boot time."""
        names = [vserver if isinstance(vserver, str) else vserver.name for vserver in vservers]
        until = boot_time() + seconds
        assert self.says(until, {name: network.mac_of(name) for name in names}, form), self.log.read_text()
        return until

    def says(self, until: float, macs: dict[str, str], form: Network = DEVICE) -> bool:
        return inside(self.netns, lambda: lease.hold(until, macs, form, socket=self.socket, timeout_s=10))

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)


@pytest.fixture
def wires() -> Iterator[Wires]:
    made = Wires()
    yield made
    made.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="guard-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def guard(wires: Wires, directory: Path) -> Iterator[Guard]:
    made = Guard(wires.host("alpha"), directory)
    yield made
    made.close()


@pytest.fixture
def v1(directory: Path) -> Iterator[Vserver]:
    made = Vserver(directory, "v1")
    yield made
    made.close()


@pytest.fixture
def v2(directory: Path) -> Iterator[Vserver]:
    made = Vserver(directory, "v2")
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
def test_a_start_that_was_under_way_at_the_end_is_frozen_when_it_appears(guard: Guard, directory: Path) -> None:
    guard.start()
    guard.hold(0.2, f"{directory.name}-v3")
    time.sleep(0.4)
    late = Vserver(directory, "v3", late=True)
    try:
        assert eventually(lambda: late.frozen)
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
    assert v1.frozen, "before it listens"
    guard.end(signal.SIGKILL)
    guard.start()
    guard.hold(30, v1)
    assert v1.goes_on()


@pytest.mark.needs("root", "nft")
def test_a_guard_that_is_told_to_end_leaves_all_as_it_is(guard: Guard, v1: Vserver, wires: Wires) -> None:
    guard.start()
    guard.hold(30, v1)
    assert guard.end(signal.SIGTERM) == 0
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


@pytest.mark.needs("root", "nft")
def test_without_a_fence_nothing_is_held(guard: Guard, v1: Vserver) -> None:
    guard.start(path=guard.directory)  # where there is no nft
    assert not guard.says(boot_time() + 30, {v1.name: network.mac_of(v1.name)})
    assert "nft cannot be started" in guard.log.read_text()


@pytest.mark.needs("root")
def test_without_a_guard_nothing_is_held(directory: Path) -> None:
    assert not lease.hold(boot_time() + 1, {}, DEVICE, socket=directory / "guard.sock")
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    silent.bind(str(directory / "guard.sock"))
    assert not lease.alive(socket=directory / "guard.sock")
    silent.close()


@pytest.mark.needs("root", "nft")
def test_there_is_one_guard(guard: Guard) -> None:
    guard.start()
    argv = [sys.executable, "-m", "agents.guard", "--directory", str(guard.directory)]
    second = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert second.returncode == 4 and "another guard" in second.stderr


# --- the fence --------------------------------------------------------------------------------------------------------


class Fenced:
    """A guarded host whose vserver a peer can reach."""

    def __init__(self, wires: Wires, directory: Path, form: Network) -> None:
        self.form, self.run = form, directory / "run"
        self.guard = Guard(wires.host("alpha", bridge=form.bridge is not None), directory)
        self.peer = wires.host("peer", "10.9.0.1/24", "fd09::1/64")
        for name, last in (("v1", 101), ("v2", 102)):
            addresses = (f"10.9.0.{last}/24", f"fd09::{last}/64")
            inside(
                self.guard.netns,
                lambda name=name, to=addresses: network.prepare(name, form, to, None, run=self.run),  # type: ignore[misc]
            )
            network.up(name, run=self.run)

    def reach(self, last: int, timeout_s: float = 1.0) -> set[bool]:
        return {answers(self.peer, f"{prefix}{last}", timeout_s) for prefix in ("10.9.0.", "fd09::")}

    def close(self) -> None:
        self.guard.close()
        for name in network.prepared(run=self.run):
            inside(self.guard.netns, lambda name=name: network.remove(name, run=self.run))  # type: ignore[misc]


@pytest.fixture
def fenced(wires: Wires, directory: Path, form: Network) -> Iterator[Fenced]:
    made = Fenced(wires, directory, form)
    yield made
    made.close()


@pytest.mark.needs("root", "nft")
@FORMS
def test_the_fence_lets_pass_what_is_held_and_nothing_else(fenced: Fenced) -> None:
    fenced.guard.start()
    assert fenced.reach(101) == fenced.reach(102) == {True}
    fenced.guard.hold(30, "v1", form=fenced.form)
    assert fenced.reach(101) == {True}
    assert fenced.reach(102, timeout_s=0.2) == {False}
    fenced.guard.hold(30, "v1", "v2", form=fenced.form)
    assert fenced.reach(101) == fenced.reach(102) == {True}


@pytest.mark.needs("root", "nft")
@FORMS
def test_the_fence_closes_by_itself_while_the_guard_does_not_run(fenced: Fenced) -> None:
    fenced.guard.start()
    fenced.guard.hold(30, "v2", form=fenced.form)
    until = fenced.guard.hold(1.0, "v1", "v2", form=fenced.form)
    os.kill(fenced.guard.pid, signal.SIGSTOP)
    assert fenced.reach(101) == {True}
    assert eventually(lambda: boot_time() > until)
    assert fenced.reach(101, timeout_s=0.2) == fenced.reach(102, timeout_s=0.2) == {False}
    os.kill(fenced.guard.pid, signal.SIGCONT)
    fenced.guard.hold(30, "v1", form=fenced.form)
    assert fenced.reach(101) == {True}
    assert fenced.reach(102, timeout_s=0.2) == {False}


@pytest.mark.needs("root", "nft")
@FORMS
def test_a_fence_that_somebody_flushed_is_laid_anew_by_the_next_renewal(fenced: Fenced) -> None:
    fenced.guard.start()
    fenced.guard.hold(30, "v1", form=fenced.form)
    subprocess.run(["nsenter", f"--net={fenced.guard.netns}", "nft", "flush", "ruleset"], check=True)
    assert fenced.reach(102) == {True}
    fenced.guard.hold(30, "v1", form=fenced.form)
    assert fenced.reach(101) == {True}
    assert fenced.reach(102, timeout_s=0.2) == {False}


@pytest.mark.needs("root", "nft")
@FORMS
def test_a_new_guard_keeps_the_fence_of_what_was_withdrawn_open_until_its_end(fenced: Fenced) -> None:
    fenced.guard.start()
    fenced.guard.hold(30, "v1", "v2", form=fenced.form)
    fenced.guard.end(signal.SIGKILL)
    fenced.guard.start()
    fenced.guard.hold(30, "v1", form=fenced.form)
    assert fenced.reach(101) == fenced.reach(102) == {True}


# --- the agent --------------------------------------------------------------------------------------------------------

TALKS = "while True: alive(socket=Path(sys.argv[1]) / 'guard.sock'); time.sleep(0.05)"
DIES = "alive(socket=Path(sys.argv[1]) / 'guard.sock'); sys.exit(3)"
FALLS_SILENT = "alive(socket=Path(sys.argv[1]) / 'guard.sock'); time.sleep(1000)"
NEVER_SPEAKS = "time.sleep(1000)"
WILL_NOT_END = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{TALKS}"


class Agents:
    """The agents that a guard has started so far; each writes its number down."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._numbers = guard, guard.directory / "agents"

    def command(self, life: str) -> str:
        program = self._guard.directory / "agent.py"
        program.write_text(
            "import os, signal, sys, time\nfrom pathlib import Path\nfrom agents.lease import alive\n"
            f"with open({str(self._numbers)!r}, 'a') as file: file.write(f'{{os.getpid()}}\\n')\n{life}\n"
        )
        return f"env PYTHONPATH={Path.cwd()} {sys.executable} {program} {self._guard.directory}"

    def started(self) -> list[int]:
        return [int(line) for line in self._numbers.read_text().split()] if self._numbers.exists() else []

    def living(self) -> list[int]:
        return [pid for pid in self.started() if _lives(pid)]

    def close(self) -> None:
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def agents(guard: Guard) -> Iterator[Agents]:
    made = Agents(guard)
    yield made
    guard.close()
    made.close()


@pytest.mark.needs("root")
def test_an_agent_that_is_killed_is_started_again(guard: Guard, agents: Agents) -> None:
    guard.start("--agent", agents.command(TALKS))
    assert eventually(agents.living)
    os.kill(agents.living()[0], signal.SIGKILL)
    assert eventually(lambda: len(agents.started()) == 2 and len(agents.living()) == 1)


@pytest.mark.needs("root")
def test_an_agent_that_keeps_dying_is_started_more_and_more_slowly(guard: Guard, agents: Agents) -> None:
    guard.start("--agent", agents.command(DIES))
    assert eventually(lambda: len(agents.started()) >= 4)
    assert guard.log.read_text().count("exit code 3") >= 3


@pytest.mark.needs("root")
@pytest.mark.parametrize("life", [FALLS_SILENT, NEVER_SPEAKS], ids=["later", "from the start"])
def test_an_agent_that_is_silent_is_killed_and_started_again(guard: Guard, agents: Agents, life: str) -> None:
    guard.start("--agent", agents.command(life), "--agent-silence", "0.5")
    assert eventually(lambda: len(agents.started()) >= 2)
    assert len(agents.living()) <= 1
    assert "silent" in guard.log.read_text()


@pytest.mark.needs("root")
def test_an_agent_that_talks_is_left_alone_also_when_the_guard_did_not_run(guard: Guard, agents: Agents) -> None:
    guard.start("--agent", agents.command(TALKS), "--agent-silence", "1")
    assert eventually(agents.living)
    time.sleep(0.5)
    os.kill(guard.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(guard.pid, signal.SIGCONT)
    time.sleep(1.5)
    assert len(agents.started()) == 1 and agents.living() == agents.started()


@pytest.mark.needs("root")
def test_the_next_guard_adopts_the_agent_and_never_starts_a_second(guard: Guard, agents: Agents) -> None:
    command = agents.command(TALKS)
    guard.start("--agent", command, "--agent-silence", "1")
    assert eventually(agents.living)
    for _ in range(2):
        guard.end(signal.SIGKILL)
        guard.start("--agent", command, "--agent-silence", "1")
    time.sleep(1.5)
    assert len(agents.started()) == 1 and agents.living() == agents.started()
    os.kill(agents.living()[0], signal.SIGKILL)
    assert eventually(lambda: len(agents.started()) == 2 and len(agents.living()) == 1)


@pytest.mark.needs("root")
def test_a_number_that_another_process_has_now_is_not_adopted(guard: Guard, agents: Agents) -> None:
    (guard.directory / "agent.json").write_text(json.dumps({"pid": os.getpid(), "started": 1}))
    guard.start("--agent", agents.command(TALKS))
    assert eventually(agents.living)


@pytest.mark.needs("root")
@pytest.mark.parametrize("life", [TALKS, WILL_NOT_END], ids=["willingly", "or is killed"])
def test_a_guard_that_is_told_to_end_ends_its_agent(guard: Guard, agents: Agents, life: str) -> None:
    guard.start("--agent", agents.command(life), "--agent-silence", "1")
    assert eventually(agents.living)
    time.sleep(0.3)
    assert guard.end(signal.SIGTERM) == 0
    assert agents.living() == [] and len(agents.started()) == 1


@pytest.mark.needs("root")
def test_an_agent_that_cannot_be_started_does_not_end_the_guard(guard: Guard, v1: Vserver) -> None:
    guard.start("--agent", "/nonexistent/agent --host alpha")
    guard.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    assert "cannot be started" in guard.log.read_text()
