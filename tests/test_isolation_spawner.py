"""The spawner: vservers outlive it, a hanging child does not hold it up, and only root is heard."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation import cgroup, record, vserver
from agents.isolation.console import LOG_BYTES
from agents.isolation.order import ASK_S, StartOrder, ask, connect, failure, raise_failure, receive, send, to_message
from agents.isolation.record import Ended
from agents.isolation.vserver import Settings, execute
from failover.boot import boot_time
from failover.errors import Denied, Refused, Unreachable
from failover.model import State
from tests import trees
from tests.trees import busybox_tree, start_spawner, unique, wait_until

pytestmark = pytest.mark.needs("root", "busybox")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "run").mkdir(mode=0o700)
    yield tmp_path / "run"
    trees.clear(tmp_path / "run")


def cut_down(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_a_vserver_outlives_it_and_the_next_one_takes_over(run: Path) -> None:
    name = unique()
    first = start_spawner(run)
    started = vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    cut_down(first)
    assert vserver.status(name, run=run) == started
    vserver.freeze(name)
    assert vserver.status(name, run=run).state is State.FROZEN
    vserver.thaw(name)
    second = start_spawner(run)
    try:
        assert execute(name, ["hostname"], run=run).stdout.decode().strip() == name
        assert vserver.start(Settings(name, run.parent / name), run=run) == started
        assert vserver.stop(name, run=run).ended is Ended.STOPPED
        assert vserver.start(Settings(name, run.parent / name), run=run).pid != started.pid
    finally:
        cut_down(second)


def test_the_console_of_a_chatterbox_outlives_it(run: Path) -> None:
    name = unique()
    first = start_spawner(run)
    tree = busybox_tree(run.parent / name, "i=0; while :; do i=$((i+1)); echo $i > /count; echo $i; sleep 0.02; done")
    vserver.start(Settings(name, tree), run=run)
    wait_until((tree / "count").exists, "it counts")
    cut_down(first)
    counted = (tree / "count").read_text().strip()
    log = run / name / "console.log"
    wait_until(lambda: int(log.read_text().split()[-1]) > int(counted or 0) + 5, "it counts on, on its console")


def test_a_console_is_logged_to_the_last_word_and_bounded(run: Path) -> None:
    name = unique()
    with trees.spawner(run):
        tree = busybox_tree(run.parent / name, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last word; exit 0")
        vserver.start(Settings(name, tree), run=run)
        log = run / name / "console.log"
        wait_until(lambda: said(log).endswith(b"last word\r\n"), "the last word")
        assert sum(file.stat().st_size for file in (run / name).glob("console.log*")) < 3 * LOG_BYTES


def said(log: Path) -> bytes:
    try:
        return log.read_bytes()
    except FileNotFoundError:  # not begun, or just moved away because it was full
        return b""


def test_a_keeper_that_was_killed_is_replaced(run: Path) -> None:
    with trees.spawner(run) as process:
        (keeper,) = children(process)
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: not children(process), "the spawner has noticed")
        name = unique()
        vserver.start(Settings(name, busybox_tree(run.parent / name, "echo hello; " + trees.IDLE)), run=run)
        log = run / name / "console.log"
        wait_until(lambda: log.exists() and "hello" in log.read_text(), "the new one logs")


def test_the_keeper_ends_with_its_spawner_and_the_last_vserver(run: Path) -> None:
    process = start_spawner(run)
    (keeper,) = children(process)
    name = unique()
    vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    cut_down(process)
    assert trees.alive(keeper)
    vserver.kill(name, run=run)
    wait_until(lambda: not trees.alive(keeper), "it has ended")


def children(process: subprocess.Popen[bytes]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_stopping_works_without_it(run: Path, end: str) -> None:
    name = unique()
    first = start_spawner(run)
    vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    cut_down(first)
    ended = vserver.stop(name, run=run) if end == "stop" else vserver.kill(name, run=run)
    assert ended.state is State.STOPPED
    assert ended.ended is (Ended.STOPPED if end == "stop" else Ended.KILLED)
    assert not cgroup.of(name).exists()


def test_how_it_ended_is_known_although_another_spawner_had_started_it(run: Path) -> None:
    """The kernel remembers the status for those who hold a pidfd."""
    name = unique()
    first = start_spawner(run)
    tree = busybox_tree(run.parent / name, "while [ ! -e /end ]; do sleep 0.1; done; exit 3")
    vserver.start(Settings(name, tree), run=run)
    cut_down(first)
    second = start_spawner(run)
    try:
        (tree / "end").touch()
        wait_until(lambda: not cgroup.of(name).exists(), "it has ended and is cleared away")
        ended = vserver.status(name, run=run)
        assert ended.ended in (Ended.CRASHED, Ended.UNKNOWN)
        if ended.ended is Ended.CRASHED:
            assert ended.because == "its init ended with exit code 3"
    finally:
        cut_down(second)


def test_what_ended_while_nobody_watched_is_stopped(run: Path) -> None:
    name = unique()
    first = start_spawner(run)
    tree = busybox_tree(run.parent / name, "while [ ! -e /end ]; do sleep 0.1; done")
    vserver.start(Settings(name, tree), run=run)
    cut_down(first)
    (tree / "end").touch()
    wait_until(lambda: vserver.status(name, run=run).state is State.STOPPED, "it has ended")
    assert vserver.status(name, run=run).because == "it ended while nobody watched"
    (tree / "end").unlink()
    second = start_spawner(run)
    try:
        assert vserver.start(Settings(name, tree), run=run).state is State.RUNNING
    finally:
        cut_down(second)


def test_without_it_a_start_says_so(run: Path) -> None:
    name = unique()
    with pytest.raises(Unreachable) as unreachable:
        vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    assert unreachable.value.message == f"the spawner does not answer on {run / 'spawner.sock'}"
    assert unreachable.value.hint and unreachable.value.exit_code == 5
    assert vserver.status(name, run=run).state is State.STOPPED


def test_a_start_that_takes_too_long_is_killed_and_leaves_nothing(run: Path) -> None:
    name = unique()
    with trees.spawner(run, "--birth-timeout", "0"):
        with pytest.raises(Refused, match="not done within 0 s"):
            vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
        assert vserver.status(name, run=run).state is State.STOPPED
        wait_until(lambda: not cgroup.of(name).exists(), "no cgroup is left")
        assert vserver.spawner_answers(run)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.005, 0.01, 0.02])
def test_killed_in_the_middle_of_a_start_it_leaves_a_vserver_that_is_known_or_none(run: Path, after_s: float) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name)
    first = start_spawner(run)
    timer = threading.Timer(after_s, first.kill)
    timer.start()
    try:
        vserver.start(Settings(name, tree), run=run)
    except Unreachable:
        pass
    finally:
        timer.join()
        first.wait()
    second = start_spawner(run)
    try:
        if cgroup.populated(cgroup.of(name)):  # it may still be dying; what stays is known
            wait_until(lambda: vserver.status(name, run=run).pid or not cgroup.populated(cgroup.of(name)), "known")
        assert vserver.start(Settings(name, tree), run=run).state is State.RUNNING
        assert execute(name, ["true"], run=run).returncode == 0
        vserver.stop(name, run=run)
        assert not cgroup.of(name).exists()
    finally:
        cut_down(second)


def test_a_record_of_another_process_or_boot_is_not_believed(run: Path) -> None:
    """A pid is soon somebody else's: only all four facts together name a process."""
    name = unique()
    with trees.spawner(run):
        vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
        file = run / name / "state.json"
        true = json.loads(file.read_text())
        for key, wrong in {"pid": os.getpid(), "started": 1, "namespace": 1, "boot": "x"}.items():
            file.write_text(json.dumps(true | {key: wrong}))
            status = vserver.status(name, run=run)
            assert (status.state, status.pid) == (State.RUNNING, None), key
        file.write_text("{")
        assert vserver.status(name, run=run).state is State.RUNNING
        with pytest.raises(Refused, match="has processes already"):
            raise_start(run, name)
        assert vserver.stop(name, run=run).state is State.STOPPED
        assert vserver.start(Settings(name, run.parent / name), run=run).state is State.RUNNING


