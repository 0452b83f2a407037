"""How a story's waits are shortened, what is refused, and what is made of what was seen: pure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from failover.config.problem import BadConfig
from failover.lab import judge, pace
from failover.lab.ability import refuse
from failover.lab.judge import Excuses, Seen
from failover.lab.watch import Sight
from failover.stories.reading import Opened, open_story, read_story
from failover.stories.story import Move, Story

V = "{primary: h1, backups: [h2, h3]"


def story(events: str, vserver: str = "", until: str = "900s", more: str = "") -> Story:
    text = f"""
id: a
cluster: {{hosts: {{h1: {{}}, h2: {{}}, h3: {{}}}}, vservers: {{vA: {V}{vserver}}}}}}}
events: [{events}]
until: {until}
{more}
"""
    return read_story(text, "a.yaml")


# --- pace -------------------------------------------------------------------------------------------------------------

PACES = {
    "long waits are shortened": (story("{at: 100s, do: drain h1}, {at: 400s, do: undrain h1}"), (3, 28), 38),
    "short ones stay as they are": (story("{at: 100s, do: isolate h1}, {at: 101s, do: join h1}"), (3, 4), 14),
    "what the story waits for is waited for: a way home": (
        story("{at: 100s, do: power-off h1}, {at: 200s, do: power-on h1}", ", failback: {auto: 60s}", "900s"),
        (3, 78),
        153,
    ),
    "a way home that the story does not see is not seen": (
        story("{at: 100s, do: power-off h1}, {at: 200s, do: power-on h1}", ", failback: {auto: 20m}"),
        (3, 28),
        38,
    ),
    "several waits together are as long as what is over after all of them": (
        story(
            "{at: 100s, do: power-off h1}, {at: 200s, do: power-on h1}, {at: 350s, do: move vA h3}",
            ", failback: {auto: 4m}",
        ),
        (3, 103, 253),
        508,
    ),
    "a copy that nobody brings up to date grows old": (
        story("{at: 100s, do: disk-full h2}, {at: 400s, do: power-off h1}"),
        (3, 78),
        88,
    ),
    "a copy that is brought up to date does not": (
        story("{at: 100s, do: disk-full h2}, {at: 200s, do: disk-free h2}, {at: 400s, do: power-off h1}"),
        (3, 28, 53),
        63,
    ),
    "crashes that are forgotten": (
        story("{at: 100s, do: crash vA}, {at: 300s, do: crash vA}", ", restart: {within: 2m}"),
        (3, 138),
        148,
    ),
    "when nobody led for long, each host may be slow to boot": (
        story("{at: 100s, do: store-down}, {at: 300s, do: store-up}"),
        (3, 78),
        153,
    ),
    "a host that is shut down keeps what is to wait for it": (
        story("{at: 100s, do: shutdown h1}", ", on_host_shutdown: {keep: 2m}"),
        (3,),
        138,
    ),
    "losses in a row are as close to each other as they were": (
        story(
            "{at: 100s, do: power-off h2}, {at: 110s, do: power-on h2}, {at: 200s, do: power-off h2}, "
            "{at: 210s, do: power-on h2}, {at: 300s, do: power-off h2}"
        ),
        (3, 13, 38, 48, 73),
        673,
    ),
}


@pytest.mark.parametrize(("told", "times", "end"), PACES.values(), ids=PACES.keys())
def test_pace(told: Story, times: tuple[float, ...], end: float) -> None:
    found = pace.paced(told)
    assert tuple(round(at) for at in found.times) == times
    assert round(found.end_s) == end


def test_no_wait_is_longer_than_the_storys_and_what_lasts_is_shortened_too() -> None:
    told = story("{at: 100s, do: stall h1 2s}, {at: 300s, do: leader-hang 60s}, {at: 305s, do: isolate h2}")
    found = pace.paced(told)
    assert [round(length, 3) for length in found.lengths] == [2.0, 30.0, 0.0]
    assert found.times[2] - found.times[1] == pytest.approx(5.0)


TIMINGS = {
    "fast, as nothing depends on a lease's length": ("{at: 100s, do: isolate h1}, {at: 200s, do: join h1}", "fast"),
    "as in the simulator, where something is as short as a lease": ("{at: 100s, do: stall h1 3s}", "normal"),
}


@pytest.mark.parametrize(("events", "timing"), TIMINGS.values(), ids=TIMINGS.keys())
def test_timing(events: str, timing: str) -> None:
    assert pace.timing(story(events)) == timing


# --- what no lab can do -----------------------------------------------------------------------------------------------

CANNOT = {
    "a wall clock that jumps": ("events: [{at: 1s, do: clock h1 +5h}]", "line 3, .*clock h1.*wall clock"),
    "a drift": ("events: [{at: 1s, do: [isolate h1, drift h1 1%]}]", "events.1..do.2.*drift h1 1%|drift h1 1%"),
    "a disk that fails": ("events: [{at: 1s, do: disk-error h1}]", "disk-error h1.*do not fail"),
    "a trait": ("events: []\ntraits: {vA: {fails_stop: true}}", "line 4, .*traits.vA.fails_stop.*real vserver"),
    "an old replica": ("events: []\ninitial: {replica_age: {vA: {h2: 5s}}}", "initial.replica_age.*new at 0 s"),
    "a watchdog": ("events: []\ninitial: {watchdog: [h1]}", "initial.watchdog.*has no watchdog"),
    "an owner that is not the primary": ("events: []\ninitial: {owners: {vA: h2}}", "initial.owners.vA.*its primary"),
    "nothing to play": ("", "has no events"),
}


def opened(tmp_path: Path, text: str) -> Opened:
    path = tmp_path / "a.yaml"
    path.write_text(
        f"id: a\ncluster: {{hosts: {{h1: {{}}, h2: {{}}}}, vservers: {{vA: {V[:-4]}]}}}}}}\n{text}\nuntil: 9s\n"
    )
    found = open_story(path)
    assert found is not None
    return found


@pytest.mark.parametrize(("text", "says"), CANNOT.values(), ids=CANNOT.keys())
def test_what_no_lab_can_do_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        refuse(opened(tmp_path, text))


def test_all_of_it_is_told_at_once(tmp_path: Path) -> None:
    text = "traits: {vA: {hangs: true, fails_move: 1}}\nevents: [{at: 1s, do: [clock h1 +5h, disk-error h2]}]"
    with pytest.raises(BadConfig) as refused:
        refuse(opened(tmp_path, text))
    assert len(refused.value.problems) == 4


# --- the judge --------------------------------------------------------------------------------------------------------


def said(state: str, owner: str | None = "h1", want: str = "started") -> dict[str, Any]:
    return {"state": state, "owner": owner, "want": want}


FINALS: dict[str, tuple[dict[str, Any] | None, dict[str, Any], str]] = {
    "it runs": (said("running"), {"runs": ["h1"]}, "started@h1"),
    "it runs, though its owner is not heard": (said("waiting"), {"runs": ["h1"]}, "started@h1"),
    "it is held, and runs on, unheard, where no other host may run it": (
        said("waiting"),
        {"runs": ["h1"], "held": True, "lost": True},
        "waiting",
    ),
    "it is held, and runs nowhere": (said("waiting"), {"held": True}, "waiting"),
    "its host is cut off": (said("waiting"), {"frozen": ["h1"]}, "frozen@h1"),
    "it is stopped": (said("stopped", want="stopped"), {}, "stopped@h1"),
    "nobody owns it yet": (said("waiting", None), {}, "waiting"),
    "it is in error": (said("error"), {}, "error@h1"),
    "it is ignored, and runs elsewhere": (said("ignored"), {"runs": ["h2"]}, "ignored@h2"),
    "it was removed": (None, {"runs": ["h1"]}, "removed"),
}


@pytest.mark.parametrize(("entry", "seen", "final"), FINALS.values(), ids=FINALS.keys())
def test_final(entry: dict[str, Any] | None, seen: dict[str, Any], final: str) -> None:
    status = {
        "vservers": {"vA": entry} if entry else {},
        "holds": [{"subject": "vA"}] if seen.get("held") else [],
        "hosts": {"h1": {"state": "lost" if seen.get("lost") else "up"}},
    }
    runs, frozen = {"vA": seen.get("runs", [])}, {"vA": seen.get("frozen", [])}
    assert judge.final(Seen(status, False, runs, frozen), "vA", "h1") == final


def event(kind: str, host: str, vserver: str | None = "vA", **facts: Any) -> dict[str, Any]:
    return {"kind": kind, "host": host, "vserver": vserver, "at": 1.0, "text": "so", "epoch": 2, "facts": facts}


FIRST = event("first", "h1", want="started")
TAKEN = event("takeover", "h2", want="started", **{"from": "h1", "from_alive": False})
LOST = event("lost", "h1", None, owned="vA")
HISTORIES = {
    "a takeover from a lost host": ([FIRST, TAKEN], ["h1 h2 takeover"], {"h1"}),
    "an owner that took part is not fenced": (
        [FIRST, event("planned", "h2", want="started", **{"from": "h1", "from_alive": True})],
        ["h1 h2 planned"],
        set(),
    ),
    "what is stopped moves unseen": (
        [event("takeover", "h2", want="stopped", **{"from": "h1", "from_alive": False})],
        [],
        set(),
    ),
    "what has to wait for a lost host": ([FIRST, LOST], [], {"h1"}),
    "what had been handed over before": (
        [FIRST, event("planned", "h2", want="started", **{"from": "h1", "from_alive": False}), LOST],
        ["h1 h2 planned"],
        set(),
    ),
    "a lost host that owned nothing": ([FIRST, event("lost", "h3", None, owned="")], [], set()),
}


@pytest.mark.parametrize(("history", "moves", "fenced"), HISTORIES.values(), ids=HISTORIES.keys())
def test_moves_and_fenced(history: list[dict[str, Any]], moves: list[str], fenced: set[str]) -> None:
    expected = [Move("vA", *move.split()) for move in moves]
    assert (list(judge.moves(history)), judge.fenced(history)) == (expected, fenced)


def word(at: float, want: str, vserver: str = "vA") -> dict[str, Any]:
    return {**event("stays", "h1", vserver, want=want), "at": at}


ALWAYS = math.inf
UNMANAGED: dict[str, tuple[list[dict[str, Any]], list[tuple[float, float]]]] = {
    "nobody has said a word about it": ([word(1.0, "started", "vB")], [(-ALWAYS, ALWAYS)]),
    "it was managed from the first word on": ([word(1.0, "started")], [(-ALWAYS, 101.0)]),
    "it is ignored": ([word(1.0, "started"), word(7.0, "ignored")], [(-ALWAYS, 101.0), (107.0, ALWAYS)]),
    "it was ignored, and is managed again": (
        [word(1.0, "started"), word(7.0, "ignored"), word(8.0, "ignored"), word(9.0, "stopped")],
        [(-ALWAYS, 101.0), (107.0, 109.0)],
    ),
    "what is said without a word changes nothing": (
        [word(1.0, "started"), word(7.0, "ignored"), event("failing", "h1")],
        [(-ALWAYS, 101.0), (107.0, ALWAYS)],
    ),
}


@pytest.mark.parametrize(("history", "expected"), UNMANAGED.values(), ids=UNMANAGED.keys())
def test_unmanaged(history: list[dict[str, Any]], expected: list[tuple[float, float]]) -> None:
    assert judge.unmanaged(history, "vA", later_s=100.0) == expected


BOTH = (Sight(1.0, ("h1",), ("h1",)), Sight(5.0, ("h1", "h2"), ("h1",)), Sight(5.3, ("h2",), ("h2",)))
LONG = (Sight(5.0, ("h1", "h2"), ("h1",)), Sight(30.0, ("h2",), ("h2",)))
TWICE = ["invariant 1: vA runs on h1 and h2 for 0.300 s"]
SIGHTS = {
    "two run it": (BOTH, Excuses(), TWICE),
    "a host that stood still has its turn": (BOTH, Excuses(went_on=[5.0]), []),
    "... but only one": (BOTH, Excuses(went_on=[3.0]), TWICE),
    "a copy started by hand awaits the leader's turn": (BOTH, Excuses(by_hand={"vA": [4.0]}), []),
    "... but not for ever": (BOTH, Excuses(by_hand={"vA": [-5.1]}), TWICE),
    "... nor beforehand": (BOTH, Excuses(by_hand={"vA": [5.1]}), TWICE),
    "... nor another": (BOTH, Excuses(by_hand={"vB": [4.0]}), TWICE),
    "a copy started by hand that stays": (
        LONG,
        Excuses(by_hand={"vA": [4.0]}),
        ["invariant 1: vA runs on h1 and h2 for 25.000 s"],
    ),
    "two run it while it is ignored": (LONG, Excuses(unmanaged={"vA": [(4.0, ALWAYS)]}), []),
    "... or a little longer": (LONG, Excuses(unmanaged={"vA": [(4.0, 20.0)]}), []),
    "... but no more": (
        LONG,
        Excuses(unmanaged={"vA": [(4.0, 19.9)]}),
        ["invariant 1: vA runs on h1 and h2 for 25.000 s"],
    ),
    "two had run it before it was ignored": (BOTH, Excuses(unmanaged={"vA": [(5.1, ALWAYS)]}), TWICE),
    "two run it after it was ignored": (BOTH, Excuses(unmanaged={"vA": [(1.0, 4.9)]}), TWICE),
    "a copy started by hand, of what is ignored in time": (
        LONG,
        Excuses(by_hand={"vA": [4.0]}, unmanaged={"vA": [(9.0, ALWAYS)]}),
        [],
    ),
    "two speak with its address, whoever stood still": (
        (Sight(5.0, ("h2",), ("h1", "h2")),),
        Excuses(went_on=[5.0]),
        ["invariant 2: the address of vA is up on h1 and h2 for 1.000 s"],
    ),
}


@pytest.mark.parametrize(("sights", "excuses", "breaches"), SIGHTS.values(), ids=SIGHTS.keys())
def test_violations(sights: tuple[Sight, ...], excuses: Excuses, breaches: list[str]) -> None:
    assert [text for _, text in judge.violations("vA", sights, 6.0, excuses)] == breaches
