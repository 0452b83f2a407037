"""The simulator plays what it says: each event does to the cluster what its word means, and no vserver runs twice."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from failover.stories.outcome import Outcome
from failover.stories.story import Initial, Move, Traits
from tests.universes import HOSTS, MIDST, V, W, played, rare, universe

ROOT = Path(__file__).parent.parent
HOME = {"v": "started@h1", "w": "started@h2"}
TAKEN = {"v": "started@h2", "w": "started@h2"}
TAKEOVER = (Move("v", "h1", "h2", "takeover"),)

ENDS: dict[str, tuple[dict[float, str], dict[str, str], tuple[Move, ...]]] = {
    "nothing happens": ({}, HOME, ()),
    "a power cut": ({50: "power-off h1"}, TAKEN, TAKEOVER),
    "an isolated owner": ({50: "isolate h1"}, TAKEN, TAKEOVER),
    "an isolated owner comes back": ({50: "isolate h1", 100: "join h1"}, TAKEN, TAKEOVER),
    "an owner without the store": ({50: "cut h1 store"}, TAKEN, TAKEOVER),
    "an owner that the store does not hear": ({50: "cut h1 -> store"}, TAKEN, TAKEOVER),
    "an owner that does not hear the store": ({50: "cut store -> h1"}, TAKEN, TAKEOVER),
    "a link is cut for a second": ({50: "cut h1 store", 51: "mend h1 store"}, HOME, ()),
    "clients are out of reach": ({50: "cut h1 clients"}, HOME, ()),
    "a short stall": ({50: "stall h1 250ms"}, HOME, ()),
    "a long stall": ({50: "stall h1 20s"}, TAKEN, TAKEOVER),
    "an agent is stopped": ({50: "agent-stop h1"}, TAKEN, TAKEOVER),
    "an agent is stopped and started": ({50: "agent-stop h1", 52: "agent-start h1"}, HOME, ()),
    "an agent is restarted": ({50: "agent-restart h1"}, HOME, ()),
    "an agent hangs shortly": ({50: "agent-hang h1 2s"}, HOME, ()),
    "an agent hangs for long and is killed": ({50: "agent-hang h1 60s"}, TAKEN, TAKEOVER),
    "a guard is stopped and comes back": ({50: "guard-stop h1"}, HOME, ()),
    "a guard hangs shortly": ({50: "guard-hang h1 250ms"}, HOME, ()),
    "a guard hangs for long, and its host leaves what it owns": ({50: "guard-hang h1 20s"}, TAKEN, TAKEOVER),
    "the leader is stopped": ({50: "leader-stop", 52: "power-off h1"}, TAKEN, TAKEOVER),
    "the leader hangs": ({50: "leader-hang 20s", 52: "power-off h1"}, TAKEN, TAKEOVER),
    "the store restarts": ({50: "store-restart"}, HOME, ()),
    "the store is down for a while": ({50: "store-down", 150: "store-up"}, HOME, ()),
    "a wall clock jumps": ({50: "clock h1 +3600s", 60: "clock h1 -7200s"}, HOME, ()),
    "a clock runs slow": ({50: "drift h1 -0.9%", 200: "isolate h1"}, TAKEN, TAKEOVER),
    "a clock runs fast": ({50: "drift h1 0.9%", 200: "isolate h1"}, TAKEN, TAKEOVER),
    "a crash": ({50: "crash v"}, HOME, ()),
    "an orderly shutdown": ({50: "shutdown h1"}, TAKEN, (Move("v", "h1", "h2", "planned"),)),
    "a reboot": ({50: "reboot h1"}, TAKEN, (Move("v", "h1", "h2", "planned"),)),
    "a move": ({50: "move v h3"}, {**HOME, "v": "started@h3"}, (Move("v", "h1", "h3", "planned"),)),
    "a copy started by hand": ({50: "by-hand v h3"}, HOME, ()),
    "a vserver stopped by hand": ({50: "stop-by-hand v"}, HOME, ()),
    "a stop": ({50: "stop v"}, {**HOME, "v": "stopped@h1"}, ()),
    "ignored": (
        {50: "ignore v; power-off h2"}, {"v": "ignored@h1", "w": "started@h1"}, (Move("w", "h2", "h1", "takeover"),),
    ),
    "removed": ({50: "remove v"}, {**HOME, "v": "removed"}, ()),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("told", "final", "moves"), ENDS.values(), ids=ENDS)
def test_each_event_ends_as_its_word_says(
    told: dict[float, str], final: dict[str, str], moves: tuple[Move, ...], seed: int
) -> None:
    outcome = played(told, seed=seed)
    assert outcome.violations == ()
    assert (dict(outcome.final), outcome.moves, outcome.rejected) == (final, moves, 0), "\n".join(outcome.story)


@pytest.mark.parametrize(
    ("told", "least_s", "most_s"),
    [({50: "power-off h1"}, 0.45, 3.0), ({48.5: "agent-restart h1", 50: "power-off h1"}, 3.0, 8.0)],
    ids=["a grant", "a session, when it has just gone back to it"],
)
def test_a_power_cut_costs_and_a_start(told: dict[float, str], least_s: float, most_s: float) -> None:
    outcome = played(told)
    (outage_s,) = outcome.outages["v"]
    assert least_s < outage_s < most_s
    assert outcome.fenced == {"h1"}
    assert "w" not in outcome.outages


def test_clients_that_are_cut_off_are_an_outage() -> None:
    outcome = played({50: "cut h1 clients", 80: "mend h1 clients"})
    assert outcome.outages == {"v": (30.0,)}


def test_a_stalled_host_freezes_before_anything_else_when_it_goes_on() -> None:
    outcome = played({50: "stall h1 20s"}, until_s=71.0)
    after = [line for line in outcome.story if line.startswith("   70.000")]
    assert after[0].endswith("h1 goes on")
    assert after[1].endswith("v is frozen on h1")


def test_a_hanging_guard_leaves_it_to_the_fence() -> None:
    outcome = played({48.5: "agent-restart h1", 50: "guard-hang h1 100s"}, until_s=55.0)  # on its session
    assert outcome.violations == ()
    assert outcome.final["v"] == "frozen@h1", "its frames are dropped, and nothing is thawed without the guard"


def test_what_cannot_be_frozen_is_kept_in_by_the_fence() -> None:
    outcome = played({50: "isolate h1"}, traits={"v": Traits(fails_stop=True, fails_freeze=True)})
    assert outcome.violations == ()
    assert outcome.final["v"] == "started@h2"


def test_what_cannot_be_frozen_is_said_once() -> None:
    outcome = played({50: "isolate h1"}, traits={"v": Traits(fails_stop=True, fails_freeze=True)})
    assert sum("could not be frozen" in line for line in outcome.story) == 1
    assert len(outcome.story) < 60


WATCHED = replace(MIDST, watchdog=("h1",))
RESETS: dict[str, tuple[dict[float, str], Traits, bool]] = {
    "what cannot be frozen": ({50: "isolate h1"}, Traits(fails_stop=True, fails_freeze=True), True),
    "a guard that hangs for long": ({50: "guard-hang h1 60s"}, Traits(), True),
    "a guard that hangs shortly": ({50: "guard-hang h1 8s"}, Traits(), False),
    "a guard that starts anew": ({50: "guard-stop h1"}, Traits(), False),
    "what is frozen": ({50: "isolate h1", 200: "join h1"}, Traits(), False),
    "what cannot be frozen, but is thawed in time": (
        {50: "cut h1 store; cut h1 h2", 60: "mend h1 store"}, Traits(fails_freeze=True), False,
    ),
    "a host that stands still": ({50: "stall h1 60s"}, Traits(), False),
    "all is well": ({50: "move v h2"}, Traits(), False),
}  # fmt: skip


@pytest.mark.parametrize(("told", "trait", "is_reset"), RESETS.values(), ids=RESETS)
def test_a_watchdog_resets_a_host_on_which_what_is_over_runs_on(
    told: dict[float, str], trait: Traits, is_reset: bool
) -> None:
    outcome = played(told, initial=WATCHED, traits={"v": trait}, until_s=400.0)
    assert outcome.violations == ()
    assert any("h1 is reset by its watchdog" in line for line in outcome.story) == is_reset, "\n".join(outcome.story)
    assert outcome.final["w"] == "started@h2"


def test_a_host_without_a_watchdog_is_not_reset() -> None:
    assert not any("watchdog" in line for line in played({50: "guard-hang h1 60s"}).story)


def test_a_host_that_was_reset_has_its_watchdog_again() -> None:
    outcome = played({50: "guard-hang h1 60s", 200: "guard-hang h1 60s"}, initial=WATCHED)
    assert sum("h1 is reset by its watchdog" in line for line in outcome.story) == 2


OVERLAPPING: dict[str, tuple[dict[float, str], float]] = {
    "stalls": ({50: "stall h1 20s", 55: "stall h1 2s"}, 70.0),
    "stalls that end in order": ({50: "stall h1 10s", 55: "stall h1 15s"}, 70.0),
}


@pytest.mark.parametrize(("told", "end_s"), OVERLAPPING.values(), ids=OVERLAPPING)
def test_stalls_that_overlap_end_with_the_last(told: dict[float, str], end_s: float) -> None:
    outcome = played(told)
    assert [line for line in outcome.story if "goes on" in line] == [f"{end_s:9.3f} s  h1 goes on"]


@pytest.mark.parametrize("second_s", [2.0, 20.0], ids=["the second ends first", "the second ends last"])
@pytest.mark.parametrize("process", ["agent", "leader", "guard"])
def test_hangs_that_overlap_end_with_the_last(process: str, second_s: float) -> None:
    made = universe()
    made.run(20.0)
    host = made.hosts["h1"]
    host.body.guard.stop()  # else it kills an agent that hangs
    host.body.guard.running = process == "guard"
    hang = getattr(host, f"{process}_hangs")
    hang(8.0)
    made.run(24.0)
    hang(second_s)
    ends_s = max(28.0, 24.0 + second_s)
    subject = getattr(host, process) if process != "guard" else host.body.guard
    made.run(ends_s - 0.1)
    assert not subject.works
    made.run(ends_s + 0.1)
    assert subject.works


def test_a_guard_hangs_on_when_its_host_goes_on() -> None:
    made = universe({20: "guard-hang h1 10s; stall h1 2s"})
    made.run(29.9)
    assert not made.bodies["h1"].guard.works
    made.run(30.1)
    assert made.bodies["h1"].guard.works


def test_a_guard_that_is_started_on_a_stalled_host_waits_for_it() -> None:
    made = universe({20: "guard-stop h1; stall h1 5s"})
    made.run(24.9)
    assert not made.bodies["h1"].guard.works
    made.run(25.1)
    assert made.bodies["h1"].guard.works


def test_what_is_killed_counts_as_stopped_there() -> None:
    outcome = played({50: "isolate h1", 100: "join h1"})
    assert ("v", "h1") in outcome.stopped


def test_what_only_a_former_owner_had_is_kept_aside_and_counted_as_lost() -> None:
    outcome = played({50: "isolate h1; write v 50M", 100: "join h1"})
    assert outcome.violations == ()
    assert any("what only h1 had of v is kept aside" in line for line in outcome.story)
    (lost_s,) = outcome.lost["v"]
    assert 0 < lost_s < 4


def test_what_was_shipped_is_not_lost() -> None:
    assert played({40: "write v 50M", 60: "power-off h1"}).lost == {"v": (0.0,)}


def test_a_disk_that_is_full_keeps_the_replica_old() -> None:
    told = {50: "disk-full h2; disk-full h3", 60: "write v 1M", 200: "power-off h1"}
    assert played(told).final["v"] == "waiting"


def test_a_disk_that_cannot_be_read_starts_nothing() -> None:
    outcome = played({50: "disk-error h2", 60: "power-off h1"})
    assert outcome.violations == ()
    assert not any("v runs on h2" in line for line in outcome.story)


TRAITS = {
    "the first start fails": (Traits(fails_start=1), {50: "stop v", 100: "start v"}, "started@h1"),
    "starts fail on one host": (Traits(fails_start=9, fails_start_on=("h2",)), {50: "power-off h1"}, "started@h3"),
    "it cannot be stopped": (Traits(fails_stop=True), {50: "stop v"}, "error@h1"),
    "its init does not react": (Traits(hangs=True), {50: "stop v"}, "stopped@h1"),
    "a move fails": (Traits(fails_move=1), {50: "move v h2"}, "started@h1"),
}


@pytest.mark.parametrize(("traits", "told", "final"), TRAITS.values(), ids=TRAITS)
def test_each_trait_misbehaves_as_it_says(traits: Traits, told: dict[float, str], final: str) -> None:
    outcome = played(told, traits={"v": traits})
    assert outcome.violations == ()
    assert outcome.final["v"] == final, "\n".join(outcome.story)


def test_a_check_that_fails_for_long_moves_it() -> None:
    outcome = played({50: "check-fails v 120s"}, until_s=600.0)
    assert outcome.violations == ()
    assert ("v", "h1") in outcome.stopped


H1_OFF = Initial(power={"h1": False}, owners=MIDST.owners)
TO_H3 = {**HOME, "v": "started@h3"}
INITIAL: dict[str, tuple[Initial, dict[float, str], dict[str, str]]] = {
    "all off": (Initial(power=dict.fromkeys(HOSTS, False)), {10: "power-on h1; power-on h2; power-on h3"}, HOME),
    "an owner that is off": (H1_OFF, {}, TAKEN),
    "an owner that was declared dead": (replace(H1_OFF, recovering=("v",)), {}, TAKEN),
    "a replica that is too old": (replace(H1_OFF, replica_age_s={"v": {"h2": 7200.0}}), {}, TO_H3),
    "no replica": (replace(H1_OFF, replica_age_s={"v": {"h2": None}}), {}, TO_H3),
    "running twice": (Initial(owners=MIDST.owners, running={"v": ("h1", "h3"), "w": ("h2",)}), {}, HOME),
}


@pytest.mark.parametrize(("initial", "told", "final"), INITIAL.values(), ids=INITIAL)
def test_a_story_begins_as_it_says(initial: Initial, told: dict[float, str], final: dict[str, str]) -> None:
    outcome = played(told, initial=initial)
    assert outcome.violations == ()
    assert dict(outcome.final) == final, "\n".join(outcome.story)


# --- time -------------------------------------------------------------------------------------------------------------

BUSY = {
    50: "isolate h1; write v 50M",
    100: "join h1",
    300: "move v h3",
    500: "drain h3",
    700: "crash w",
    930: "stall h2 9s",  # between two rounds of w: at one of them chance decides whether its copy is too old
}


def essence(outcome: Outcome) -> object:
    begun = outcome.started, outcome.stopped
    return outcome.final, outcome.fenced, outcome.moves, outcome.rejected, outcome.violations, begun


@pytest.mark.parametrize("seed", range(3))
def test_leaving_out_idle_time_changes_nothing(seed: int) -> None:
    fast, slow = (
        played(BUSY, V, rare(W, 60.0), until_s=1200.0, seed=seed, fast_forward=forward) for forward in (True, False)
    )
    assert essence(fast) == essence(slow)


def test_idle_time_costs_nothing() -> None:
    outcome = played({500_000: "power-off h1"}, until_s=1_000_000)
    assert outcome.moves == TAKEOVER
    assert len(outcome.story) < 60


def test_rare_syncs_happen_while_idle_time_is_left_out() -> None:
    told = {100: "write v 1M", 3000: "power-off h1"}
    outcome = played(told, replace(rare(V, 600.0), max_data_loss_s=900.0), W, until_s=4000.0)
    assert outcome.lost["v"] == (0.0,)


def test_equal_seeds_give_equal_stories_in_any_process() -> None:
    script = (
        "from tests.universes import played\n"
        f"outcome = played({BUSY!r}, until_s=1200.0, seed=7)\n"
        "print(*outcome.story, dict(outcome.final), sep='\\n')"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert "event: isolate h1" in told[0]


def test_other_seeds_give_other_stories() -> None:
    assert played(BUSY, until_s=200.0, seed=1).story != played(BUSY, until_s=200.0, seed=2).story


def test_the_lines_of_a_story_begin_with_their_time() -> None:
    outcome = played({50: "power-off h1"})
    assert all(re.match(r" *\d+\.\d{3} s  \S", line) for line in outcome.story)
