"""What `failover check` says that a failure takes agrees with the proof, the simulator, and what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from failover import ensemble, timeline
from failover.timeline import Failure, failures, rights, table
from failover.timing import PROFILES, Timing
from tests.universes import played

ROOT = Path(__file__).parent.parent


def kinds(timing: Timing) -> dict[str, Failure]:
    (right,) = rights(timing)
    names = ("plain host", "the leader's", "of ZooKeeper's leader", "all in one", "only without ZooKeeper")
    return dict(zip(names, failures(timing, right), strict=True))


def ends(failure: Failure) -> tuple[float, float]:
    last = failure.moments[-1]
    return round(last.earliest.s, 1), round(last.latest.s, 1)


# the earliest and the latest at which others may start what it owned, with timing: normal and fast
CASES = {
    "plain host": ((2.9, 4.5), (1.4, 2.5)),
    "the leader's": ((2.9, 4.6), (1.4, 2.6)),
    "of ZooKeeper's leader": ((4.8, 6.0), (2.8, 4.0)),
    "all in one": ((4.8, 6.1), (2.8, 4.1)),
    "only without ZooKeeper": ((6.0, 8.0), (2.7, 4.0)),
}


@pytest.mark.parametrize(("kind", "normal", "fast"), [(kind, *ends) for kind, ends in CASES.items()], ids=CASES)
def test_how_long_a_failure_takes(kind: str, normal: tuple[float, float], fast: tuple[float, float]) -> None:
    assert ends(kinds(PROFILES["normal"])[kind]) == normal
    assert ends(kinds(PROFILES["fast"])[kind]) == fast


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_what_is_proved_is_in_order_for_one_last_renewal(timing: Timing) -> None:
    """It may be sent as early as a pause before the cut, and as late as the cut itself."""
    for failure in list(kinds(timing).values())[:4]:
        frozen, over = failure.moments[0], next(m for m in failure.moments if "ends its session" in m.what)
        assert frozen.earliest.proved and frozen.latest.proved
        assert frozen.latest.s < over.earliest.s + timing.renew_s
        assert frozen.earliest.s < over.earliest.s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_one_thing_follows_from_the_other(timing: Timing) -> None:
    for failure in kinds(timing).values():
        assert all(moment.earliest.s <= moment.latest.s for moment in failure.moments)
        follows = [moment for moment in failure.moments if "stands still" not in moment.what]
        assert all(a.earliest.s <= b.earliest.s and a.latest.s <= b.latest.s for a, b in pairwise(follows))
        assert not failure.moments[-1].latest.proved, "how soon something starts depends on more than on terms"


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_by_promises_too_it_stands_still_before_others_start_it(timing: Timing) -> None:
    _, _, still, starts = kinds(timing)["only without ZooKeeper"].moments
    assert still.earliest.s < starts.earliest.s and still.latest.s < starts.latest.s


def test_the_figures_of_zookeeper_are_those_that_init_writes() -> None:
    assert ensemble.SYNC_LIMIT_TICKS == timeline.SYNC_LIMIT_TICKS
    assert all(timing.tick_s == ensemble.TICK_MS / 1000 for timing in PROFILES.values())


MEASURED = {  # with sessions of 2 s, ticks of 200 ms: least, median, most
    "plain host": ("ZooKeeper ends its session", (1.58, 1.92, 2.24)),
    "of ZooKeeper's leader": ("ZooKeeper ends its session, which has counted anew", (3.5,)),
}


@pytest.mark.parametrize("kind", MEASURED)
def test_what_was_measured_lies_within(kind: str) -> None:
    what, measured = MEASURED[kind]
    (moment,) = [moment for moment in kinds(PROFILES["fast"])[kind].moments if moment.what == what]
    assert all(moment.earliest.s <= at <= moment.latest.s for at in measured)


@pytest.mark.parametrize("seed", range(8))
def test_the_simulator_keeps_within(seed: int) -> None:
    story = played({50: "isolate h1"}, seed=seed).story
    frozen, over, given = kinds(PROFILES["normal"])["plain host"].moments
    leads = kinds(PROFILES["normal"])["the leader's"].moments[-1]
    for moment, line in ((frozen, "v is frozen on h1"), (over, "the session of h1 has ended"), (given, "v: epoch 2")):
        (at,) = [float(found[1]) for text in story if (found := re.match(rf"\s*(\S+) s  {line}", text))]
        latest = leads.latest.s if moment is given else moment.latest.s
        assert moment.earliest.s - 0.2 <= at - 50 <= latest + 0.01, line  # an answer may have been on its way for long


def test_it_says_whether_what_is_well_goes_on_while_zookeeper_elects() -> None:
    assert "all other leases last: at least 2.60 s of each are left" in table(PROFILES["normal"]).replace("\n", " ")
    assert "other leases may end, too, for only 1.11 s of one may" in table(PROFILES["fast"]).replace("\n", " ")


def test_the_table_fits_a_terminal() -> None:
    assert max(len(line) for timing in PROFILES.values() for line in table(timing).splitlines()) <= timeline.WIDTH


def test_check_prints_it() -> None:
    argv = [sys.executable, "-m", "failover", "check", str(ROOT / "cluster.yaml.example")]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.endswith(table(PROFILES["normal"]) + "\n")


def test_the_documents_show_what_it_prints() -> None:
    shown = (ROOT / "docs" / "operations.md").read_text()
    (right,) = rights(PROFILES["normal"])
    for line in table(PROFILES["normal"]).splitlines():
        if line.startswith("  ") or right.name in line:
            assert f"    {line}\n" in shown
