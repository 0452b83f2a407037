"""What `failover check` says that a failure takes agrees with the proof, the simulator, and what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from agents import asking
from failover import ensemble, timeline
from failover.grants import granting
from failover.simulate.engine import simulate
from failover.timeline import Failure, failures, rights, table
from failover.timing import PROFILES, Timing
from tests.universes import MIDST, cluster, events, played

ROOT = Path(__file__).parent.parent


GRANTS, SESSION = 0, 1  # of rights(…)
KINDS = ("plain host", "the leader's", "of ZooKeeper's leader", "all in one", "only without ZooKeeper")


def kinds(timing: Timing, right: int) -> dict[str, Failure]:
    return dict(zip(KINDS, failures(timing, rights(timing)[right]), strict=True))


def ends(failure: Failure) -> tuple[float, float]:
    last = failure.moments[-1]
    return round(last.earliest.s, 1), round(last.latest.s, 1)


# the earliest and the latest at which others may start what it owned, with timing: normal and fast
ON_GRANTS = {
    "plain host": ((0.5, 0.8), (0.2, 0.3)),
    "the leader's": ((1.1, 2.6), (0.8, 2.1)),
    "of ZooKeeper's leader": ((2.0, 3.0), (1.5, 2.2)),
    "all in one": ((2.7, 4.1), (2.3, 3.6)),
    "only without ZooKeeper": ((6.3, 9.0), (2.8, 4.6)),
}
ON_SESSIONS = {
    "plain host": ((2.7, 4.5), (1.1, 2.5)),
    "the leader's": ((2.7, 4.5), (1.1, 2.5)),
    "of ZooKeeper's leader": ((5.0, 6.0), (3.0, 4.0)),
    "all in one": ((5.0, 6.0), (3.0, 4.0)),
    "only without ZooKeeper": ((6.3, 8.4), (2.8, 4.4)),
}
CASES = {
    f"{kind}, {name}": (right, kind, *said)
    for right, name, cases in ((GRANTS, "on grants", ON_GRANTS), (SESSION, "on sessions", ON_SESSIONS))
    for kind, said in cases.items()
}
ALL = [(timing, right) for timing in PROFILES.values() for right in (GRANTS, SESSION)]
NAMES = [f"{name}, on {right}" for name in PROFILES for right in ("grants", "sessions")]


@pytest.mark.parametrize(("right", "kind", "normal", "fast"), CASES.values(), ids=CASES)
def test_how_long_a_failure_takes(
    right: int, kind: str, normal: tuple[float, float], fast: tuple[float, float]
) -> None:
    assert ends(kinds(PROFILES["normal"], right)[kind]) == normal
    assert ends(kinds(PROFILES["fast"], right)[kind]) == fast


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_what_is_proved_is_in_order_for_one_last_renewal(timing: Timing) -> None:
    """The newest that counts may be as old as that, and is two ticks old at least."""
    for failure in list(kinds(timing, SESSION).values())[:4]:
        frozen, over = failure.moments[0], next(m for m in failure.moments if "ends its session" in m.what)
        assert frozen.earliest.proved and frozen.latest.proved
        assert frozen.latest.s + timing.kept_s < over.earliest.s + timing.told_s(timing.renew_s)
        assert frozen.earliest.s < over.earliest.s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_what_is_proved_of_grants_is_in_order_for_one_last_question(timing: Timing) -> None:
    frozen, over, _ = kinds(timing, GRANTS)["plain host"].moments
    assert frozen.earliest.proved and frozen.latest.proved and over.earliest.proved
    assert frozen.latest.s < over.earliest.s + timing.ask_grant_s
    assert frozen.earliest.s < over.earliest.s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_a_leaders_host_stands_still_before_another_one_leads(timing: Timing) -> None:
    """It grants to itself until its own lease is over; what counts is its last proof that it leads."""
    for kind in ("the leader's", "all in one"):
        moments = kinds(timing, GRANTS)[kind].moments
        frozen, leads = moments[0], next(m for m in moments if "another host leads" in m.what)
        assert frozen.earliest.proved and frozen.latest.proved
        assert frozen.latest.s + timing.kept_s < leads.earliest.s + timing.told_s(timing.prove_s)


@pytest.mark.parametrize(("timing", "right"), ALL, ids=NAMES)
def test_one_thing_follows_from_the_other(timing: Timing, right: int) -> None:
    for failure in kinds(timing, right).values():
        assert all(moment.earliest.s <= moment.latest.s for moment in failure.moments)
        follows = [moment for moment in failure.moments if "stands still" not in moment.what]
        assert all(a.earliest.s <= b.earliest.s and a.latest.s <= b.latest.s for a, b in pairwise(follows))
        assert not failure.moments[-1].latest.proved, "how soon something starts depends on more than on terms"


@pytest.mark.parametrize(("timing", "right"), ALL, ids=NAMES)
def test_by_promises_too_it_stands_still_before_others_start_it(timing: Timing, right: int) -> None:
    *_, still, starts = kinds(timing, right)["only without ZooKeeper"].moments
    assert still.earliest.s < starts.earliest.s and still.latest.s < starts.latest.s


def test_the_figures_of_zookeeper_are_those_that_init_writes() -> None:
    assert ensemble.SYNC_LIMIT_TICKS == timeline.SYNC_LIMIT_TICKS
    assert all(timing.tick_s == ensemble.TICK_MS / 1000 for timing in PROFILES.values())


def test_the_figures_of_grants_are_those_that_leader_and_guard_go_by() -> None:
    assert (timeline.PATIENCE, timeline.ELECTED) == (granting.PATIENCE, granting.ELECTED)
    assert timeline.ALMOST == granting.ALMOST
    assert asking.MISSED == timeline.MISSED


ENDS, RETURNED = "ZooKeeper ends its session", "all others had time to come back: its grants are over"
MEASURED = {  # with timing fast, ticks of 200 ms
    "plain host, on sessions": (SESSION, "plain host", ENDS, (1.58, 1.92, 2.24)),
    "of ZooKeeper's leader, on sessions": (SESSION, "of ZooKeeper's leader", f"{ENDS}, which has counted anew", (3.5,)),
    "plain host, on grants": (GRANTS, "plain host", "its last grant is over, by the leader's clock, too", (0.17, 0.2)),
    "of ZooKeeper's leader, on grants": (GRANTS, "of ZooKeeper's leader", RETURNED, (2.04, 2.14)),
}


@pytest.mark.parametrize(("right", "kind", "what", "measured"), MEASURED.values(), ids=MEASURED)
def test_what_was_measured_lies_within(right: int, kind: str, what: str, measured: tuple[float, ...]) -> None:
    (moment,) = [moment for moment in kinds(PROFILES["fast"], right)[kind].moments if moment.what == what]
    assert all(moment.earliest.s <= at <= moment.latest.s for at in measured)


FROZEN, OVER, GIVEN = "v is frozen on h1", "the session of h1 has ended", "v: epoch 2"


def at(story: Sequence[str], line: str) -> float:
    (found,) = [float(match[1]) for text in story if (match := re.match(rf"\s*(\S+) s  {line}", text))]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_simulator_keeps_within_on_sessions(seed: int) -> None:
    """Nothing rests on grants before all was calm for two seconds."""
    cut_s = 1.5
    story = played({cut_s: "isolate h1"}, seed=seed).story
    frozen, over, given = kinds(PROFILES["normal"], SESSION)["plain host"].moments
    leads = kinds(PROFILES["normal"], SESSION)["the leader's"].moments[-1]
    for moment, line in ((frozen, FROZEN), (over, OVER), (given, GIVEN)):
        latest = leads.latest.s if moment is given else moment.latest.s
        assert moment.earliest.s - 0.2 <= at(story, line) - cut_s <= latest + 0.01, line  # an answer may have come late


@pytest.mark.parametrize("timing", ("fast", "normal"))
@pytest.mark.parametrize("seed", range(8))
def test_the_simulator_keeps_within_on_grants(seed: int, timing: str) -> None:
    story = simulate(
        cluster(timing=timing), initial=MIDST, traits={}, events=events({50: "isolate h1"}), until_s=70, seed=seed
    ).story
    led = [text.split()[-2] for text in story if text.endswith(" leads") and float(text.split()[0]) < 50]
    frozen, *_, given = kinds(PROFILES[timing], GRANTS)["the leader's" if led[-1:] == ["h1"] else "plain host"].moments
    answer_s = 3 * PROFILES[timing].ask_grant_s  # two answers in a row may have been lost, or come late
    for moment, line in ((frozen, FROZEN), (given, GIVEN)):
        assert moment.earliest.s - answer_s <= at(story, line) - 50 <= moment.latest.s + 0.01, line


SAID = {
    "what has a lease goes on": ("normal", "all other leases last: at least 2.57 s of each are left"),
    "or may not": ("fast", "other leases may end, too, for only 0.94 s of each may"),
    "grants may end": ("normal", "grants may end, too, for only 0.70 s of the leader's own lease may be left"),
    "unless the leader's session is a long one": ("patient", "all grants last: at least 2."),
    "who goes back to its session has some time": ("normal", "their sessions, with 0.31 s of their grants left"),
    "but not much": ("fast", "their sessions, with 0.08 s of their grants left"),
}


@pytest.mark.parametrize(("timing", "said"), SAID.values(), ids=SAID)
def test_it_says_what_becomes_of_the_others(timing: str, said: str) -> None:
    assert said in table(PROFILES[timing]).replace("\n", " ")


def test_the_table_fits_a_terminal() -> None:
    assert max(len(line) for timing in PROFILES.values() for line in table(timing).splitlines()) <= timeline.WIDTH


def test_check_prints_it() -> None:
    argv = [sys.executable, "-m", "failover", "check", str(ROOT / "cluster.yaml.example")]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.endswith(table(PROFILES["normal"]) + "\n")


def test_the_documents_show_what_it_prints() -> None:
    shown = (ROOT / "docs" / "operations.md").read_text()
    names = tuple(f"after the cut, {right.name}:" for right in rights(PROFILES["normal"]))
    for line in table(PROFILES["normal"]).splitlines():
        if line.startswith(("  ", *names)):
            assert f"    {line}\n" in shown
