"""The contract of a machine: what its guard kills at last, and what it makes of that."""

from __future__ import annotations

from failover.model import State
from tests.machines import Machines


def test_what_has_had_no_word_for_too_long_is_killed_which_is_no_failure(machines: Machines) -> None:
    machines.start()
    with machines.guard_killing(after_s=1.5):
        machines.told(lease_s=0.3)
        machines.until(lambda: machines.see().state is State.FROZEN)
        machines.elapse(0.5)
        assert machines.see().state is State.FROZEN
        machines.until(lambda: machines.see().state is State.STOPPED)
        seen = machines.see()
        assert (seen.failures, seen.failed, seen.networked) == ((), {}, True)
        assert "without a word of the lease" in seen.because and "killed by the guard" in seen.because
    machines.told()
    assert machines.start().state is State.RUNNING
    assert machines.answers() and machines.see().failures == ()


def test_a_word_before_that_lets_it_go_on(machines: Machines) -> None:
    machines.start()
    with machines.guard_killing(after_s=1.5):
        for _ in range(2):
            machines.told(lease_s=0.3)
            machines.until(lambda: machines.see().state is State.FROZEN)
            machines.elapse(0.8)
        machines.told()
        assert machines.see().state is State.RUNNING
        machines.elapse(1.0)
    assert machines.see().state is State.RUNNING