def raise_start(run: Path, name: str) -> None:
    """Ask the spawner itself, past the question whether it runs."""
    answer, _, connection = ask(run, start_order(run, name, boot_time() + ASK_S))
    connection.close()
    raise_failure(name, answer)


def start_order(run: Path, name: str, until: float) -> StartOrder:
    return StartOrder(name, str(run.parent / name), name, ("/sbin/init",), "other", "fresh", until)


def test_there_is_only_one(run: Path) -> None:
    with trees.spawner(run):
        argv = [sys.executable, "-I", "-m", "agents.isolation.spawner", "--socket", str(run / record.SOCKET)]
        second = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 4 and "serves" in second.stderr and vserver.spawner_answers(run)


NONSENSE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"x" * 100_000,
    b'{"order": "dance"}',
    b'{"order": "start"}',
    b'{"order": "start", "x": 1}',
    b'{"order": "execute", "name": 7, "argv": 7}',
    b'{"order": "start", "name": "../x", "tree": "", "hostname": "", "init": [], "kind": "", "network": "fresh"}',
    b'{"order": "start", "name": "x", "tree": 7, "hostname": 7, "init": [7], "kind": 7, "network": "given"}',
)


def test_nonsense_does_not_hurt_it(run: Path) -> None:
    with trees.spawner(run):
        for data in NONSENSE:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(str(run / record.SOCKET))
                connection.send(data)
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        silent.connect(str(run / record.SOCKET))
        assert vserver.spawner_answers(run)
        silent.close()
        assert vserver.spawner_answers(run)


