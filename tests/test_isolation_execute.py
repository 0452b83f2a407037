"""Running programs inside: exit codes, input and output, users, terminals, time limits."""

from __future__ import annotations

import os
import pty
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation import cgroup, vserver
from agents.isolation.vserver import Settings, execute
from failover.errors import BadInput, Refused
from tests import trees
from tests.trees import busybox_tree, script, unique

pytestmark = pytest.mark.needs("root", "busybox")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("execute") / "run"
    with trees.spawner(run):
        yield run


@pytest.fixture(scope="module")
def name(run: Path) -> str:
    name = unique()
    tree = busybox_tree(run.parent / name)
    script(tree / "bin/plain", "exit 0")
    (tree / "bin/plain").chmod(0o644)
    script(tree / "bin/strange", "exit 0")
    (tree / "bin/strange").write_text("#!/no/such/interpreter\n")
    vserver.start(Settings(name, tree), run=run)
    return name


CODES = {
    "success": (("true",), 0),
    "failure": (("false",), 1),
    "any code": (("sh", "-c", "exit 42"), 42),
    "not found": (("no-such-program",), 127),
    "not found by its path": (("/no/such/program",), 127),
    "a missing interpreter": (("strange",), 127),
    "not executable": (("plain",), 126),
    "not executable by its path": (("/bin/plain",), 126),
    "a directory": (("/etc",), 126),
    "died of SIGKILL": (("sh", "-c", "kill -9 $$"), 137),
    "died of SIGTERM": (("sh", "-c", "kill $$"), 143),
}


@pytest.mark.parametrize("case", CODES)
def test_exit_codes_are_a_shells(run: Path, name: str, case: str) -> None:
    argv, code = CODES[case]
    done = execute(name, argv, run=run, timeout_s=20)
    assert done.returncode == code
    assert (code in (126, 127)) == (argv[0].encode() in done.stderr)


def test_output_and_errors_come_apart_and_in_full(run: Path, name: str) -> None:
    done = execute(name, ["sh", "-c", "echo out; echo err >&2; head -c 1000000 /dev/zero"], run=run)
    assert done.stdout == b"out\n" + bytes(1_000_000) and done.stderr == b"err\n"


def test_bytes_go_in(run: Path, name: str) -> None:
    data = os.urandom(3_000_000)
    assert execute(name, ["cat"], stdin=data, run=run).stdout == data


def test_a_file_goes_in_and_out_without_getting_in_itself(run: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(data := os.urandom(1_000_000))
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        script = "for n in 0 1; do readlink /proc/$$/fd/$n >&2; done; cat"
        done = execute(name, ["sh", "-c", script], stdin=source.fileno(), stdout=target.fileno(), run=run)
    assert (tmp_path / "out").read_bytes() == data
    assert [line.split(b":")[0] for line in done.stderr.split()] == [b"pipe", b"pipe"]


def test_a_program_that_does_not_read_keeps_nobody_waiting(run: Path, name: str) -> None:
    with Path("/dev/zero").open("rb") as endless:
        assert execute(name, ["true"], stdin=endless.fileno(), run=run, timeout_s=20).returncode == 0


def test_a_child_in_the_background_keeps_nobody_waiting_and_lives_on(run: Path, name: str) -> None:
    began = time.monotonic()
    done = execute(name, ["sh", "-c", "setsid sleep 4321 & echo started"], run=run)
    assert done.stdout == b"started\n" and time.monotonic() - began < 60
    assert b"4321" in execute(name, ["ps"], run=run).stdout
    execute(name, ["killall", "sleep"], run=run)


def test_what_takes_too_long_is_killed(run: Path, name: str) -> None:
    assert execute(name, ["sh", "-c", "sleep 5432; true"], run=run, timeout_s=0.3).returncode == 124
    trees.wait_until(lambda: b"5432" not in execute(name, ["ps"], run=run).stdout, "it is gone")


def test_a_user_by_name(run: Path, name: str) -> None:
    script = "id; pwd; echo $HOME $USER $SHELL; grep CapEff /proc/self/status"
    lines = execute(name, ["sh", "-c", script], user="www", run=run).stdout.decode().splitlines()
    assert lines == [
        "uid=33(www) gid=33(www) groups=8(mail),33(www)", "/var", "/var www /bin/sh", "CapEff:\t" + "0" * 16,
    ]  # fmt: skip


def test_an_unknown_user_is_refused(run: Path, name: str) -> None:
    with pytest.raises(Refused, match="there is no user 'nobody-here'"):
        execute(name, ["true"], user="nobody-here", run=run)


@pytest.mark.parametrize("kind", ["fifo", "directory", "link to the host"])
def test_a_strange_passwd_does_no_harm(run: Path, kind: str) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name)
    (tree / "etc/passwd").unlink()
    if kind == "fifo":
        os.mkfifo(tree / "etc/passwd")
    elif kind == "directory":
        (tree / "etc/passwd").mkdir()
    else:
        (tree / "etc/passwd").symlink_to("../../../../../../../../etc/passwd")
    vserver.start(Settings(name, tree), run=run)
    assert execute(name, ["true"], run=run).returncode == 0
    with pytest.raises(Refused, match="there is no user 'daemon'"):
        execute(name, ["true"], user="daemon", run=run)
    vserver.kill(name, run=run)


