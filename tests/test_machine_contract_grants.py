"""The contract of a machine: what it knows of the grants when its guard has ended, or hangs."""

from __future__ import annotations

from tests.machines import Machines


def test_grants_are_in_trouble_while_there_is_no_guard(machines: Machines) -> None:
    assert not machines.in_trouble()
    with machines.guard_ended():
        assert machines.in_trouble()
    machines.until(lambda: not machines.in_trouble())
