"""What a host has promised outlives its agent, and a boot that has made it forget binds it to everything. Claim S11."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.bonds import BEYOND_S, Bonds
from agents.steps import Bond

LONGEST_S = 1.5


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settled(tmp_path: Path, clock: Clock) -> Bonds:
    """Of a host that was booted long ago."""
    Bonds(tmp_path, LONGEST_S, clock)
    clock.time += 10
    return Bonds(tmp_path, LONGEST_S, clock)


def test_s11_a_promise_outlives_the_agent_that_gave_it(settled: Bonds, tmp_path: Path, clock: Clock) -> None:
    bond = Bond("alpha", 7, clock.time + 1)
    assert not settled.binds("v1")
    assert settled.keep("v1", bond)
    after = Bonds(tmp_path, LONGEST_S, clock)
    assert (after.of("v1"), after.binds("v1"), after.binds("v2")) == (bond, True, False)
    clock.time += 1
    assert not after.binds("v1")


@pytest.mark.parametrize("damage", ["no file", "no JSON", "half a file", "from another boot"])
def test_s11_a_host_that_does_not_know_its_promises_is_bound_until_the_longest_is_over(
    damage: str, settled: Bonds, tmp_path: Path, clock: Clock
) -> None:
    file = tmp_path / "promises.json"
    settled.keep("v1", Bond("alpha", 7, clock.time + 1))
    match damage:
        case "no file":
            file.unlink()
        case "no JSON":
            file.write_text("?")
        case "half a file":
            file.write_text(file.read_text()[:-20])
        case _:
            settled.keep("v1", Bond("alpha", 7, clock.time + BEYOND_S + 1))
    after = Bonds(tmp_path, LONGEST_S, clock)
    assert after.of("anything") == Bond("", 0, clock.time + LONGEST_S)
    clock.time += LONGEST_S - 0.01
    assert after.binds("anything") and Bonds(tmp_path, LONGEST_S, clock).binds("anything")
    clock.time += 0.01
    assert not after.binds("anything") and not Bonds(tmp_path, LONGEST_S, clock).binds("anything")


def test_a_promise_that_cannot_be_written_down_is_not_kept(settled: Bonds, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "promises.json.new").mkdir()
    assert not settled.keep("v1", Bond("alpha", 7, clock.time + 1))
    assert not settled.binds("v1")


def test_a_promise_is_never_shortened_and_what_is_over_is_remembered(settled: Bonds, clock: Clock) -> None:
    settled.keep("v1", Bond("alpha", 7, clock.time + 1))
    settled.keep("v1", Bond("alpha", 8, clock.time + 0.5))
    assert settled.of("v1") == Bond("alpha", 8, clock.time + 1)
    clock.time += 2
    settled.keep("v2", Bond("alpha", 8, clock.time + 1))
    assert not settled.binds("v1")
    assert settled.of("v1") == Bond("alpha", 8, clock.time - 1), "it says until when alpha may have run by it"


# --- how long the longest may be, when the terms change ---------------------------------------------------------------


def booted(tmp_path: Path) -> Path:
    (tmp_path / "run" / "promises.json").unlink(missing_ok=True)
    return tmp_path / "run"


def test_s11_after_a_boot_promises_of_before_may_have_been_longer(tmp_path: Path, clock: Clock) -> None:
    disk = tmp_path / "disk"
    Bonds(booted(tmp_path), 10.0, clock, disk)
    assert Bonds(booted(tmp_path), LONGEST_S, clock, disk).of("v1") == Bond("", 0, clock.time + 10.0)
    clock.time += 9.0
    assert Bonds(tmp_path / "run", LONGEST_S, clock, disk).binds("v1")
    assert Bonds(booted(tmp_path), LONGEST_S, clock, disk).of("v1") == Bond("", 0, clock.time + 10.0)
    clock.time += 10.0
    Bonds(tmp_path / "run", LONGEST_S, clock, disk)  # nothing from before binds any more
    assert Bonds(booted(tmp_path), LONGEST_S, clock, disk).of("v1") == Bond("", 0, clock.time + LONGEST_S)


def test_s11_how_long_cannot_be_read_so_it_may_be_as_long_as_it_can_be(tmp_path: Path, clock: Clock) -> None:
    disk = tmp_path / "disk"
    Bonds(booted(tmp_path), LONGEST_S, clock, disk)
    (disk / "longest-promise").write_text("?")
    assert Bonds(booted(tmp_path), LONGEST_S, clock, disk).of("v1") == Bond("", 0, clock.time + BEYOND_S)


def test_s11_nothing_is_promised_before_it_is_written_down_how_long(tmp_path: Path, clock: Clock) -> None:
    disk = tmp_path / "disk"
    Bonds(booted(tmp_path), LONGEST_S, clock, disk)
    (disk / "longest-promise.new").mkdir()
    longer = Bonds(tmp_path / "run", 10.0, clock, disk)
    assert not longer.keep("v1", Bond("alpha", 7, clock.time + 10.0))
    (disk / "longest-promise.new").rmdir()
    assert longer.keep("v1", Bond("alpha", 7, clock.time + 10.0))