def test_the_environment_comes_from_nothing_but_what_is_given(run: Path, name: str) -> None:
    os.environ["SECRET_OF_THE_HOST"] = "1"
    try:
        found = execute(name, ["env"], environment={"COLOUR": "blue"}, run=run).stdout.decode()
    finally:
        del os.environ["SECRET_OF_THE_HOST"]
    keys = {line.split("=")[0] for line in found.splitlines()}
    assert keys == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLOUR"}


def test_it_counts_as_the_vservers_own(run: Path, name: str) -> None:
    """Its processes are in the cgroups that freeze and kill take, and in every namespace of the init."""
    script = "for n in pid mnt uts ipc net cgroup; do readlink /proc/$1/ns/$n; done"
    mine = execute(name, ["sh", "-c", script, "x", "self"], run=run).stdout
    assert mine and mine == execute(name, ["sh", "-c", script, "x", "1"], run=run).stdout
    before = set(cgroup.processes(cgroup.payload(name)))
    thread = threading.Thread(target=execute, args=(name, ["sleep", "1234"]), kwargs={"run": run, "timeout_s": 5})
    thread.start()
    trees.wait_until(lambda: set(cgroup.processes(cgroup.payload(name))) - before, "it is in the cgroup")
    new = (set(cgroup.processes(cgroup.payload(name))) - before).pop()
    for directory in cgroup.legacy(name):
        assert str(new) in (directory / "cgroup.procs").read_text().split()
    execute(name, ["killall", "sleep"], run=run)
    thread.join()


def test_what_does_not_run_or_is_frozen_is_refused(run: Path) -> None:
    name = unique()
    with pytest.raises(Refused, match="does not run"):
        execute(name, ["true"], run=run)
    vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    vserver.freeze(name)
    with pytest.raises(Refused, match="is frozen"):
        execute(name, ["true"], run=run)
    vserver.kill(name, run=run)


def test_the_end_of_the_vserver_ends_it(run: Path) -> None:
    name = unique()
    vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    codes: list[int] = []
    script = ["sh", "-c", "echo > /here; sleep 1000; true"]
    thread = threading.Thread(target=lambda: codes.append(execute(name, script, run=run).returncode))
    thread.start()
    trees.wait_until((run.parent / name / "here").exists, "it runs")
    vserver.kill(name, run=run)
    thread.join(20)
    assert codes == [137]


def test_a_terminal_is_the_vservers_own(run: Path, name: str) -> None:
    master, slave = pty.openpty()
    codes: list[int] = []

    def talk() -> None:
        codes.append(execute(name, [], stdin=slave, stdout=slave, tty=True, run=run, timeout_s=60).returncode)

    thread = threading.Thread(target=talk)
    thread.start()
    heard = b""
    while b"#" not in heard:  # its prompt
        heard += os.read(master, 65536)
    os.write(master, b"tty; echo $((6*7)); exit 5\n")
    while thread.is_alive() or select.select([master], [], [], 0.2)[0]:
        if select.select([master], [], [], 0.1)[0]:
            heard += os.read(master, 65536)
    os.close(master)
    os.close(slave)
    assert codes == [5]
    assert b"/dev/pts/" in heard and b"42" in heard


def test_a_terminal_needs_somebody_at_it(run: Path, name: str) -> None:
    with pytest.raises(BadInput, match="a terminal needs"):
        execute(name, [], tty=True, run=run)
