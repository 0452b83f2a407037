"""The `vserver` command as a person uses it, on a small host: namespaces with a /vservers and /run of their own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agents.isolation import cgroup

pytestmark = pytest.mark.needs("root", "busybox")

ROOT = Path(__file__).parent.parent
HOST = """
set -e
mount -t tmpfs none /vservers && mount -t tmpfs none /run && mount -t tmpfs none /var/cache
mkdir /var/cache/failover
ip link set lo up && ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0 && ip link set br0 up
echo ready
exec sleep infinity
"""


@dataclass
class Host:
    """`name`: a vserver's, that no other test uses."""

    pid: int
    name: str = field(default_factory=lambda: f"cmd{secrets.token_hex(4)}")

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    def argv(self, *words: str, python: tuple[str, ...] = ("-m", "failover.cli.vserver")) -> list[str]:
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--"]
        return [*inside, sys.executable, *python, self.name, *words]

    def vserver(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*words), cwd=ROOT, capture_output=True, text=True, input=stdin, check=False)

    def done(self, *words: str, stdin: str = "") -> str:
        done = self.vserver(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self) -> str:
        return str(json.loads(self.vserver("status", "--json").stdout)["state"])

    def manage(self, owner: str) -> None:
        told = {"host": "alpha", "assignments": {self.name: {"owner": owner, "epoch": 3, "source": None}}}
        (self.root / "run/failover").mkdir()
        (self.root / "run/failover/told.json").write_text(json.dumps(told))


@contextmanager
def small_host() -> Iterator[Host]:
    Path("/vservers").mkdir(mode=0o700, exist_ok=True)  # stays: to remove it would unmount it in other namespaces
    argv = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "sh", "-c", HOST]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n"
        host = Host(int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()))
        try:
            yield host
        finally:
            cgroup.kill(cgroup.of(host.name))
            os.kill(host.pid, signal.SIGKILL)  # its first process: all others go with it
    cgroup.wait_empty(cgroup.of(host.name), 10)
    cgroup.remove(host.name)


@pytest.fixture
def host() -> Iterator[Host]:
    with small_host() as host:
        yield host


@pytest.fixture
def built(host: Host) -> Host:
    host.done("build", "-m", "busybox")
    return host


@pytest.fixture(scope="module")
def still() -> Iterator[Host]:
    """One for all tests in which nothing comes about: a vserver that is built, and another that is not."""
    with small_host() as host:
        host.done("build", "-m", "busybox")
        yield host


# --- a life -----------------------------------------------------------------------------------------------------------


def test_build_start_look_restart_stop(host: Host) -> None:
    assert f"/vservers/{host.name} is ready" in host.done("build", "-m", "busybox")
    stopped = host.vserver("status")
    assert (stopped.returncode, stopped.stdout) == (3, f"{host.name} is stopped\n")

    assert f"{host.name} is running" in host.done("start")  # and the spawner with it
    first = json.loads(host.done("status", "--json"))
    assert first["state"] == "running" and first["init"] == ["/sbin/init"] and first["pid"] > 1
    assert host.done("exec", "--", "hostname") == f"{host.name}\n"

    assert f"{host.name} is running" in host.done("restart")
    assert json.loads(host.done("status", "--json"))["pid"] != first["pid"]

    assert "it was stopped" in host.done("stop")
    assert host.vserver("status").returncode == 3
    assert f"{host.name} is stopped" in host.done("stop")  # once more is no error


def test_start_twice_is_start(built: Host) -> None:
    built.done("start")
    pid = json.loads(built.done("status", "--json"))["pid"]
    built.done("start")
    assert json.loads(built.done("status", "--json"))["pid"] == pid


def test_without_an_address_it_has_a_network_of_its_own_with_lo(built: Host) -> None:
    built.done("start")
    links = [line.split()[1] for line in built.done("exec", "ip", "-o", "link").splitlines()]
    assert links == ["lo:"]
    assert "UP" in built.done("exec", "ip", "link", "show", "lo")


