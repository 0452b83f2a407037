"""The lab itself: real hosts on one machine, their faults, and that nothing of them is left."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.command import CommandFailed
from failover.errors import BadInput, Refused
from failover.lab import faults
from failover.lab.lab import Lab
from failover.lab.play import play
from failover.lab.probe import Probe
from failover.lab.watch import Watch
from tests.lab.conftest import left_of

QUIET = ("sshd",)
NEEDS = pytest.mark.needs("root", "nft", "btrfs", "sshd")
CAN_CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], 22), 0.4).close()"
HEARS = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); s.settimeout(float(sys.argv[1]))
print("bound", flush=True)
try: print(s.recv(9).decode())
except TimeoutError: print("nothing")
"""
SAYS = "import socket,sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'word', (sys.argv[1], 9))"

pytestmark = [NEEDS, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two quiet hosts that the tests share; each test leaves them powered and joined."""
    lab = Lab(f"t{os.getpid()}-shared")
    lab.up(2, services=QUIET, disk="512M")
    yield lab
    lab.down()
    assert left_of(lab.place.name) == []


def command(*words: str, name: str = "lab") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "failover", "lab", words[0], "--name", name, *words[1:]]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def connects(lab: Lab, source: str, target: str) -> bool:
    address = lab.host(target).addresses[0].partition("/")[0]
    return lab.exec(source, [sys.executable, "-c", CAN_CONNECT, address], expect=(0, 1)).returncode == 0


def hears(lab: Lab, source: str, target: str) -> bool:
    """Whether a datagram gets from one host to another."""
    listener = subprocess.Popen(
        lab.host(target).command([sys.executable, "-c", HEARS, "1.5"]), stdout=subprocess.PIPE, text=True
    )
    with listener:
        assert listener.stdout is not None and listener.stdout.readline() == "bound\n"
        lab.exec(source, [sys.executable, "-c", SAYS, lab.host(target).addresses[0].partition("/")[0]])
        return listener.stdout.read().strip() == "word"


def awaited(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# --- up and down


def test_a_lab_comes_and_goes_twice_and_leaves_nothing(lab_named: Callable[[str], Lab]) -> None:
    lab = lab_named("twice")
    for _ in range(2):
        lab.up(1, services=QUIET, disk="256M")
        assert awaited(lambda: connects(lab, "client", "hostA"))
        lab.down()
        assert left_of(lab.place.name) == []
    lab.down()


def test_two_labs_with_the_same_addresses_never_meet(lab_named: Callable[[str], Lab], lab: Lab) -> None:
    other = lab_named("other")
    other.up(1, services=QUIET, disk="256M")
    for one in (lab, other):
        one.exec("hostA", ["sh", "-c", f"echo {one.place.name} > /run/whose"])
    lab.isolate("hostA")
    assert awaited(lambda: connects(other, "client", "hostA"))
    assert not connects(lab, "client", "hostA")
    lab.join("hostA")
    other.down()
    assert awaited(lambda: connects(lab, "client", "hostA"))
    assert lab.exec("hostA", ["cat", "/run/whose"]).stdout.decode().strip() == lab.place.name


@pytest.mark.parametrize("after_s", [0.05, 0.25, 0.45, 0.7])
def test_an_up_that_was_killed_is_followed_by_one_that_works(lab_named: Callable[[str], Lab], after_s: float) -> None:
    name = lab_named("killed").place.name
    argv = [sys.executable, "-m", "failover", "lab", "up", "--name", name, "--hosts", "2", "--services", "sshd"]
    process = subprocess.Popen(argv)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    Lab(name).down()
    assert left_of(name) == []
    process = subprocess.Popen(argv)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lab = Lab(name)
    if lab.is_up:
        lab.down()
    lab.up(2, services=QUIET, disk="256M")
    assert awaited(lambda: connects(lab, "hostA", "hostB"))


def test_an_up_that_fails_leaves_nothing(lab_named: Callable[[str], Lab]) -> None:
    lab = lab_named("small")
    with pytest.raises(CommandFailed, match=r"mkfs\.btrfs"):
        lab.up(1, services=QUIET, disk="1M")
    assert left_of(lab.place.name) == [] and lab.hosts == {}


def test_a_lab_that_is_up_is_not_brought_up_again(lab: Lab) -> None:
    with pytest.raises(Refused, match="is up: failover lab down"):
        Lab(lab.place.name).up(2, services=QUIET)
    assert all(host.powered for host in lab.hosts.values())


def test_a_cluster_file_names_the_hosts(lab_named: Callable[[str], Lab], tmp_path: Path) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text(
        "cluster: ours\nzookeeper: {servers: ['10.77.0.7:2181']}\n"
        "hosts: {left: {address: 10.77.0.7}, right: {address: 10.77.0.8}}\n"
        "vservers: {v1: {primary: left, backups: [right], addresses: [10.77.1.1/16]}}\n"
    )
    lab = lab_named("config")
    lab.up(config=config, services=QUIET, disk="256M")
    assert lab.real_hosts == ["left", "right"]
    assert lab.exec("right", ["cat", "/etc/failover/cluster.yaml"]).stdout.decode() == config.read_text()
    assert awaited(lambda: connects(lab, "left", "right"))


@pytest.mark.parametrize("described", ["", '{"hosts": {', "[]", "{}", '{"hosts": 7}', "\udcff"])
def test_a_lab_whose_description_is_broken_can_be_taken_down(lab_named: Callable[[str], Lab], described: str) -> None:
    place = lab_named("broken").place
    place.directory.mkdir(parents=True)
    place.description.write_text(described, errors="surrogateescape")
    assert command("exec", "hostA", "--", "true", name=place.name).returncode == Refused.exit_code
    assert command("status", name=place.name).returncode == 0
    assert command("down", name=place.name).returncode == 0
    assert left_of(place.name) == []


# --- hosts


def test_a_host_is_by_itself(lab: Lab) -> None:
    said = lab.exec("hostA", ["sh", "-c", "hostname; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; ls -A /vservers"])
    name, processes, first, *vservers = said.stdout.decode().split()
    assert name == "hostA" and int(processes) < 15 and first.startswith("python") and vservers == []
    lab.exec("hostA", ["sh", "-c", "echo mine > /etc/failover-lab-test"])
    assert not Path("/etc/failover-lab-test").exists()
    with pytest.raises(CommandFailed, match="Read-only"):
        lab.exec("hostA", ["touch", str(Path(__file__).parent / "never")])
    assert lab.exec("hostB", ["ls", "/etc/failover-lab-test"], expect=(2,))


def test_a_power_cut_takes_run_and_leaves_the_disk(lab: Lab) -> None:
    lab.exec("hostA", ["sh", "-c", "echo kept > /vservers/x; echo kept > /var/lib/failover/x; echo gone > /run/x"])
    sleeper = subprocess.Popen(
        lab.host("hostA").command(["sh", "-c", "echo word; sleep 100"]), stdout=subprocess.PIPE, text=True
    )
    assert sleeper.stdout is not None and sleeper.stdout.readline() == "word\n"
    before = time.monotonic()
    cut_at = lab.power_off("hostA")
    assert before <= cut_at <= time.monotonic()
    assert sleeper.wait(timeout=10) in (137, -signal.SIGKILL)
    assert "hostA" not in lab.switch.ports() and not lab.host("hostA").powered
    assert not connects(lab, "hostB", "hostA")
    with pytest.raises(Refused, match="hostA has no power already"):
        lab.power_off("hostA")
    with pytest.raises(Refused, match="hostA has no power"):
        lab.exec("hostA", ["true"])
    lab.power_on("hostA")
    said = lab.exec("hostA", ["sh", "-c", "cat /vservers/x /var/lib/failover/x; ls /run/x"], expect=(2,))
    assert said.stdout.decode().split() == ["kept", "kept"]
    assert awaited(lambda: connects(lab, "hostB", "hostA"))
    with pytest.raises(Refused, match="has power already"):
        lab.power_on("hostA")


def test_a_shutdown_is_orderly(lab: Lab) -> None:
    faults.perform(lab, "shutdown hostB")
    log = (lab.place.host("hostB") / "log/init.log").read_text()
    assert not lab.host("hostB").powered and "sshd ended with 0" in log
    lab.power_on("hostB")
    assert awaited(lambda: connects(lab, "hostA", "hostB"))


def test_a_service_that_dies_is_started_again_unless_it_is_held(lab: Lab) -> None:
    host = lab.host("hostA")
    assert awaited(lambda: host.service("sshd") is not None)
    first = host.service("sshd")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert awaited(lambda: host.service("sshd") not in (None, first) and connects(lab, "client", "hostA"))
    faults.stop_service(lab, "sshd", "hostA")
    time.sleep(1.5)
    assert not connects(lab, "client", "hostA")
    faults.start_service(lab, "sshd", "hostA")
    assert awaited(lambda: connects(lab, "client", "hostA"))


def test_a_boot_knows_nothing_of_the_services_of_the_last(lab: Lab) -> None:
    faults.stop_service(lab, "sshd", "hostA")
    lab.power_off("hostA")
    assert lab.host("hostA").missing() == ["sshd"]
    lab.power_on("hostA")
    lab.await_services(30)
    assert awaited(lambda: connects(lab, "client", "hostA"))


@pytest.mark.parametrize("code", [0, 7, 255])
def test_exec_hands_on_the_exit_code(lab: Lab, code: int) -> None:
    done = command("exec", "hostA", "--", "sh", "-c", f"echo word; exit {code}", name=lab.place.name)
    assert (done.returncode, done.stdout) == (code, "word\n")


def test_exec_leaves_nothing_running_when_its_time_is_over(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        lab.exec("hostA", ["sleep", "77"], timeout_s=0.5)
    assert awaited(lambda: b"sleep 77" not in lab.exec("hostA", ["ps", "-eo", "args"]).stdout)


# --- links


def test_a_host_that_is_isolated_reaches_nobody_until_it_joins(lab: Lab) -> None:
    lab.isolate("hostA")
    assert lab.exec("hostA", ["cat", "/sys/class/net/eth0/carrier"]).stdout == b"0\n"
    assert not connects(lab, "hostA", "hostB") and not connects(lab, "client", "hostA")
    assert awaited(lambda: connects(lab, "client", "hostB"))
    lab.join("hostA")
    assert awaited(lambda: connects(lab, "hostA", "hostB"))


def test_a_link_is_cut_both_ways_or_one_way(lab: Lab) -> None:
    assert hears(lab, "hostA", "hostB") and hears(lab, "hostB", "hostA")
    faults.perform(lab, "cut hostA -> hostB")
    assert not hears(lab, "hostA", "hostB") and hears(lab, "hostB", "hostA")
    assert awaited(lambda: connects(lab, "client", "hostA"))
    faults.perform(lab, "cut hostA hostB")
    assert not hears(lab, "hostA", "hostB") and not hears(lab, "hostB", "hostA")
    faults.perform(lab, "mend hostA hostB")
    assert hears(lab, "hostA", "hostB") and hears(lab, "hostB", "hostA")


def test_the_clients_can_be_cut_off(lab: Lab) -> None:
    faults.perform(lab, "cut hostA clients")
    assert not connects(lab, "client", "hostA") and awaited(lambda: connects(lab, "hostB", "hostA"))
    faults.perform(lab, "join hostA")
    assert awaited(lambda: connects(lab, "client", "hostA"))
    assert lab.switch.cuts() == set()


def test_a_stalled_host_does_nothing_and_goes_on(lab: Lab) -> None:
    counts = "import time\nfor _ in range(100): print(time.monotonic(), flush=True); time.sleep(0.01)"
    counter = subprocess.Popen(
        lab.host("hostA").command([sys.executable, "-c", counts]), stdout=subprocess.PIPE, text=True
    )
    assert counter.stdout is not None
    said = [float(counter.stdout.readline())]
    later = faults.begin(lab, "stall hostA 600ms")
    assert later is not None and later.after_s == 0.6
    with pytest.raises(Refused, match="hostA is stalled"):
        lab.exec("hostA", ["true"])
    time.sleep(later.after_s)
    later.do()
    said += [float(line) for line in counter.stdout]
    counter.wait(timeout=10)
    assert max(after - before for before, after in itertools.pairwise(said)) >= 0.5


def test_a_stalled_host_can_lose_its_power(lab: Lab) -> None:
    faults.begin(lab, "stall hostB 60s")
    lab.power_off("hostB")
    lab.power_on("hostB")
    assert awaited(lambda: connects(lab, "hostA", "hostB"))


def test_a_full_disk_takes_nothing_until_it_is_freed(lab: Lab) -> None:
    write = ["sh", "-c", "dd if=/dev/zero of=/vservers/more bs=1M count=30 conv=fsync"]
    faults.perform(lab, "disk-full hostA")
    with pytest.raises(CommandFailed, match="No space left"):
        lab.exec("hostA", write)
    lab.exec("hostB", write)
    faults.perform(lab, "disk-free hostA")
    lab.exec("hostA", write)


# --- the store


@pytest.mark.needs("java")
def test_the_store_survives_a_power_cut_and_a_cut_link(lab_named: Callable[[str], Lab]) -> None:
    lab = lab_named("store")
    lab.up(3, services=("sshd", "zookeeper"), disk="256M")
    lab.power_off("hostA")
    lab.await_store(60)
    lab.power_on("hostA")
    asks = [sys.executable, "-m", "failover.lab.quorum", "10.77.0.1"]
    assert awaited(lambda: lab.exec("hostA", asks, expect=(0, 1)).returncode == 0)
    faults.perform(lab, "cut hostA store")
    assert lab.exec("hostA", asks, expect=(0, 1)).returncode == 1
    assert lab.exec("hostB", asks, expect=(0, 1)).returncode == 0
    lab.power_off("hostA")
    lab.power_on("hostA")
    faults.perform(lab, "mend hostB store")
    assert lab.status()["cuts"] == ["hostA -> store", "store -> hostA"]
    assert "dport 2181 drop" in lab.exec("hostA", ["nft", "list", "ruleset"]).stdout.decode()
    faults.perform(lab, "join hostA")
    assert awaited(lambda: lab.exec("hostA", asks, expect=(0, 1)).returncode == 0)
    faults.perform(lab, "store-down")
    assert lab.exec("client", [*asks, "10.77.0.2", "10.77.0.3"], expect=(0, 1)).returncode == 1
    faults.perform(lab, "store-up")
    lab.await_store(60)


# --- observers


def test_the_probe_sees_when_an_address_is_away(lab: Lab) -> None:
    assert awaited(lambda: connects(lab, "client", "hostA"))
    with Probe(lab, "tcp://10.77.0.1:22") as probe:
        probe.await_answer()
        gone = lab.isolate("hostA")
        time.sleep(0.6)
        joined = time.monotonic()
        lab.join("hostA")
        back = probe.await_answer(after=joined)
        time.sleep(0.3)
    ((start, end),) = probe.outages()
    assert start <= gone + 0.25 and end >= joined and back >= joined
    assert probe.longest_outage(gone, back) == end - start
    assert probe.longest_outage(end + 0.01, end + 10) == 0.0
    assert {sample.what for sample in probe.samples if sample.answered} == {"connected"}


def test_the_probe_hears_what_is_answered(lab: Lab) -> None:
    serve = (
        "mkdir -p /run/www && cd /run/www && echo it works > index.html && exec timeout 20 python3 -m http.server 80"
    )
    server = subprocess.Popen(lab.host("hostA").command(["sh", "-c", serve]), stderr=subprocess.DEVNULL)
    with Probe(lab, "http://10.77.0.1/index.html") as probe:
        probe.await_answer()
        stop_at = time.monotonic()
        lab.power_off("hostA")
        assert server.wait(timeout=10) != 0
        time.sleep(0.4)
    lab.power_on("hostA")
    ((start, _),) = probe.outages()
    assert start < stop_at + 0.25
    assert {sample.what for sample in probe.samples if sample.answered} == {"200 it works"}
    assert probe.first_answer_after(stop_at + 0.25) is None


def test_the_watch_sees_a_second_host_that_runs_or_speaks(lab: Lab) -> None:
    run = 'mkdir -p "$0" && echo $$ > "$0/cgroup.procs" && exec sleep 100'
    speak = 'ip addr add 10.77.1.1/16 dev eth0 && timeout 1 python3 -c "$0" || true'
    word = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "s.bind(('10.77.1.1', 0)); s.sendto(b'', ('10.77.0.250', 9))"
    )
    processes = []
    with Watch(lab, "v9", addresses=["10.77.1.1/16"]) as watch:
        for host in ("hostA", "hostB"):
            assert watch.doubles() == []
            group = f"{lab.host(host).group.unified}".rpartition("failover-lab-")[0] + "vserver/v9/payload"
            processes.append(subprocess.Popen(lab.host(host).command(["sh", "-c", run, group])))
            lab.exec(host, ["sh", "-c", speak, word])
            lab.exec(host, ["ip", "addr", "del", "10.77.1.1/16", "dev", "eth0"])
        assert awaited(lambda: any(len(sight.runs) > 1 for sight in watch.doubles()))
        (lab.host("hostA").group.unified / "vserver/v9/cgroup.freeze").write_text("1")
        assert awaited(lambda: watch.sights[-1].runs == ("hostB",))
    assert {sight.speaks for sight in watch.sights} == {(), ("hostA",), ("hostB",)}
    assert watch.sights[-1].lost == 0
    for host in ("hostA", "hostB"):
        (lab.host(host).group.unified / "vserver/v9/cgroup.kill").write_text("1")
    for process in processes:
        process.wait(timeout=10)


# --- stories and commands


def test_a_story_is_played_in_its_own_time(lab: Lab, tmp_path: Path) -> None:
    story = tmp_path / "story.yaml"
    story.write_text("events: [{at: 200ms, do: [isolate hostB, stall hostA 300ms]}, {at: 1s, do: join hostB}]\n")
    said: list[str] = []
    began = time.monotonic()
    play(lab, story, said.append)
    assert time.monotonic() - began >= 1.0
    assert [line.split(" s  ")[1] for line in said] == [
        "isolate hostB",
        "stall hostA 300ms",
        "hostA goes on",
        "join hostB",
    ]
    assert lab.status()["hosts"]["hostB"]["link"] == "up"  # type: ignore[index]


BAD_EVENTS = {
    "a wall clock cannot jump": ("clock hostA +3s", "the lab cannot do 'clock hostA \\+3s'"),
    "an unknown host": ("isolate nosuch", "no host 'nosuch'.*one of hostA"),
    "a link has two ends": ("cut hostA hostA", "names no link"),
    "too few words": ("stall hostA", "it takes 2 to 2"),
    "no duration": ("stall hostA soon", "no duration: such as 500ms"),
    "no words": ("", "the lab cannot do ''"),
    "an open quote": ("isolate 'hostA", "is no event: No closing quotation"),
}


@pytest.mark.parametrize(("event", "says"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_a_bad_event_is_refused(lab: Lab, event: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        faults.perform(lab, event)


BAD_COMMANDS = {
    "an unknown host": (("exec", "nosuch", "--", "true"), 2, "the lab has no host 'nosuch'"),
    "power for who has it": (("power-on", "hostA"), 4, "hostA has power already"),
    "a story that is not there": (("play", "/nosuch.yaml"), 2, "/nosuch.yaml is not there"),
    "an unknown service": (("up", "--services", "nosuch"), 2, "a lab has no service 'nosuch'"),
    "no hosts": (("up", "--hosts", "0"), 2, "a lab has 1 to 26 hosts, not 0"),
    "a disk without a unit": (("up", "--disk", "4"), 2, "'4' is no size of a disk"),
}


@pytest.mark.parametrize(("words", "code", "says"), BAD_COMMANDS.values(), ids=BAD_COMMANDS.keys())
def test_bad_input_is_one_clear_line(lab: Lab, words: tuple[str, ...], code: int, says: str) -> None:
    done = command(*words, name=lab.place.name)
    assert done.returncode == code
    assert done.stderr.splitlines()[0] == f"failover: {says}" or says in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) <= 2


def test_commands_without_a_lab() -> None:
    assert command("exec", "hostA", "--", "true", name="nowhere").returncode == 4
    assert command("down", name="nowhere").returncode == 0
    assert command("status", name="No Name").returncode == 2


def test_status_is_for_people_and_for_programs(lab: Lab) -> None:
    said = json.loads(command("status", "--json", name=lab.place.name).stdout)
    assert said["hosts"]["hostA"]["power"] == "on" and said["up"] is True
    shown = command("status", name=lab.place.name).stdout
    assert "hostB" in shown and max(len(line) for line in shown.splitlines()) <= shutil.get_terminal_size().columns
