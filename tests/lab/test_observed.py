"""What probe, watch and drill make of what they see: pure."""

from __future__ import annotations

import pytest

from failover.lab.drill import STEPS, Takeover
from failover.lab.probe import Sample, outages
from failover.lab.rests import Rest, resting_s, was_granted
from failover.lab.watch import source_of


@pytest.mark.parametrize(
    ("answers", "expected"),
    {
        "no failure, no outage, however slow": ((1.1, 2.9, 3.1), []),
        "from the last answer before to the first answer after": ((1.1, None, None, 4.2), [(1.1, 4.2)]),
        "two outages": ((1.1, None, 3.1, None, 5.1), [(1.1, 3.1), (3.1, 5.1)]),
        "not over yet": ((1.1, None, None), [(1.1, 3.0)]),
        "what was never there is no outage": ((None, None, 3.1), []),
    }.values(),
)
def test_outages(answers: tuple[float | None, ...], expected: list[tuple[float, float]]) -> None:
    samples = [Sample(float(number), answered, "") for number, answered in enumerate(answers, start=1)]
    assert outages(samples) == expected


@pytest.mark.parametrize(
    ("frame", "source"),
    {
        "IPv4": (bytes(12) + b"\x08\x00" + bytes(12) + b"\x0a\x4d\x01\x01" + bytes(20), b"\x0a\x4d\x01\x01"),
        "ARP": (bytes(12) + b"\x08\x06" + bytes(14) + b"\x0a\x4d\x01\x01" + bytes(20), b"\x0a\x4d\x01\x01"),
        "IPv6": (bytes(12) + b"\x86\xdd" + bytes(8) + bytes(range(16)) + bytes(20), bytes(range(16))),
        "something else": (bytes(12) + b"\x88\xcc" + bytes(40), None),
    }.values(),
)
def test_the_source_of_a_frame(frame: bytes, source: bytes | None) -> None:
    assert source_of(frame) == source


def test_the_steps_of_a_takeover_are_all_of_it() -> None:
    taken = Takeover("hostA", "hostB", 10.0, 12.0, 12.125, 12.1875, 12.25, 12.5, 12.75, 13.5)
    assert taken.steps() == dict(zip(STEPS, (2.0, 0.125, 0.0625, 0.0625, 0.25, 0.25, 0.75), strict=True))
    assert sum(taken.steps().values()) == taken.seconds
    assert taken.beyond_detection == taken.seconds - taken.steps()["detection"]


def test_how_long_each_host_rested_on_grants() -> None:
    seen = [
        Rest(1.0, frozenset({"hostA"}), frozenset({"hostA"})),
        Rest(3.0, None),
        Rest(4.0, frozenset({"hostB"}), frozenset({"hostA", "hostB"})),
    ]
    assert resting_s(seen, ["hostA", "hostB", "hostC"], 2.0, 6.0) == {"hostA": 1.0, "hostB": 2.0, "hostC": 0.0}
    assert resting_s([], ["hostA"], 2.0, 6.0) == {"hostA": 0.0}


def test_what_a_record_said_before_a_takeover() -> None:
    seen = [Rest(1.0, frozenset(), frozenset()), Rest(2.0, frozenset(), frozenset({"hostA"})), Rest(3.0, None)]
    assert [was_granted(seen, "hostA", moment) for moment in (0.5, 1.5, 2.5, 3.5)] == [False, False, True, True]
