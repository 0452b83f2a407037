"""Promises in a whole cluster on a virtual clock, fault by fault; two running copies would be a violation of each.

Claims S10 to S12 once more, with everything between the agents that datagrams do.
"""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agents.promise import Answer, Question
from failover.model import Cluster, Host, Vserver, frozen_map
from failover.simulate import letters
from failover.simulate.engine import simulate
from failover.stories.events import Event
from failover.stories.outcome import Outcome
from failover.stories.story import Initial
from failover.timing import PROFILES
from tests.universes import V, events, played, universe

TIMING = PROFILES["normal"]
SEEDS = (1, 2, 3)


def at(outcome: Outcome, text: str) -> list[float]:
    """When something happened."""
    return [float(line.split()[0]) for line in outcome.story if line.split(" s  ", 1)[1] == text]


def is_frozen(outcome: Outcome) -> bool:
    return any(" is frozen on " in line for line in outcome.story)


def test_an_answer_to_an_agent_before_is_not_heard_by_the_next_though_that_has_asked_under_the_same_number() -> None:
    """As with real letters (tests/test_peers.py): the bond counts from the older question."""
    boxes, now = dict[str, letters.Letterbox](), SimpleNamespace(after=lambda delay_s, action, soft: action())
    scene: Any = SimpleNamespace(now=0.0, scheduler=now, links=SimpleNamespace(reaches=lambda source, target: True))
    lossless: Any = SimpleNamespace(random=lambda: 0.5, expovariate=lambda rate: 0.0)

    def start(host: str) -> letters.Letterbox:
        boxes[host] = letters.Letterbox(host, scene, boxes.get, lambda: None, lossless)
        return boxes[host]

    giver = start("h2")
    start("h1").ask("h2", Question(1, 3.0, {"v": 5}))
    ((_, older),) = giver.heard()
    start("h1").ask("h2", Question(1, 3.0, {"v": 5}))
    ((_, newer),) = giver.heard()
    assert isinstance(older, Question) and isinstance(newer, Question)
    giver.answer("h1", Answer(1, 3.0, ("v",), life=older.life))
    assert boxes["h1"].heard() == ()
    giver.answer("h1", Answer(1, 3.0, ("v",), life=newer.life))
    assert [host for host, _ in boxes["h1"].heard()] == ["h2"]


# --- the store is lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_without_the_store_everything_runs_on(seed: int) -> None:
    outcome = played({100: "store-down", 160: "store-up"}, seed=seed)
    assert not outcome.violations
    assert not is_frozen(outcome)
    assert outcome.outages == {}


@pytest.mark.parametrize(
    "fault", ["power-off h3", "agent-stop h3", "cut h1 h3; cut h2 h3", "cut h3 -> h1; cut h3 -> h2"]
)
def test_with_one_of_the_others_away_it_is_frozen_and_thawed_when_the_store_is_back(fault: str) -> None:
    outcome = played({90: fault, 100: "store-down", 120: "store-up"})
    assert not outcome.violations
    for name, owner in (("v", "h1"), ("w", "h2")):
        (frozen,) = at(outcome, f"{name} is frozen on {owner}")
        (thawed,) = at(outcome, f"{name} goes on on {owner}")
        assert 100 < frozen <= 100 + TIMING.lease_s
        assert 120 < thawed < 125


def test_one_that_stays_away_too_long_in_the_midst_ends_the_right_and_its_return_does_not_give_it_back() -> None:
    outcome = played({100: "store-down", 110: "power-off h3", 130: "power-on h3", 160: "store-up"})
    assert not outcome.violations
    (frozen,) = at(outcome, "v is frozen on h1")
    assert 110 < frozen < 110 + TIMING.promise_s
    assert at(outcome, "v goes on on h1")[0] > 160


@pytest.mark.parametrize("victim", ["h1", "h2", "h3"])
def test_an_agent_that_is_killed_meanwhile_costs_nothing(victim: str) -> None:
    outcome = played({100: "store-down", 110: f"agent-restart {victim}", 130: f"guard-stop {victim}", 160: "store-up"})
    assert not outcome.violations
    assert not is_frozen(outcome)