def test_its_address_answers_through_a_restart_and_goes_with_a_stop(built: Host) -> None:
    built.done(
        "start", "--address", "10.99.0.2/24", "--address", "fd99::2/64", "--bridge", "br0", "--gateway", "10.99.0.1"
    )
    assert fetched(built) == f"{built.name}\n"
    built.done("restart")
    assert fetched(built) == f"{built.name}\n"
    assert "default via 10.99.0.1" in built.done("exec", "ip", "route")
    built.done("stop")
    assert not (built.root / f"run/vserver/{built.name}/netns").exists()
    links = subprocess.check_output(["nsenter", f"--target={built.pid}", "--net", "ip", "-o", "link"], text=True)
    assert [line.split()[1] for line in links.splitlines()] == ["lo:", "br0:"]


def fetched(host: Host) -> str:
    """What its web server says, asked from the host; it may take a moment to come up."""
    argv = ["nsenter", f"--target={host.pid}", "--net", "busybox", "wget", "-q", "-O", "-", "http://10.99.0.2/"]
    for _ in range(100):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.05)
    raise AssertionError(done.stderr)


# --- going in ---------------------------------------------------------------------------------------------------------


def test_exec_carries_input_output_and_exit_code(built: Host) -> None:
    built.done("start")
    assert built.done("exec", "--", "tr", "a-z", "A-Z", stdin="hello") == "HELLO"
    done = built.vserver("exec", "sh", "-c", 'echo "$@" >&2; exit 7', "--", "-x", "--", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "-x -- --json\n")
    assert built.done("exec", "-u", "nobody", "id", "-u") == "65534\n"
    assert built.vserver("exec", "nosuch").returncode == 127


def test_enter_is_a_shell_on_a_terminal_of_the_vserver(built: Host) -> None:
    built.done("start")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        built.argv("enter"), cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as shell:
        os.close(theirs)
        os.write(ours, b"echo on $(tty) of $(hostname); exit 5\n")
        said = b""
        with suppress(OSError):  # the terminal's end
            while data := os.read(ours, 4096):
                said += data
    os.close(ours)
    assert shell.returncode == 5
    assert f"on /dev/pts/1 of {built.name}".encode() in said or f"on /dev/pts/0 of {built.name}".encode() in said


