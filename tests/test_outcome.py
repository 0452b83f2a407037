"""What became of a story against what it expects. The names of the rows are the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.stories.outcome import Outcome, differences
from failover.stories.story import Expect, Move
from tests.test_story import told

TAKEN = Move("vA", "h1", "h2", "takeover")
BACK = Move("vA", "h2", "h1", "planned")
OTHER = Move("vB", "h1", "h3", "takeover")
OUTCOME = Outcome(
    final={"vA": "started@h2", "vB": "started@h3"},
    fenced=frozenset(("h1",)),
    moves=(TAKEN, OTHER),
    story=("   100.000 s  isolate h1", "   104.100 s  vA goes to h2"),
    started=frozenset((("vA", "h1"), ("vA", "h2"))),
    stopped=frozenset((("vA", "h1"),)),
)

AGREED = {
    "nothing is expected": Expect(),
    "what is left out is not checked": Expect(final={"vA": ("started@h2",)}),
    "any of several states": Expect(final={"vA": ("started@h1", "started@h2")}),
    "all of it": Expect(
        {"vA": ("started@h2",), "vB": ("started@h3",)}, frozenset(("h1",)), (TAKEN, OTHER), 0, ("vA .* h2",)
    ),
    "the order between vservers does not matter": Expect(moves=(OTHER, TAKEN)),
}


@pytest.mark.parametrize("expect", AGREED.values(), ids=AGREED.keys())
def test_it_is_as_expected(expect: Expect) -> None:
    assert differences(replace(told(), expect=expect), OUTCOME) == ()


DIFFERENT = {
    "another state": (Expect(final={"vA": ("frozen@h1",)}), ("vA is started@h2, expected frozen@h1",)),
    "none of several states": (
        Expect(final={"vA": ("started@h1", "waiting")}),
        ("vA is started@h2, expected started@h1 or waiting",),
    ),
    "not there": (
        Expect(final={"vX": ("waiting",)}),
        ("vX is not known any more, expected waiting",),
    ),
    "nobody should be dead": (Expect(fenced=frozenset()), ("h1 was declared dead, which is not expected",)),
    "another one should be dead": (
        Expect(fenced=frozenset(("h1", "h2"))),
        ("h2 was not declared dead",),
    ),
    "no moves": (
        Expect(moves=()),
        (
            "the move of vA, h1 → h2 (takeover), is not expected",
            "the move of vB, h1 → h3 (takeover), is not expected",
        ),
    ),
    "one move more": (
        Expect(moves=(TAKEN, BACK, OTHER)),
        ("move 2 of vA, h2 → h1 (planned), did not happen",),
    ),
    "another kind of move": (
        Expect(moves=(replace(TAKEN, kind="planned"), OTHER)),
        ("the move of vA is h1 → h2 (takeover), expected h1 → h2 (planned)",),
    ),
    "a command should have been refused": (Expect(rejected=1), ("no command was refused, expected 1",)),
    "nobody says so": (Expect(says=("vB .* h3",)), ("no line of the story matches 'vB .* h3'",)),
}


@pytest.mark.parametrize(("expect", "said"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_it_is_not_as_expected(expect: Expect, said: tuple[str, ...]) -> None:
    assert differences(replace(told(), expect=expect), OUTCOME) == said


FORBIDDEN = {
    "a move": (("any_move_of", "vA"), ("vA moved h1 → h2 (takeover), which is forbidden",)),
    "a start": (("start", "vA", "h2"), ("vA was started on h2, which is forbidden",)),
    "a start elsewhere": (("start", "vA", "h3"), ()),
    "a stop": (("stop", "vA", "h1"), ("vA was stopped on h1, which is forbidden",)),
    "a takeover": (("takeover_of", "h1"), ("vA, vB was taken over from h1, which is forbidden",)),
    "a takeover of another": (("takeover_of", "h2"), ()),
    "what is always forbidden": (("run_before_fenced",), ()),
}


@pytest.mark.parametrize(("forbid", "said"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_is_forbidden(forbid: tuple[str, ...], said: tuple[str, ...]) -> None:
    assert differences(replace(told(), forbid=(forbid,)), OUTCOME) == said


def test_a_declaration_alone_is_a_takeover() -> None:
    story = replace(told(), forbid=(("takeover_of", "h1"),))
    assert differences(story, replace(OUTCOME, moves=())) == ("h1 was declared dead, which is forbidden",)