# --- only the owner has lost the store: a promise binds against the leader's word -------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "told",
    [
        {100.0: "cut h1 store"},
        {100.0: "drift h1 -0.5%; drift h2 0.5%; drift h3 0.5%; cut h1 store"},
        {100.0: "drift h1 0.5%; drift h2 -0.5%; drift h3 -0.5%; cut h1 store"},
        {100.0: "cut h1 store", 102.0: "agent-hang h1 8s"},
        {100.0: "cut h1 store", 102.0: "agent-stop h1"},
        {100.0: "cut h1 store", 103.0: "agent-restart h2; agent-restart h3"},
        {100.0: "cut h1 store", 103.5: "stall h2 3s"},
    ],
    ids=[
        "as it is",
        "its clock is slow",
        "its clock is fast",
        "its agent hangs",
        "its agent is dead",
        "the givers' agents are killed",
        "a giver is stalled",
    ],
)
def test_s11_it_starts_elsewhere_only_after_its_owner_has_let_go(told: dict[float, str], seed: int) -> None:
    outcome = played(told, seed=seed)
    assert not outcome.violations
    frozen, started = at(outcome, "v is frozen on h1"), [*at(outcome, "v runs on h2"), *at(outcome, "v runs on h3")]
    assert frozen[0] < min(started) < 115


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("told", ["102 8", "103 2", "104 0.5", "105 5"])
def test_s11_an_owner_that_is_stalled_never_runs_beside_its_successor(told: str, seed: int) -> None:
    """It cannot freeze anything then; the fence closes without it, and the freeze is the first that it does."""
    at_s, length_s = map(float, told.split())
    outcome = played({100: "cut h1 store", at_s: f"stall h1 {int(1000 * length_s)}ms"}, seed=seed)
    assert not outcome.violations
    assert min([*at(outcome, "v runs on h2"), *at(outcome, "v runs on h3")]) < 115


def test_it_runs_by_promises_until_the_leader_has_spoken_and_is_away_for_little_longer_than_a_start() -> None:
    outcome = played({100: "cut h1 store"})
    (frozen,) = at(outcome, "v is frozen on h1")
    assert frozen > 100 + TIMING.lease_s
    assert at(outcome, "v runs on h2")[0] < frozen + 3.0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("off_s", [0.1, 1.0, 3.0])
def test_s11_a_giver_that_is_booted_meanwhile_still_waits(off_s: float, seed: int) -> None:
    """It has forgotten what it has promised. What the store then says is that it owns v."""
    made = universe({100: "cut h1 store; power-off h3"}, seed=seed)

    def boot(name: str) -> None:
        """As fast as no machine does."""
        made.hosts[name].power_off()
        made.scene.scheduler.after(off_s, lambda: made.hosts[name].begin(at_once=True))
        made.scene.scheduler.after(off_s, lambda: setattr(made.bodies[name], "bonds", None))

    made.scene.scheduler.at(102.0, lambda: boot("h2"))
    made.run(200.0)
    assert not made.outcome().violations


@pytest.mark.parametrize("seed", SEEDS)
def test_an_agent_that_dies_between_writing_and_sending_a_promise_has_given_none_and_keeps_it(seed: int) -> None:
    made = universe(seed=seed)

    def die(*_: object) -> None:
        made.scene.scheduler.after(0.0, made.hosts["h2"].agent_restarts)

    def lose_store() -> None:
        machine = made.hosts["h2"].machine
        assert machine is not None
        machine.letterbox.answer = die  # type: ignore[method-assign]
        made.happen(events({100: "cut h1 store"})[0])

    made.scene.scheduler.at(100.0, lose_store)
    made.run(200.0)
    assert not made.outcome().violations
    bond = made.bodies["h2"].bond("v")
    assert bond is not None and bond.holder == "h1"


