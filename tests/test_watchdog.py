"""The watchdog is fed while all that is over stands still, and never otherwise. Claim S15."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import watchdog
from agents.watchdog import AGAIN_S, FOOD, OFF, TIMEOUT_S, Watchdog
from failover.boot import boot_time
from failover.errors import FailoverError, Refused
from tests.guarded import Guard, Stuck, Vserver, guarded
from tests.watched import Device, Driver, device
from tests.wires import eventually

# --- in a test's own process, with a stand-in -------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Device]:
    with device(tmp_path / "device") as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def begun(fifo: Device, monkeypatch: pytest.MonkeyPatch, driver: Driver | None = None) -> Watchdog:
    monkeypatch.setattr(watchdog, "ioctl", (driver or Driver(most_s=60)).ioctl)
    return Watchdog(fifo.path, TIMEOUT_S, fifo.path.parent)


def test_it_is_fed_at_most_a_third_of_its_timeout_apart(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    made, pauses, fed_at = begun(fifo, monkeypatch), [], clock[0]
    for _ in range(400):
        made.tend(list)
        if fifo.fed():
            pauses.append(clock[0] - fed_at)
            fed_at = clock[0]
        clock[0] += max(0.001, min(0.25, made.wait_s()))
    assert len(pauses) > 10 and pauses[0] == 0.0
    assert max(pauses) < TIMEOUT_S / 3
    assert set(fifo.eaten) == set(FOOD)


def test_it_is_starved_while_something_runs_whose_lease_is_over(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    made = begun(fifo, monkeypatch)
    made.tend(list)
    assert fifo.fed() == 1
    for _ in range(100):
        clock[0] += max(AGAIN_S, made.wait_s())
        made.tend(lambda: ["v1", "v2"])
    assert fifo.fed() == 0
    assert [text for text in caplog.messages if "v1, v2: the lease is over, and it is not frozen" in text] == [
        "the watchdog is not fed, and resets this machine in 11.0 s: v1, v2: the lease is over, and it is not frozen"
    ], "it is said once"
    made.tend(list)
    clock[0] += AGAIN_S
    made.tend(list)
    assert fifo.fed() == 1 and "the watchdog is fed again" in caplog.text


def test_what_is_asked_is_asked_only_when_it_is_time_to_feed(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    made, asked = begun(fifo, monkeypatch), []
    for _ in range(100):
        made.tend(lambda: asked.append(clock[0]) or [])  # type: ignore[func-returns-value]
        clock[0] += 0.05
    assert len(asked) == 2


def test_a_device_that_takes_nothing_is_said_and_ends_nothing(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    made = begun(fifo, monkeypatch)
    fifo.close()
    for _ in range(10):
        clock[0] += AGAIN_S
        made.tend(list)
    assert caplog.text.count("the watchdog is not fed") == 1 and "Broken pipe" in caplog.text
    fifo._reader = os.open(os.devnull, os.O_RDONLY)


REFUSED = {
    "no timeout": (Driver(), "device is no watchdog that says its timeout: Inappropriate ioctl for device"),
    "one that is fixed and too long": (
        Driver(fixed_s=60), "device has a timeout of 60 s, not 15 s: --watchdog-seconds 60",
    ),
    "one that is fixed and too short": (
        Driver(fixed_s=2), "device has a timeout of 2 s, not 15 s: it must be 5 s at least",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("driver", "said"), REFUSED.values(), ids=REFUSED)
def test_a_device_whose_timeout_cannot_be_used_is_refused_and_off(
    driver: Driver, said: str, fifo: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused) as refused:
        begun(fifo, monkeypatch, driver)
    assert str(refused.value).endswith(said) and "\n" not in str(refused.value)
    assert fifo.off and not (fifo.path.parent / watchdog.FILE).exists()


def test_a_timeout_that_is_fixed_and_a_little_shorter_is_taken(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    made = begun(fifo, monkeypatch, Driver(fixed_s=10))
    made.tend(list)
    assert made.wait_s() == 10 / watchdog.FEEDS


def test_a_device_that_ends_with_the_guard_is_warned_of(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(fifo, monkeypatch, Driver(most_s=60, options=0))
    assert "stops when the guard is killed" in caplog.text


def test_who_leaves_in_order_switches_it_off_and_who_is_followed_does_not(
    fifo: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(fifo, monkeypatch).leave(followed=True)
    assert fifo.fed() == 0, "something may run whose lease is over"
    begun(fifo, monkeypatch).leave()
    assert fifo.off


def test_the_next_guard_switches_it_off_when_it_has_none(
    fifo: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(fifo, monkeypatch).leave(followed=True)
    made = Watchdog(None, TIMEOUT_S, fifo.path.parent)
    assert fifo.off and "is switched off" in caplog.text
    made.tend(lambda: pytest.fail("nobody asks"))
    assert made.wait_s() == float("inf")
    made.leave()
    caplog.clear()
    Watchdog(None, TIMEOUT_S, fifo.path.parent)
    assert not caplog.messages, "once"


def test_one_that_is_in_use_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> int:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(FailoverError, match=r"^/dev/watchdog cannot be used .* busy: .*RuntimeWatchdogSec"):
        Watchdog(Path("/dev/watchdog"), TIMEOUT_S, tmp_path)


# --- a guard with real processes --------------------------------------------------------------------------------------


@pytest.fixture
def guard() -> Iterator[Guard]:
    with guarded() as made:
        yield made


@pytest.fixture
def eater(guard: Guard) -> Iterator[Device]:
    with device(guard.directory / "device") as made:
        yield made


@pytest.fixture
def v1(guard: Guard) -> Iterator[Vserver]:
    made = Vserver(guard.directory, "v1")
    yield made
    made.close()


def watched(guard: Guard, eater: Device) -> None:
    guard.start("--watchdog", str(eater.path), module="tests.watched")
    assert eventually(eater.fed)


@pytest.mark.needs("root", "nft")
def test_s15_it_is_fed_before_and_after_an_end_that_is_enforced(guard: Guard, eater: Device, v1: Vserver) -> None:
    watched(guard, eater)
    guard.hold(1.0, v1)
    assert eventually(lambda: v1.frozen)
    eater.fed()
    time.sleep(1.5)
    assert eater.fed() >= 3
    assert "the watchdog is not fed" not in guard.log.read_text()


@pytest.mark.needs("root", "nft", "fuse")
def test_s15_it_is_starved_while_a_process_in_an_uninterruptible_call_cannot_be_frozen(
    guard: Guard, eater: Device, v1: Vserver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched(guard, eater)
    with Stuck(v1) as stuck:
        guard.hold(0.5, v1)
        assert eventually(lambda: "the watchdog is not fed" in guard.log.read_text())
        assert not v1.frozen, "a process of it hangs in the kernel"
        eater.fed()
        time.sleep(1.5)
        assert eater.fed() == 0
        said = guard.log.read_text()
        assert "resets this machine in 1" in said and f"{v1.name}: the lease is over, and it is not frozen" in said
        stuck.answer()
        assert eventually(lambda: v1.frozen)
        assert eventually(eater.fed)
    assert "the watchdog is fed again" in guard.log.read_text()


@pytest.mark.needs("root", "nft")
def test_s15_it_is_starved_while_the_guard_hangs(guard: Guard, eater: Device) -> None:
    watched(guard, eater)
    os.kill(guard.pid, signal.SIGSTOP)
    time.sleep(0.2)
    eater.fed()
    time.sleep(1.0)
    assert eater.fed() == 0
    os.kill(guard.pid, signal.SIGCONT)
    assert eventually(eater.fed)


@pytest.mark.needs("root", "nft")
def test_a_guard_that_leaves_for_good_switches_it_off_once_all_is_frozen(
    guard: Guard, eater: Device, v1: Vserver
) -> None:
    watched(guard, eater)
    guard.hold(0.5, v1)
    assert guard.end(signal.SIGTERM) == 0
    assert v1.frozen and eater.off


@pytest.mark.needs("root", "nft")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1], ids=["who dies", "who has a successor"])
def test_s15_it_is_left_running_by(guard: Guard, eater: Device, v1: Vserver, number: signal.Signals) -> None:
    watched(guard, eater)
    guard.hold(30, v1)
    guard.end(number)
    eater.fed()
    assert OFF not in eater.eaten
    watched(guard, eater)
    assert OFF not in eater.eaten and v1.goes_on()


@pytest.mark.needs("root", "nft")
def test_a_guard_that_cannot_have_it_freezes_what_is_overdue_and_says_why(guard: Guard, v1: Vserver) -> None:
    guard.start()
    until = guard.hold(0.3, v1)
    guard.end(signal.SIGKILL)
    assert eventually(lambda: boot_time() > until)
    argv = [sys.executable, "-m", "agents.guard", "--directory", str(guard.directory), "--watchdog", "/dev/null"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == Refused.exit_code
    assert done.stderr.splitlines()[-1].startswith("/dev/null is no watchdog that says its timeout")
    assert v1.frozen
