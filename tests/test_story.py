"""Story files -> Story. The names of the rows are the policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from failover.config import BadConfig, Mark, Problem
from failover.model import Want
from failover.stories.events import WORDS, Event, Names, read_event, usage
from failover.stories.reading import load, load_events, read_story
from failover.stories.story import Expect, Initial, Move, Story, Traits

# A story without a problem; a row says what it changes.
HEALTHY = {
    "id": "a-story",
    "title": "Something happens.",
    "cluster": "{hosts: {h1: {}, h2: {}, h3: {}}, vservers: {vA: {primary: h1, backups: [h2, h3]}}}",
    "events": "[{at: 100s, do: isolate h1}]",
    "until": "700s",
}


def text(**changed: str) -> str:
    """The healthy story with other top-level values; one that is empty is left out."""
    return "".join(f"{key}: {value}\n" for key, value in (HEALTHY | changed).items() if value)


def told(**changed: str) -> Story:
    return read_story(text(**changed), "story.yaml")


def problems(source: str) -> tuple[Problem, ...]:
    with pytest.raises(BadConfig) as caught:
        read_story(source, "story.yaml")
    return caught.value.problems


def doing(event: str, **changed: str) -> str:
    return text(events=f"[{{at: 100s, do: {event!r}}}]", **changed)


# --- what is understood -----------------------------------------------------------------------------------------------


def test_a_story_of_the_shortest_kind() -> None:
    story = told()
    assert (story.id, story.title, story.until_s) == ("a-story", "Something happens.", 700.0)
    assert set(story.cluster.hosts) == {"h1", "h2", "h3"}
    assert story.events == (Event(100.0, "isolate h1", "isolate", host="h1"),)
    assert (story.traits, story.initial, story.expect, story.forbid) == ({}, Initial(), Expect(), ())


EVENTS = {
    "a host": ("power-off h1", Event(0, "", "power-off", host="h1")),
    "a host for a time": ("stall h1 1.5m", Event(0, "", "stall", host="h1", length_s=90.0)),
    "a time alone": ("leader-hang 5s", Event(0, "", "leader-hang", length_s=5.0)),
    "nothing": ("store-down", Event(0, "", "store-down")),
    "a link both ways": ("cut h1 h2", Event(0, "", "cut", links=(("h1", "h2"), ("h2", "h1")))),
    "a link one way": ("cut h1 -> h2", Event(0, "", "cut", links=(("h1", "h2"),))),
    "a link one way, written tightly": ("mend store->h1", Event(0, "", "mend", links=(("store", "h1"),))),
    "a link to the clients": ("cut h1 clients", Event(0, "", "cut", links=(("h1", "clients"), ("clients", "h1")))),
    "a clock that jumps ahead": ("clock h1 +5s", Event(0, "", "clock", host="h1", length_s=5.0)),
    "a clock that jumps back": ("clock h1 -1h", Event(0, "", "clock", host="h1", length_s=-3600.0)),
    "a clock that is fast": ("drift h1 1%", Event(0, "", "drift", host="h1", drift=0.01)),
    "a clock that is slow": ("drift h1 -0.5%", Event(0, "", "drift", host="h1", drift=-0.005)),
    "a size": ("write vA 50M", Event(0, "", "write", vserver="vA", size_bytes=50 * 2**20)),
    "a vserver and a host": ("move vA h2", Event(0, "", "move", vserver="vA", host="h2")),
    "an option": ("takeover h1 --confirmed-off", Event(0, "", "takeover", host="h1", options=("--confirmed-off",))),
    "an option with a host": (
        "start vA --on h2 --accept-loss",
        Event(0, "", "start", vserver="vA", host="h2", options=("--on", "--accept-loss")),
    ),
}


@pytest.mark.parametrize(("said", "event"), EVENTS.values(), ids=EVENTS.keys())
def test_an_event_is_understood(said: str, event: Event) -> None:
    read = read_event(said, 7.0, Names(("h1", "h2"), ("vA",)))
    assert read.event == replace(event, at_s=7.0, text=said)
    assert (read.complaints, read.group) == ((), None)


def test_every_word_has_a_usage_that_is_understood() -> None:
    """As the messages tell it, so it can be written."""
    filled = {"HOST": "h1", "VSERVER": "vA", "NAME": "vN", "A B, or A -> B for one way": "h1 store", "{…}": "{}"}
    for word, shape in WORDS.items():
        said = " ".join((word, *(filled.get(kind, kind) for kind in shape.takes)))
        assert read_event(said, 0.0, Names(("h1",), ("vA",))).complaints == (), said
        assert usage(word).startswith(word)


def test_events_are_in_the_order_of_time_and_then_of_the_file() -> None:
    story = told(events="[{at: 300s, do: join h1}, {at: 100s, do: [isolate h1, isolate h2]}]")
    assert [(event.at_s, event.text) for event in story.events or ()] == [
        (100.0, "isolate h1"),
        (100.0, "isolate h2"),
        (300.0, "join h1"),
    ]


def test_a_story_without_events_has_them_drawn_and_an_empty_list_is_none() -> None:
    assert told(events="").events is None
    assert told(events="[]").events == ()


def test_a_cluster_file_is_a_story_too() -> None:
    story = read_story(HEALTHY["cluster"], "cluster.yaml")
    assert (story.events, story.expect, story.until_s) == (None, Expect(), 3600.0)


INITIAL = {
    "all is off": ("{power: all_off}", Initial(power={"h1": False, "h2": False, "h3": False})),
    "some are off": ("{power: {h1: on, h2: off}}", Initial(power={"h1": True, "h2": False})),
    "what was shut down in order is off": (
        "{down_cleanly: [h2]}",
        Initial(power={"h2": False}, down_cleanly=("h2",)),
    ),
    "one host is a list of one": ("{running: {vA: h1}}", Initial(running={"vA": ("h1",)})),
    "a second copy": ("{running: {vA: [h1, h2]}}", Initial(running={"vA": ("h1", "h2")})),
    "ages, and a host without a replica": (
        "{replica_age: {vA: {h2: 90s, h3: none}}}",
        Initial(replica_age_s={"vA": {"h2": 90.0, "h3": None}}),
    ),
    "an owner declared dead": (
        "{owners: {vA: h1}, recovering: [vA]}",
        Initial(owners={"vA": "h1"}, recovering=("vA",)),
    ),
    "a host with a watchdog": ("{watchdog: [h2]}", Initial(watchdog=("h2",))),
}


@pytest.mark.parametrize(("said", "initial"), INITIAL.values(), ids=INITIAL.keys())
def test_the_beginning_is_understood(said: str, initial: Initial) -> None:
    assert told(initial=said).initial == initial


def test_yes_and_no_are_words() -> None:
    story = told(traits="{vA: {fails_start: 2, fails_start_on: h2, fails_stop: yes, hangs: off}}")
    assert story.traits == {"vA": Traits(fails_start=2, fails_start_on=("h2",), fails_stop=True)}


def test_an_expectation_is_understood() -> None:
    story = told(
        expect="{final: {vA: [started@h1, waiting]}, fenced: [], rejected: 0, says: ['vA .* h2'], "
        "moves: [{vserver: vA, from: h1, to: h2, kind: planned}]}",
        forbid="[any_move_of vA, start vA@h2, takeover_of h1, run_before_fenced]",
    )
    assert story.expect == Expect(
        {"vA": ("started@h1", "waiting")}, frozenset(), (Move("vA", "h1", "h2", "planned"),), 0, ("vA .* h2",)
    )
    assert story.forbid == (
        ("any_move_of", "vA"),
        ("start", "vA", "h2"),
        ("takeover_of", "h1"),
        ("run_before_fenced",),
    )


# --- changes of the cluster -------------------------------------------------------------------------------------------


def changed(event: str, **more: str) -> Event:
    events = read_story(doing(event, **more), "story.yaml").events
    assert events
    return events[0]


def test_a_change_is_merged_over_the_present_file() -> None:
    cluster = changed("apply {vservers: {vA: {want: stopped}}, hosts: {h4: {}}}").cluster
    assert cluster
    assert (cluster.vservers["vA"].want, cluster.vservers["vA"].hosts) == (Want.STOPPED, ("h1", "h2", "h3"))
    assert list(cluster.hosts) == ["h1", "h2", "h3", "h4"]


def test_a_list_is_replaced_and_nothing_takes_away() -> None:
    cluster = changed("apply {vservers: {vA: {backups: [h2]}}, hosts: {h3: ~}}").cluster
    assert cluster
    assert (cluster.vservers["vA"].hosts, list(cluster.hosts)) == (("h1", "h2"), ["h1", "h2"])


def test_what_is_added_may_be_named_from_then_on() -> None:
    story = told(
        events="[{at: 1s, do: 'add vB {primary: h1, backups: []}'}, {at: 2s, do: stop vB}]",
        expect="{final: {vB: stopped@h1}}",
    )
    assert story.events and story.events[0].vserver == "vB" and story.events[0].cluster
    assert set(story.events[0].cluster.vservers) == {"vA", "vB"}


def test_what_is_added_later_may_not_be_named_before() -> None:
    source = text(events="[{at: 9s, do: 'add vB {primary: h1, backups: []}'}, {at: 2s, do: stop vB}]")
    assert [problem.advice for problem in problems(source)] == ["'vB' is not under vservers: known here: vA"]


def test_what_was_removed_may_be_added_again() -> None:
    story = told(events="[{at: 1s, do: remove vA}, {at: 2s, do: 'add vA {primary: h2, backups: []}'}]")
    assert story.events and story.events[1].cluster and story.events[1].cluster.vservers["vA"].primary == "h2"


def test_what_is_taken_away_may_still_be_named() -> None:
    """The change may be refused."""
    told(
        events="[{at: 1s, do: 'apply {vservers: {vA: {backups: [h2]}}, hosts: {h3: ~}}'}, {at: 2s, do: power-off h3}]",
        expect="{fenced: [h3]}",
    )


# --- what is wrong ----------------------------------------------------------------------------------------------------

BAD_EVENTS = {
    "an unknown word": ("isolat h1", "'isolat' is not an event that is known here (did you mean isolate?)"),
    "an unknown host": ("isolate h33", "'h33' is not under hosts (did you mean h3?)"),
    "an unknown vserver": ("crash va", "'va' is not under vservers (did you mean vA?)"),
    "too few words": ("move vA", "too few words: write move VSERVER HOST"),
    "too many words": ("join h1 h2", "'h2' is one word too many: write join HOST"),
    "no unit": ("stall h1 5", "'5' has no unit (did you mean 5s?)"),
    "no time at all": ("stall h1 0s", "'0s' is no time at all: name at least 1ms"),
    "a jump without a direction": ("clock h1 5s", "'5s' says not which way: write +5s or -5s"),
    "a drift without a share": ("drift h1 2", "'2' is not a share: as in 1%"),
    "a size without a unit": ("write vA 5", "'5' has no unit (did you mean 5M?)"),
    "a link with one end": ("cut h1", "names no link: write cut A B, or A -> B for one way"),
    "a link to itself": ("cut h1 h1", "both ends are the same: write cut A B, or A -> B for one way"),
    "a link without a host": ("cut store clients", "one end must be a host: write cut A B, or A -> B for one way"),
    "a link to nobody known": ("cut h1 stor", "'stor' is not under hosts (did you mean store?)"),
    "an arrow at the wrong place": ("cut -> h1 h2", "names no link: write cut A B, or A -> B for one way"),
    "an unknown option": ("start vA --onn h2", "start has no option --onn (did you mean --on?)"),
    "an option without its host": (
        "start vA --on",
        "nothing follows --on: write start VSERVER [--on HOST] [--accept-loss]",
    ),
    "an option of another command": (
        "takeover h1 --confirmed",
        "takeover has no option --confirmed (did you mean --confirmed-off?)",
    ),
    "a change without a group": ("apply", "there is no group in { }: write apply {…}"),
    "a group for who takes none": ("stop vA {a: b}", "stop takes no group: write stop VSERVER"),
    "a name that is none": (
        "add v/x {primary: h1, backups: []}",
        "'v/x' is not a name: up to 63 letters, digits, '_', '-' and single dots, the first a letter or a digit",
    ),
    "a vserver added twice": (
        "add vA {primary: h1, backups: []}",
        "vA is there already: change it with apply {vservers: {vA: …}}, or remove it before",
    ),
    "an open bracket in a change": (
        "apply {hosts: {h4: {}}",
        "the { of line 4 is not closed, or lacks a comma before this: close it with }",
    ),
    "an unknown key in a change": (
        "apply {vservers: {vA: {wnat: stopped}}}",
        "is not a key that is known here (did you mean want?)",
    ),
    "a change after which the file is wrong": (
        "apply {hosts: {h2: ~}}",
        "'h2' is not under hosts: known here: h1, h3",
    ),
}


@pytest.mark.parametrize(("event", "advice"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_a_bad_event_is_told(event: str, advice: str) -> None:
    assert [problem.advice for problem in problems(doing(event))] == [advice]


BAD_STORIES = {
    "no id": (text(id=""), "", "id", "is missing: name what happens, as in id: owner-isolated"),
    "no end": (text(until=""), "", "until", "is missing: say when the story ends, as in until: 700s"),
    "no cluster": (
        text(cluster=""),
        "",
        "cluster",
        "is missing: name its hosts and vservers, as in cluster: {hosts: {h1: {}}, vservers: {…}}",
    ),
    "a key that nobody knows": (
        text(tilte="x"),
        "6:1",
        "tilte",
        "is not a key that is known here (did you mean title?)",
    ),
    "an event after the end": (
        text(events="[{at: 800s, do: join h1}]"),
        "4:15",
        "events[1].at",
        "is after the end: the story ends at 700s: raise until, or let it happen earlier",
    ),
    "an event without a time": (
        text(events="[{do: join h1}]"),
        "",
        "events[1].at",
        "is missing: the time from the start, as in at: 100s",
    ),
    "a time without a unit": (
        text(events="[{at: 100, do: join h1}]"),
        "4:15",
        "events[1].at",
        "'100' has no unit (did you mean 100s?)",
    ),
    "the second of two in a list": (
        text(events="[{at: 1s, do: [join h1, join h9]}]"),
        "4:38",
        "events[1].do",
        "'h9' is not under hosts: known here: h1, h2, h3",
    ),
    "an expectation of a vserver that is not there": (
        text(expect="{final: {vX: started@h1}}"),
        "6:22",
        "expect.final.vX",
        "'vX' is not under vservers: known here: vA",
    ),
    "a state that nobody knows": (
        text(expect="{final: {vA: startd@h1}}"),
        "6:22",
        "expect.final.vA",
        "'startd' is not a state (did you mean started?)",
    ),
    "a state on no host": (
        text(expect="{final: {vA: started}}"),
        "6:22",
        "expect.final.vA",
        "'started' says not on which host: as in started@h1",
    ),
    "a state that has no host": (
        text(expect="{final: {vA: waiting@h1}}"),
        "6:22",
        "expect.final.vA",
        "'waiting@h1' names a host: write waiting alone",
    ),
    "an unknown kind of move": (
        text(expect="{moves: [{vserver: vA, from: h1, to: h2, kind: plannd}]}"),
        "6:56",
        "expect.moves[1].kind",
        "'plannd' is not one of takeover, planned (did you mean planned?)",
    ),
    "a move to nowhere": (
        text(expect="{moves: [{vserver: vA, from: h1, to: h1, kind: planned}]}"),
        "6:46",
        "expect.moves[1].to",
        "h1 is where it comes from: name another host",
    ),
    "no regular expression": (
        text(expect="{says: ['vA (h1']}"),
        "6:17",
        "expect.says",
        "'vA (h1' is no regular expression: missing ), unterminated subpattern at position 3: "
        "write \\ before ( [ { . * + ? |",
    ),
    "nothing that can be forbidden": (
        text(forbid="[any_mov_of vA]"),
        "6:10",
        "forbid",
        "'any_mov_of' cannot be forbidden (did you mean any_move_of?)",
    ),
    "something forbidden on no host": (
        text(forbid="[start vA]"),
        "6:10",
        "forbid",
        "'start vA' is not complete or says too much: write start VSERVER@HOST",
    ),
    "a problem of the cluster": (
        text(cluster="{hosts: {h1: {}}, vservers: {vA: {primary: h1, backups: [h2]}}}"),
        "3:67",
        "cluster.vservers.vA.backups",
        "'h2' is not under hosts: known here: h1",
    ),
    "a cluster that is a name": (
        text(cluster="prod"),
        "3:10",
        "cluster",
        "is not a group of keys: as in cluster: {hosts: {h1: {}}, vservers: {vA: {primary: h1, backups: []}}}",
    ),
    "it runs where no power is": (
        text(initial="{power: {h1: off}, running: {vA: h1}}"),
        "6:43",
        "initial.running.vA",
        "vA cannot run on h1, which is off: say power: on, or leave it out",
    ),
    "it was shut down and is on": (
        text(initial="{power: {h1: on}, down_cleanly: [h1]}"),
        "6:43",
        "initial.down_cleanly",
        "h1 was shut down but is on: leave out one of the two",
    ),
    "nobody was lost": (
        text(initial="{recovering: [vA]}"),
        "6:24",
        "initial.recovering",
        "vA has no owner that could be lost: add owners: {vA: …}",
    ),
    "a watchdog of nobody": (
        text(initial="{watchdog: [h9]}"),
        "6:22",
        "initial.watchdog",
        "'h9' is not under hosts: known here: h1, h2, h3",
    ),
    "no trait that is known": (
        text(traits="{vA: {fail_start: 2}}"),
        "6:15",
        "traits.vA.fail_start",
        "is not a key that is known here (did you mean fails_start?)",
    ),
}


@pytest.mark.parametrize(("source", "place", "path", "advice"), BAD_STORIES.values(), ids=BAD_STORIES.keys())
def test_a_bad_story_is_told_with_its_place(source: str, place: str, path: str, advice: str) -> None:
    found = problems(source)
    assert [(problem.path, problem.advice) for problem in found] == [(path, advice)]
    if place:
        line, column = place.split(":")
        assert found[0].mark == Mark(int(line), int(column))


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    source = text(
        id="no name",
        cluster="{hosts: {h1: {}}, vservers: {vA: {primary: h1, backups: [h7]}}}",
        events="[{at: 9000s, do: [isolate h9, cut h1]}]",
        expect="{fenced: [h8]}",
    )
    lines = [problem.mark.line for problem in problems(source) if problem.mark]
    assert lines == [1, 3, 4, 4, 4, 6]


def test_a_list_is_no_story() -> None:
    assert [problem.advice for problem in problems("[1, 2]")] == ["begins with no key: begin with id: and a name"]


@pytest.mark.parametrize("source", ["", "# later\n"])
def test_an_empty_file_is_no_story(source: str) -> None:
    assert [problem.advice for problem in problems(source)] == ["is empty: begin with the story in docs/simulate.md"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"is not there$"):
        load(tmp_path / "none.yaml")


# --- for who has a cluster already ------------------------------------------------------------------------------------


def test_only_the_events_are_needed_in_a_lab(tmp_path: Path) -> None:
    story = tmp_path / "story.yaml"
    story.write_text("events: [{at: 1s, do: [power-off hostA, move web1 hostB]}]\n")
    assert [event.text for event in load_events(story)] == ["power-off hostA", "move web1 hostB"]
    story.write_text("events: [{at: 1s, do: power-of hostA}]\n")
    with pytest.raises(BadConfig, match="did you mean power-off"):
        load_events(story)
    story.write_text(text())
    assert [event.text for event in load_events(story)] == ["isolate h1"]