# --- what datagrams do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "twice", "late"),
    [(0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.5), (0.2, 0.5, 0.5)],
    ids=["half are lost", "all come twice", "half come late", "all of it"],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_lost_late_and_double_letters(
    lost: float, twice: float, late: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, share in (("LOST", lost), ("TWICE", twice), ("LATE", late)):
        monkeypatch.setattr(letters, name, share)
    told = {100: "store-down", 130: "store-up", 160: "cut h1 store", 162: "cut h2 store", 180: "mend h1 store"}
    outcome = played(told, seed=seed)
    assert not outcome.violations
    if twice == 1.0:
        (first,) = at(outcome, "v is frozen on h1")
        assert first > 160


# --- the hosts change meanwhile ---------------------------------------------------------------------------------------


def four(*backups: str) -> Cluster:
    hosts = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(("h1", "h2", "h3", "h4"), 1)}
    return Cluster("test", hosts, {"v": replace(V, backups=backups)}, timing=PROFILES["normal"])


@pytest.mark.parametrize("seed", SEEDS)
def test_s12_a_host_that_was_added_when_the_owner_could_not_hear_of_it_does_not_start_it(seed: int) -> None:
    """h1 goes by the promise of h2, and has never heard of h4. h2 hears nothing of the store either."""
    told = events({100: "cut h1 store; cut h2 store", 140: "mend h1 store; mend h2 store"})
    applied = Event(100.5, "apply {…}", "apply", cluster=four("h2", "h4"))
    initial = Initial(owners=frozen_map({"v": "h1"}), running=frozen_map({"v": ("h1",)}))
    outcome = simulate(
        four("h2"), initial=initial, events=(told[0], told[1], applied, *told[2:]), until_s=200.0, seed=seed
    )
    assert not outcome.violations
    assert ("v", "h4") not in outcome.started


# --- a bad day --------------------------------------------------------------------------------------------------------

TIMES_S = (0.3, 0.8, 1.5, 3.0, 8.0)
BAD = (
    "cut {h} store|mend {h} store", "cut {h} store|mend {h} store", "cut {h} -> {g}|mend {h} -> {g}",
    "store-down|store-up", "isolate {h}|join {h}", "power-off {h}|power-on {h}", "stall {h} {ms}ms",
    "agent-restart {h}", "agent-hang {h} {ms}ms", "guard-stop {h}", "leader-stop", "move {v} {h}", "restart {v}",
    "apply", "apply", "drift {h} 0.4%", "drift {h} -0.4%",
)  # fmt: skip


def bad_day(chance: random.Random) -> tuple[Cluster, list[Event]]:
    """A hundred seconds in which everything fails, several things at once, and the law changes."""

    def law() -> Cluster:
        backups = {"v": ["h2", "h3", "h4"], "w": ["h1", "h3", "h4"]}
        return Cluster(
            "test",
            four().hosts,
            {
                name: Vserver(name, primary, tuple(chance.sample(backups[name], chance.randint(0, 3))))
                for name, primary in (("v", "h1"), ("w", "h2"))
            },
            timing=PROFILES["fast"],
        )

    found: list[Event] = []
    now, pause_s = 20.0, chance.choice((0.4, 1.0, 3.0))
    while (now := round(now + chance.expovariate(1 / pause_s), 3)) < 120.0:
        h, g = chance.sample(("h1", "h2", "h3", "h4"), 2)
        length_s = chance.choice(TIMES_S)
        text = chance.choice(BAD).format(h=h, g=g, v=chance.choice("vw"), ms=int(1000 * length_s))
        if text == "apply":
            found.append(Event(now, "apply {…}", "apply", cluster=law()))
            continue
        begin, _, end = text.partition("|")
        found += events({now: begin} | ({now + length_s: end} if end else {}))
    healed = "; ".join(["store-up", *(f"join {h}; power-on {h}" for h in four().hosts)])
    return law(), sorted([*found, *events({135.0: healed})], key=lambda event: event.at_s)


@pytest.mark.parametrize("seed", range(12))
def test_a_bad_day(seed: int) -> None:
    law, told = bad_day(random.Random(seed))
    owners = {"v": "h1", "w": "h2"}
    running = frozen_map({name: (host,) for name, host in owners.items()})
    initial = Initial(owners=frozen_map(owners), running=running)
    outcome = simulate(law, initial=initial, events=told, until_s=420.0, seed=seed)
    assert not outcome.violations