def test_it_is_not_heard_by_others_than_root(run: Path) -> None:
    with trees.spawner(run):
        assert (run.stat().st_mode & 0o777, (run / record.SOCKET).stat().st_mode & 0o777) == (0o700, 0o600)
        os.seteuid(65534)
        try:
            with pytest.raises((Denied, Unreachable)):
                vserver.start(Settings(unique(), Path("/")), run=run)
        except PermissionError:
            pass  # not even the directory could be looked into
        finally:
            os.seteuid(0)


def test_it_holds_nothing_of_what_has_ended(run: Path) -> None:
    name = unique()
    with trees.spawner(run) as process:
        tree = busybox_tree(run.parent / name)

        def descriptors() -> int:
            return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))

        before = descriptors()
        for _ in range(3):
            vserver.start(Settings(name, tree), run=run)
            execute(name, ["true"], run=run)
            execute(name, ["no-such-program"], run=run)
            vserver.stop(name, run=run)
        (tree / "proc").rmdir()
        (tree / "proc").symlink_to("dev")
        with pytest.raises(Refused):
            vserver.start(Settings(name, tree), run=run)
        wait_until(lambda: descriptors() == before, f"{before} descriptors again")
        assert len(children(process)) == 1, "no zombie is left beside the keeper"


def test_a_term_ends_it_and_no_vserver(run: Path) -> None:
    name = unique()
    process = start_spawner(run)
    vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert vserver.status(name, run=run).state is State.RUNNING


# --- too late ---------------------------------------------------------------------------------------------------------

BEGAN = f"echo > /began; {trees.IDLE}"


def test_an_order_whose_client_has_given_up_is_not_done(run: Path) -> None:
    """It waits in the socket as long as the spawner does not look, and is there when it looks again."""
    name = unique()
    tree = busybox_tree(run.parent / name, BEGAN)
    with trees.spawner(run) as process:
        process.send_signal(signal.SIGSTOP)
        with connect(run, 20) as client:
            send(client, to_message(start_order(run, name, boot_time() + 0.1)))
        time.sleep(0.2)
        process.send_signal(signal.SIGCONT)
        assert vserver.spawner_answers(run)  # it takes up one order after the other
        assert vserver.status(name, run=run) == vserver.Status(name, State.STOPPED)
        assert not cgroup.of(name).exists() and not (tree / "began").exists()