def test_enter_reads_a_script_from_a_pipe(built: Host) -> None:
    built.done("start")
    assert built.done("enter", stdin="hostname\npwd\n") == f"{built.name}\n/root\n"


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[tuple[str, ...], int, str, str]] = {
    "a second tree": (("build", "-m", "busybox"), 4, "exists already", "choose another name"),
    "a tar without a file": (("build", "-m", "tar"), 2, "-m tar needs a FILE", "build -m tar FILE"),
    "a tar that is not there": (("build", "-m", "tar", "/no.tar"), 4, "exists already", ""),
    "packages for busybox": (("build", "-m", "busybox", "--packages", "x"), 2, "--packages goes with -m debian", ""),
    "a file for busybox": (("build", "-m", "busybox", "x.tar"), 2, "nothing else takes one", "-m tar"),
    "a package that is an option": (("build", "--packages=--hook"), 2, "no name of a Debian suite or package", ""),
    "an address without a place": (("start", "--address", "10.99.0.2/24"), 2, "where shall", "--bridge br0"),
    "a place without an address": (("start", "--bridge", "br0"), 2, "without an address", "--address"),
    "an address that is none": (("start", "--address", "1.2.3", "--bridge", "br0"), 2, "1.2.3", "write addresses like"),
    "a bridge that is not there": (("start", "--address", "10.9.9.9/24", "--bridge", "no"), 4, "no bridge no", ""),
    "a program in what does not run": (("exec", "true"), 4, "does not run", "start"),
    "no program": (("exec", "--"), 2, "exec needs a program", "enter"),
    "a command that is none": (("explode",), 2, "invalid choice", ""),
    "a timeout that is none": (("stop", "--timeout", "soon"), 2, "invalid", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(still: Host, case: str) -> None:
    argv, code, says, hint = REFUSED[case]
    done = still.vserver(*argv)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and hint in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (still.root / f"run/vserver/{still.name}/netns").exists()


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["start"], ["stop"], ["restart"], ["exec", "true"]]
)
def test_what_is_not_there_is_said(still: Host, words: list[str]) -> None:
    done = Host(still.pid, "none").vserver(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vserver: there is no vserver none on this host\n  make one: vserver none build\n"


@pytest.mark.parametrize("name", ["../etc", "a b", ".x", "x" * 64])
def test_a_name_that_is_none(still: Host, name: str) -> None:
    for words in (("status",), ("build", "-m", "busybox"), ("start",)):
        done = Host(still.pid, name).vserver(*words)
        assert done.returncode == 2 and "is no name of a vserver" in done.stderr


# Becomes an ordinary user once all is imported: this Python may lie where only root can read.
ORDINARY = """
import json, os, shutil, subprocess, sys
from agents.isolation import vserver
from failover.cli.vserver import main
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["status"], ["stop"], ["restart"], ["exec", "true"], ["enter"]])
def test_an_ordinary_user_is_told_in_one_line(still: Host, words: list[str]) -> None:
    argv = still.argv(*words, python=("-c", ORDINARY))
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, ""), done.stderr
    assert "Permission denied\n  only root" in done.stderr and done.stderr.count("\n") == 2


def test_a_file_that_cannot_be_read_is_told_in_one_line(host: Host) -> None:
    (host.root / "run/failover/told.json").mkdir(parents=True)
    done = host.vserver("start")
    assert (done.returncode, done.stderr) == (1, "vserver: /run/failover/told.json: Is a directory\n")


# --- on a managed host ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
def test_what_the_cluster_manages_is_left_to_it(built: Host, command: str) -> None:
    built.manage(owner="alpha")
    done = built.vserver(command)
    assert done.returncode == 4 and f"the cluster manages {built.name}" in done.stderr
    hint = f"failover stop {built.name} && failover start" if command == "restart" else f"failover {command}"
    assert f"{hint} {built.name}\n" in done.stderr


def test_force_is_obeyed_on_a_managed_host(built: Host) -> None:
    built.done("start")
    built.manage(owner="alpha")
    assert f"{built.name} is stopped" in built.done("stop", "--force")


def test_a_tree_is_not_built_where_it_would_be_overwritten(host: Host) -> None:
    host.manage(owner="beta")
    done = host.vserver("build", "-m", "busybox")
    assert done.returncode == 4 and f"{host.name} belongs to beta" in done.stderr
    host.done("build", "-m", "busybox", "--force")


# --- ended from outside -----------------------------------------------------------------------------------------------


def test_a_build_that_is_terminated_leaves_nothing(host: Host) -> None:
    cache = os.open(host.root / "var/cache/failover", os.O_RDONLY)
    fcntl.flock(cache, fcntl.LOCK_EX)  # so that it waits
    with subprocess.Popen(host.argv("build"), cwd=ROOT, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert "waiting" in build.stdout.readline()
        assert len(list((host.root / "vservers").iterdir())) == 1
        (python,) = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
        os.kill(int(python), signal.SIGTERM)
    os.close(cache)
    assert build.returncode == 128 + signal.SIGTERM
    assert list((host.root / "vservers").iterdir()) == []


def test_help_loads_nothing_heavy() -> None:
    heavy = {"pyroute2", "kazoo", "yaml", "paramiko", "prctl", "pyseccomp", "ctypes", "agents"}
    shown = f"vserver.parser().format_help(); print({heavy} & set(sys.modules))"
    code = f"import sys; from failover.cli import vserver; {shown}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
