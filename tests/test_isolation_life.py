"""A vserver's life on the real kernel: start, stop, freeze, kill, end by itself; and that nothing is left of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation import cgroup, vserver
from agents.isolation.record import Ended
from agents.isolation.vserver import Settings
from failover.errors import BadInput, Refused
from failover.model import State
from tests import trees
from tests.trees import busybox_tree, unique, wait_until

pytestmark = pytest.mark.needs("root", "busybox")

COUNT = "i=0; while :; do i=$((i+1)); echo $i > /count; done"
DEAF = "while :; do sleep 1; done"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    with trees.spawner(tmp_path / "run"):
        yield tmp_path / "run"


def start(run: Path, init: str = trees.IDLE, **settings: object) -> str:
    name = unique()
    tree = busybox_tree(run.parent / name, init)
    vserver.start(Settings(name, tree, **settings), run=run)  # type: ignore[arg-type]
    return name


def leftovers(name: str) -> list[str]:
    found = [str(path) for path in (*cgroup.legacy(name), cgroup.of(name)) if path.exists()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{name}" in (process / "cgroup").read_text():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_start_stop_start_again_and_nothing_is_left(run: Path) -> None:
    name = start(run)
    first = vserver.status(name, run=run)
    assert first.state is State.RUNNING and first.pid and first.init == ("/sbin/init",)
    stopped = vserver.stop(name, run=run)
    assert (stopped.state, stopped.ended, stopped.because) == (State.STOPPED, Ended.STOPPED, "it was stopped")
    wait_until(lambda: not leftovers(name), "nothing is left")
    again = vserver.start(Settings(name, run.parent / name), run=run)
    assert again.state is State.RUNNING and again.pid != first.pid and again.because == ""


def test_starting_what_runs_and_stopping_what_is_stopped_are_successes(run: Path) -> None:
    name = start(run)
    first = vserver.status(name, run=run)
    assert vserver.start(Settings(name, run.parent / name), run=run) == first
    vserver.stop(name, run=run)
    assert vserver.stop(name, run=run).state is State.STOPPED
    assert vserver.kill(name, run=run).state is State.STOPPED


def test_what_never_ran_is_stopped(run: Path) -> None:
    name = unique()
    assert vserver.status(name, run=run) == vserver.Status(name, State.STOPPED)
    assert vserver.stop(name, run=run) == vserver.Status(name, State.STOPPED)


def test_an_init_that_does_not_listen_is_killed(run: Path) -> None:
    name = start(run, DEAF)
    ended = vserver.stop(name, timeout_s=0.3, run=run)
    assert ended.ended is Ended.KILLED and "killed" in ended.because
    assert not leftovers(name)


def test_an_init_that_does_not_end_in_time_is_killed(run: Path) -> None:
    name = start(run, "trap : TERM; while :; do sleep 1 & wait $!; done")
    ended = vserver.stop(name, timeout_s=0.3, run=run)
    assert ended.because == "it did not stop within 0.3 s, so it was killed"


ENDINGS = {
    "exit 0 is a stop": ("exit 0", Ended.STOPPED, "its init ended"),
    "another exit code is a crash": ("exit 3", Ended.CRASHED, "its init ended with exit code 3"),
    "a power-off from inside is a stop": ("poweroff -f", Ended.STOPPED, "it was powered off from inside"),
    "a halt from inside is a stop": ("halt -f", Ended.STOPPED, "it was powered off from inside"),
    "a reboot from inside asks for a restart": ("reboot -f", Ended.RESTART, "it was rebooted from inside"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_how_it_ended_is_told(run: Path, case: str) -> None:
    init, ended, because = ENDINGS[case]
    name = start(run, f"sleep 0.2; {init}")
    wait_until(lambda: vserver.status(name, run=run).ended not in (None, Ended.UNKNOWN), "it has ended")
    status = vserver.status(name, run=run)
    assert (status.state, status.ended, status.because) == (State.STOPPED, ended, because)
    wait_until(lambda: not leftovers(name), "nothing is left")


def test_a_frozen_one_stands_still_until_it_is_thawed(run: Path) -> None:
    name = start(run, COUNT)
    counter = run.parent / name / "count"
    wait_until(lambda: counter.exists() and counter.read_text().strip(), "it counts")
    vserver.freeze(name)
    vserver.freeze(name)
    frozen = counter.read_text()
    assert vserver.status(name, run=run).state is State.FROZEN
    time.sleep(0.1)
    assert counter.read_text() == frozen
    vserver.thaw(name)
    assert vserver.status(name, run=run).state is State.RUNNING
    wait_until(lambda: counter.read_text() not in ("", frozen), "it counts on")


@pytest.mark.parametrize("end", [vserver.kill, vserver.stop])
def test_a_frozen_one_dies_without_another_step(run: Path, end: object) -> None:
    name = start(run, COUNT)
    counter = run.parent / name / "count"
    wait_until(lambda: counter.exists() and counter.read_text().strip(), "it counts")
    vserver.freeze(name)
    frozen = counter.read_text()
    assert callable(end)
    assert end(name, run=run).ended is Ended.KILLED
    assert counter.read_text() == frozen
    wait_until(lambda: not leftovers(name), "nothing is left")
    assert vserver.start(Settings(name, run.parent / name), run=run).state is State.RUNNING


def test_a_start_leaves_a_frozen_one_frozen(run: Path) -> None:
    name = start(run)
    vserver.freeze(name)
    assert vserver.start(Settings(name, run.parent / name), run=run).state is State.FROZEN


def test_freezing_what_does_not_run_is_refused(run: Path) -> None:
    with pytest.raises(Refused, match="does not run"):
        vserver.freeze(unique())


def test_a_fork_bomb_is_killed_like_anything_else(run: Path) -> None:
    name = start(run, "n=0; while [ $n -lt 200 ]; do (sleep 1000 & sleep 1000) & n=$((n+1)); done; wait")
    wait_until(lambda: len(cgroup.processes(cgroup.of(name))) > 150, "it has forked")
    vserver.kill(name, run=run)
    assert not leftovers(name)


def test_many_start_and_stop_at_once(run: Path) -> None:
    names = [unique() for _ in range(6)]
    for name in names:
        busybox_tree(run.parent / name)
    failed: list[BaseException] = []

    def live(name: str) -> None:
        try:
            for _ in range(3):
                vserver.start(Settings(name, run.parent / name), run=run)
                vserver.stop(name, run=run)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=live, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    wait_until(lambda: not any(leftovers(name) for name in names), "nothing is left")


def test_a_cgroup_that_goes_while_it_is_killed_is_nothing_to_kill(tmp_path: Path) -> None:
    path = cgroup.create(unique()).parent
    opened = os.open(path / "cgroup.kill", os.O_RDWR)
    (tmp_path / "cgroup.kill").symlink_to(f"/proc/self/fd/{opened}")
    cgroup.remove(path.name)
    try:
        cgroup.kill(tmp_path)
    finally:
        os.close(opened)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a\nb", "x" * 64, "spawner.sock"])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput):
        vserver.status(name, run=tmp_path)
