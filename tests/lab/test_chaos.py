"""Chaos: what is drawn keeps its bounds, the judge notices what it must, and a short run on real processes passes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from failover.errors import BadInput
from failover.lab import chaos, faults, judge
from failover.lab.ability import refuse
from failover.lab.cgroups import of_this_machine
from failover.lab.host import Host, Machine
from failover.lab.judge import Excuses
from failover.lab.lab import Lab
from failover.lab.rows import losses
from failover.lab.trial import Looks, Verdict, faults_of, lacking
from failover.lab.watch import Sight, _runners
from failover.lab.witness import Start, Whole, rows_of
from failover.simulate.replay import play
from failover.stories.events import Event
from failover.stories.outcome import Outcome
from failover.stories.reading import Opened, open_text
from tests.lab.conftest import left_of

NAME = f"t{os.getpid()}-chaos"
ON_REAL_PROCESSES = [
    pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"),
    pytest.mark.timeout(300),
]


# --- what is drawn ----------------------------------------------------------------------------------------------------

HEALS = {
    "power-on": "power-off", "join": "isolate", "mend": "cut", "store-up": "store-down", "agent-start": "agent-stop",
    "disk-free": "disk-full",
}  # fmt: skip
WITHOUT_END_S = {"reboot": 20.0, "leader-stop": 10.0, "store-restart": 5.0}
OF_A_HOST = ("power-off", "isolate", "cut", "stall", "reboot", "disk-full")
OF_ITS_PROCESSES = ("agent-hang", "agent-restart", "agent-stop", "guard-hang", "guard-stop")


@cache
def opened(seed: int, length_s: float = 600.0, hosts: int = 3) -> Opened:
    found = open_text(chaos.story_text(seed, length_s, hosts), "chaos")
    assert found is not None
    return found


def spans(events: Sequence[Event]) -> list[tuple[float, float, Event]]:
    """From when until when each fault lasts; one that is never healed has no span, and fails the test."""
    found, waits = [], list(events)
    for event in events:
        if event.word in HEALS:
            continue
        ends_s = event.at_s + (event.length_s or WITHOUT_END_S.get(event.word, 0.0))
        if event.word in HEALS.values():
            about = event.text.partition(" ")[2]
            heal = next(
                other
                for other in waits
                if HEALS.get(other.word) == event.word
                and other.text.partition(" ")[2] == about
                and other.at_s >= event.at_s
            )
            waits.remove(heal)
            ends_s = heal.at_s
        found.append((event.at_s, ends_s, event))
    assert not [event for event in waits if event.word in HEALS], "something is healed that was not broken"
    return found


def bears(event: Event) -> set[str]:
    ends = {end for link in event.links for end in link} - {"store", "clients"}
    return ends or ({event.host} if event.host else set())


def test_equal_seeds_give_equal_faults_in_any_process() -> None:
    script = "from failover.lab.chaos import story_text; print(story_text(7, 600.0, 5), end='')"
    told = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True
        ).stdout
        for hashes in ("1", "2")
    }
    assert told == {chaos.story_text(7, 600.0, 5)}
    assert chaos.story_text(7, 600.0, 5) != chaos.story_text(8, 600.0, 5)


@pytest.mark.parametrize(("seed", "hosts"), [*((seed, 3) for seed in range(1, 25)), (25, 4), (26, 5)])
def test_every_fault_ends_in_time_and_few_are_at_once(seed: int, hosts: int) -> None:
    found = spans(opened(seed, hosts=hosts).story.events or ())
    assert all(ended - began < chaos.LONGEST_S + 0.01 for began, ended, _ in found)
    for at, _, _ in found:
        now = [event for began, ended, event in found if began <= at <= ended]
        assert len(now) <= chaos.MOST, (at, now)
        for layer in (OF_A_HOST, OF_ITS_PROCESSES):
            borne = [host for event in now if event.word in layer for host in bears(event)]
            assert len(borne) == len(set(borne)), (at, now)


@pytest.mark.parametrize("seed", range(1, 25))
def test_waves_are_followed_by_calm_and_what_asks_the_store_begins_one(seed: int) -> None:
    found = sorted(spans(opened(seed).story.events or ()), key=lambda span: span[0])
    over, waves = 0.0, 0
    for began, ended, event in found:
        first = began > over + chaos.CALM_S[0] - 0.01 or not waves
        waves += first
        asks = event.word in ("leader-hang", "leader-stop", "store-down", "store-restart", "move")
        assert first or not asks, event
        over = max(over, ended)
    assert waves > 10


def test_every_kind_of_fault_is_drawn_and_every_host_and_vserver_is_hit() -> None:
    events = [event for seed in range(1, 25) for event in opened(seed).story.events or ()]
    words = {event.word for event in events}
    drawn = {
        *HEALS, *HEALS.values(), *WITHOUT_END_S, *OF_A_HOST, *OF_ITS_PROCESSES, "leader-hang", "crash", "write", "move",
    }  # fmt: skip
    assert words == drawn
    cuts = {event.links for event in events if event.word == "cut"}
    assert {len(links) for links in cuts} == {1, 2}
    assert {end for links in cuts for link in links for end in link} == {"hostA", "hostB", "hostC", "store", "clients"}
    assert {event.vserver for event in events if event.vserver} == {"web", "db", "app"}
    assert all({e.host for e in events if e.word == word} == {"hostA", "hostB", "hostC"} for word in OF_ITS_PROCESSES)


@pytest.mark.parametrize("seed", range(1, 7))
def test_what_is_drawn_is_a_story_that_a_lab_can_play_and_the_simulator_agrees(seed: int) -> None:
    found = opened(seed, 300.0, hosts=3 + seed % 3)
    refuse(found)
    played = play(found.story, seed=1)
    assert (played.differences, played.outcome.violations) == ((), ())


@pytest.mark.parametrize("hosts", [2, 6])
def test_a_lab_of_another_size_is_refused(hosts: int) -> None:
    with pytest.raises(BadInput, match="3 to 5 hosts"):
        chaos.story_text(1, 60.0, hosts)


@pytest.mark.needs("root")
def test_the_store_comes_back_also_on_a_host_that_is_off_then(tmp_path: Path) -> None:
    lab = Lab("off", tmp_path)
    lab.servers = ["hostA"]
    lab.hosts["hostA"] = Host(Machine(lab.place, "python", "1G", "btrfs", of_this_machine()), "hostA", (), {})
    down = lab.place.host("hostA") / "control/zookeeper.down"
    down.parent.mkdir(parents=True)
    faults.perform(lab, "store-down")
    assert down.exists()
    faults.perform(lab, "store-up")
    assert not down.exists()


# --- what is judged ---------------------------------------------------------------------------------------------------

ROWS = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}  # acknowledged, each at its second


def start(at: float, host: str, *rows: int) -> Start:
    return Start(at, "web", host, frozenset(rows))


def whole(at: float, host: str, of: float) -> Whole:
    return Whole(at, "web", host, of)


LOSSES: Mapping[str, tuple[tuple[Start | Whole, ...], list[tuple[set[int], set[int]]]]] = {
    "all is there": ((start(0, "a"), whole(2.9, "b", 2.5), start(5, "b", 1, 2, 3, 4)), []),
    "what came after the last whole copy may be lost": (
        (start(0, "a"), whole(2.9, "b", 2.5), start(5, "b", 1, 2)),
        [({3, 4}, set())],
    ),
    "what was whole there must be there": (
        (start(0, "a"), whole(2.9, "b", 2.5), start(5, "b", 1)),
        [({2, 3, 4}, {2})],
    ),
    "what another one has whole is no word of this one": (
        (start(0, "a"), whole(2.9, "c", 2.5), start(5, "b", 1)),
        [({2, 3, 4}, set())],
    ),
    "a newer copy counts": (
        (start(0, "a"), whole(2.1, "b", 2.05), whole(3.2, "b", 3.1), start(5, "b", 1, 2)),
        [({3, 4}, {3})],
    ),
    "what starts again where it ran lacks nothing": ((start(0, "a"), start(5, "a", 1, 2, 4)), [({3}, {3})]),
    "unless it was a copy of another's meanwhile": (
        (start(0, "a"), whole(2, "b", 1.5), start(2.5, "b", 1), whole(3.2, "a", 3.1), start(5, "a", 1, 3)),
        [({2}, set()), ({4}, set())],
    ),
    "what was lost once is not missed again": (
        (start(0, "a"), whole(2, "b", 1.5), start(2.5, "b", 1), whole(4.5, "a", 4.4), start(5, "a", 1, 3, 4)),
        [({2}, set())],
    ),
    "what a former owner acknowledges beside its successor is lost": (
        (start(0, "a"), whole(2, "b", 1.5), start(2.5, "b", 1, 2), start(5, "b", 1, 2, 4)),
        [({3}, {3})],
    ),
    "an old word does not outlive what has run there since": (
        (start(0, "a"), whole(0.5, "b", 0.4), start(0.6, "b"), whole(3.5, "a", 3.4), start(3.6, "a", 1, 2, 3),
         start(5, "b", 1, 2)),
        [({3, 4}, set())],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "expected"), LOSSES.values(), ids=LOSSES)
def test_acknowledged_rows_that_are_lost(
    seen: Sequence[Start | Whole], expected: list[tuple[set[int], set[int]]]
) -> None:
    assert [(set(loss.rows), set(loss.broken)) for loss in losses(ROWS, seen)] == expected


def test_a_torn_line_is_no_row() -> None:
    assert rows_of("1\n2\n\nx3\n4") == {1, 2, 4}


BOTH, ONE = ("hostA", "hostB"), ("hostA",)
BREACHES = {
    "a second copy": ([Sight(1, BOTH, ()), Sight(2, ONE, ())], 1),
    "a second answer": ([Sight(1, ONE, BOTH), Sight(2, ONE, ())], 1),
    "two that were heard when the watch was late": ([Sight(1, ONE, BOTH, late=True), Sight(2, ONE, ())], 0),
    "two that go on": ([Sight(1, ONE, BOTH, late=True), Sight(1.01, ONE, BOTH), Sight(2, ONE, ())], 1),
    "a second copy seen by a watch that is late": ([Sight(1, BOTH, (), late=True), Sight(2, ONE, ())], 1),
    "one after the other": ([Sight(1, ONE, ONE), Sight(2, ("hostB",), ("hostB",))], 0),
}


@pytest.mark.parametrize(("sights", "count"), BREACHES.values(), ids=BREACHES)
def test_two_at_once_are_noticed(sights: list[Sight], count: int) -> None:
    assert len(list(judge.violations("web", sights, 3.0, Excuses()))) == count


def test_who_stops_while_another_one_is_looked_at_did_not_run_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": [True, False], "b": [True, True], "c": [False]}
    monkeypatch.setattr("failover.lab.watch._runs", lambda group: answers[group.name].pop(0))
    assert _runners({name: Path(name) for name in answers}) == ["b"]
    answers |= {"a": [True, True], "b": [True, True], "c": [False]}
    assert _runners({name: Path(name) for name in answers}) == ["a", "b"]


def status(**changes: Any) -> dict[str, Any]:
    copy = {"diverged": changes.get("diverged", False), "age_s": changes.get("age_s", 1.0)}
    return {
        "hosts": {"hostA": {"state": changes.get("state", "up")}},
        "holds": [{"subject": "web", "because": changes["held"]}] if "held" in changes else [],
        "vservers": {"web": {"backups": {"hostB": copy}}},
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    {
        "all is well": (status(), []),
        "a host is lost": (status(state="lost"), ["hostA is lost"]),
        "something is held back": (status(held="no copy"), ["held back: web: no copy"]),
        "a copy does not follow": (status(age_s=21.0), ["the copy of web on hostB is 21 s old"]),
        "a copy was never complete": (status(age_s=None), ["the copy of web on hostB is of unknown age"]),
        "a copy has diverged": (status(diverged=True, age_s=None), ["the copy of web on hostB has diverged"]),
    }.values(),
)
def test_what_is_lacking_at_the_end(found: dict[str, Any], expected: list[str]) -> None:
    assert list(lacking(found)) == expected


def verdict(**changes: Any) -> Verdict:
    plain: dict[str, Any] = {"outcome": Outcome({}), "differences": (), "losses": (), "errors": ()}
    return Verdict(**{**plain, **changes}, outages={}, faults={}, looks=Looks(1, 0.01, 0, {}, {}))


def test_each_kind_of_breach_fails_the_run() -> None:
    lost = list(losses(ROWS, [start(0, "a"), whole(2.9, "b", 2.5), start(5, "b", 1)]))
    allowed = list(losses(ROWS, [start(0, "a"), whole(2.9, "b", 2.5), start(5, "b", 1, 2)]))
    assert verdict(losses=tuple(allowed)).broken == ()
    for broken in (
        {"losses": tuple(lost)},
        {"outcome": Outcome({}, violations=("invariant 1: …",))},
        {"differences": ("web is waiting",)},
        {"errors": ("hostA, guard.log: KeyError: 'web'",)},
    ):
        assert len(verdict(**broken).broken) == 1


def test_faults_are_counted_by_word() -> None:
    events = opened(3).story.events or ()
    assert sum(faults_of(events).values()) == len([event for event in events if event.word not in HEALS])
    assert faults_of(events)["cut one way"] == len([e for e in events if e.word == "cut" and "->" in e.text])


# --- on real processes ------------------------------------------------------------------------------------------------


def command(*words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "failover", "lab", "chaos", "--name", NAME, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_is_written_out(tmp_path: Path) -> None:
    file = tmp_path / "chaos.yaml"
    out, _ = command("--seed", "5", "--minutes", "2", "--hosts", "4", "--write", str(file)).communicate(timeout=60)
    assert file.read_text() == chaos.story_text(5, 120.0, 4)
    assert f"failover simulate {file}" in out


@pytest.mark.parametrize("seed", [pytest.param(4, marks=[ON_REAL_PROCESSES[0], pytest.mark.timeout(900)])])
def test_five_minutes_of_chaos(seed: int) -> None:
    process = command("--seed", str(seed), "--minutes", "5", "--json")
    out, err = process.communicate(timeout=840)
    told = json.loads(out)
    assert (process.returncode, told["broken"]) == (0, []), "\n".join(told["story"])
    assert sum(told["faults"].values()) >= 15, err
    assert told["looks"]["watch"] > 5000
    assert all(v["acknowledged"] > v["rows"] / 2 > 2000 for v in told["vservers"].values())
    assert left_of(NAME) == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=ON_REAL_PROCESSES)])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals) -> None:
    process = command("--seed", "4", "--minutes", "1")
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r" +[0-9.]+ s  ", line):  # the first fault
            break
    time.sleep(0.5)
    process.send_signal(number)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_of(NAME) == []