def test_what_may_not_run_any_more_is_not_started(run: Path) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name, BEGAN)
    with trees.spawner(run):
        with pytest.raises(Refused, match="s earlier or not at all") as refused:
            vserver.start(Settings(name, tree, until=boot_time()), run=run)
        assert refused.value.hint and vserver.status(name, run=run).state is State.STOPPED
        assert vserver.start(Settings(name, tree, until=boot_time() + 60), run=run).state is State.RUNNING


SLOW_MOUNTS = """
import time
perform = rootfs.perform
def slowly(root):
    time.sleep(1)
    return perform(root)
rootfs.perform = slowly
"""


def test_a_start_whose_time_ends_on_the_way_gets_to_no_exec(run: Path) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name, BEGAN)
    with changed_spawner(run, SLOW_MOUNTS):
        with pytest.raises(Refused, match="s earlier or not at all"):
            vserver.start(Settings(name, tree, until=boot_time() + 0.8), run=run)
        assert vserver.status(name, run=run).state is State.STOPPED and not (tree / "began").exists()
        wait_until(lambda: not cgroup.of(name).exists(), "no cgroup is left")


@contextlib.contextmanager
def changed_spawner(run: Path, change: str) -> Iterator[None]:
    code = f"import sys\nfrom agents.isolation import rootfs, spawner, syscalls\n{change}\nsys.exit(spawner.main())"
    argv = [sys.executable, "-c", code, "--socket", str(run / record.SOCKET)]
    with subprocess.Popen(argv, cwd=Path(__file__).parent.parent, start_new_session=True) as process:
        try:
            wait_until(lambda: vserver.spawner_answers(run), "the spawner answers")
            yield
        finally:
            trees.clear(run)
            process.kill()


UNTIL = {
    "the end of its right, if that comes first": (1.0, 1.0),
    "when its client gives up, if that comes first": (1000.0, ASK_S),
}


@pytest.mark.parametrize("case", UNTIL)
def test_a_start_may_be_done_until(run: Path, case: str) -> None:
    right_s, expected_s = UNTIL[case]
    heard: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(run / record.SOCKET))
        listener.listen()

        def refuse() -> None:
            client, _ = listener.accept()
            with client:
                message, _ = receive(client)
                heard.append((message or {})["until"])
                send(client, failure(Refused("no")))

        thread = threading.Thread(target=refuse)
        thread.start()
        name, before = unique(), boot_time()
        with pytest.raises(Refused, match="no"):
            vserver.start(Settings(name, busybox_tree(run.parent / name), until=before + right_s), run=run)
        thread.join()
    assert before + expected_s <= heard[0] <= (before if right_s < ASK_S else boot_time()) + expected_s


# --- where cgroup2 is delegated by namespaces -------------------------------------------------------------------------

# The option nsdelegate is the whole machine's, so a test may not set it. Its rule (cgroup_attach_permissions in the
# kernel) is kept here instead: who is outside the root of its cgroup namespace may not go to another cgroup.
NSDELEGATE = """
import os
clone, setns, own = syscalls.clone, syscalls.setns, []
def entering(descriptor, flags):
    if flags & syscalls.CLONE_NEWCGROUP:
        own.append(os.open("/proc/self/cgroup", os.O_RDONLY))  # the kernel writes it anew, as seen by who reads
    setns(descriptor, flags)
def cloning(flags, *, cgroup=None, exit_signal=0):
    if own and b"0::/.." in os.pread(own[0], 8192, 0):
        raise OSError(2, "outside of its cgroup namespace")
    return clone(flags, cgroup=cgroup, exit_signal=exit_signal)
syscalls.setns, syscalls.clone = entering, cloning
"""


def test_programs_get_in_where_a_namespace_is_a_border_of_cgroups(run: Path) -> None:
    name = unique()
    with changed_spawner(run, NSDELEGATE):
        vserver.start(Settings(name, busybox_tree(run.parent / name)), run=run)
        done = execute(name, ["cat", "/proc/self/cgroup"], run=run)
        assert {line.split(":")[2] for line in done.stdout.decode().split()} == {"/"}
