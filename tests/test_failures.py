"""What an agent remembers as a failure. A row is what it sees, look after look, and what it remembers then."""

from __future__ import annotations

import pytest

from agents.failures import Failures
from agents.isolation.record import Ended
from agents.isolation.vserver import Status
from agents.steps import FAILURES, Failure
from failover.model import State

RUNS = Status("v1", State.RUNNING, 7)
FROZEN = Status("v1", State.FROZEN, 7)
CRASHED = Status("v1", State.STOPPED, because="its init died of SIGKILL", ended=Ended.CRASHED)
OFF = Status("v1", State.STOPPED, because="it was powered off from inside", ended=Ended.STOPPED)
REBOOT = Status("v1", State.STOPPED, because="it was rebooted from inside", ended=Ended.RESTART)
LAPSED = Status("v1", State.STOPPED, because="without a word it was killed by the guard", ended=Ended.LAPSED)
OURS, NOT_OURS = 7, None

# name: ((seen, the epoch of our word or None) at 0 s, then one more after each 20 s; the failures)
CASES: dict[str, tuple[list[tuple[Status, int | None]], tuple[Failure, ...]]] = {
    "an end that nobody asked for": ([(RUNS, OURS), (CRASHED, OURS)], (Failure(7, 20.0, CRASHED.because),)),
    "a power-off from inside": ([(RUNS, OURS), (OFF, OURS)], (Failure(7, 20.0, OFF.because),)),
    "the end of what was frozen": ([(FROZEN, OURS), (CRASHED, OURS)], (Failure(7, 20.0, CRASHED.because),)),
    "a reboot from inside is none": ([(RUNS, OURS), (REBOOT, OURS)], ()),
    "nor is it one when the guard has killed what stood still": ([(FROZEN, OURS), (LAPSED, OURS)], ()),
    "it counts once": ([(RUNS, OURS), (CRASHED, OURS), (CRASHED, OURS)], (Failure(7, 20.0, CRASHED.because),)),
    "under the word at its end": ([(RUNS, 6), (RUNS, 7), (CRASHED, 7)], (Failure(7, 40.0, CRASHED.because),)),
    "what was never seen running has not failed": ([(CRASHED, OURS)], ()),
    "what is another host's has not failed here": ([(RUNS, OURS), (CRASHED, NOT_OURS)], ()),
    "nor what was another host's in between": ([(RUNS, OURS), (RUNS, NOT_OURS), (CRASHED, OURS)], ()),
}


@pytest.mark.parametrize("name", CASES)
def test_what_counts(name: str) -> None:
    looks, expected = CASES[name]
    failures = Failures()
    for number, (status, epoch) in enumerate(looks):
        failures.look("v1", status, epoch, 20.0 * number)
    assert failures.of("v1") == expected


def test_what_a_step_of_ours_ends_has_not_failed() -> None:
    failures = Failures()
    failures.look("v1", RUNS, OURS, 0.0)
    failures.forget_life("v1")
    failures.look("v1", CRASHED, OURS, 20.0)
    assert failures.of("v1") == ()


def test_what_ends_before_it_was_seen_running_has_failed_too() -> None:
    failures = Failures()
    failures.started("v1", 0.0)
    failures.look("v1", CRASHED, OURS, 1.0)
    assert failures.of("v1") == (Failure(7, 1.0, CRASHED.because),)


def test_a_reboot_right_after_the_start_is_a_failure() -> None:
    failures = Failures()
    failures.started("v1", 0.0)
    failures.look("v1", REBOOT, OURS, 9.0)
    assert failures.of("v1") == (Failure(7, 9.0, REBOOT.because),)


def test_the_newest_are_kept() -> None:
    failures = Failures()
    for number in range(FAILURES + 1):
        failures.note("v1", Failure(7, float(number)))
    assert failures.of("v1")[0].at == 1.0
    assert failures.of("v1")[-1].at == float(FAILURES)
    assert failures.of("v2") == ()
