"""The leader's policy for what has never run, also where its tree may not run. Each row's name is a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.model import ClusterIntent, Kind, MoveWish, State, View, VserverIntent, VserverReport, Want
from failover.plan import plan
from tests.views import NOW, Expected, assert_decides, owned, view

STOPPED_TREE = VserverReport(State.STOPPED, 0)
STOPPED_UNDER_7 = VserverReport(State.STOPPED, 7)
UNSENT = VserverReport(State.STOPPED, 7, handing_failed="no space")

# name: (view, the expected word: (owner, target, kind) | "hold: pattern" | None)
CASES: dict[str, tuple[View, Expected]] = {
    "the first start goes to the primary, which has the tree": (
        view(says={"alpha": STOPPED_TREE}),
        ("alpha", None, Kind.FIRST),
    ),
    "the first start goes to a backup that has the tree when the primary is lost": (
        view(says={"beta": STOPPED_TREE}, lost=("alpha",)),
        ("beta", None, Kind.FIRST),
    ),
    "... but not before the primary has had time to boot": (
        view(says={"beta": STOPPED_TREE}, lost=("alpha",), led_at=NOW - 59),
        "hold: alpha, its primary, is waited for",
    ),
    "... nor before every live host has said what runs there": (
        view(says={"alpha": STOPPED_TREE}, unreported=("gamma",)),
        "hold: gamma has not said yet whether it runs there",
    ),
    "... going by the present cluster.yaml": (
        view(says={"alpha": STOPPED_TREE}, behind=("beta",)),
        "hold: beta has not said yet whether it runs there",
    ),
    "... but a lost host is not waited for": (
        view(says={"alpha": STOPPED_TREE}, lost=("gamma",), behind=("gamma",)),
        ("alpha", None, Kind.FIRST),
    ),
    "what has its tree where it may not run is sent elsewhere first": (
        view(says={"alpha": STOPPED_TREE}, drained=("alpha",)),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... and has its first start there": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": VserverReport(State.STOPPED, 7, handed=13)},
            drained=("alpha",),
        ),
        ("beta", None, Kind.FIRST),
    ),
    "... and if that fails, it is sent to another": (
        view(word=owned(target="beta", unstarted=True), says={"alpha": UNSENT}, drained=("alpha",)),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "... or once more to the same": (
        view(word=owned(target="beta", unstarted=True), says={"alpha": UNSENT}, drained=("alpha",), lost=("gamma",)),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... or it stays, and is started nowhere": (
        view(
            word=owned(target="beta", unstarted=True, setbacks=(NOW - 59,)),
            says={"alpha": UNSENT},
            drained=("alpha", "gamma"),
        ),
        r"hold: alpha is drained, and beta could not take it \(no space\), and is tried again at 00:16:41 UTC",
    ),
    "... until it is tried again": (
        view(
            word=owned(target="beta", unstarted=True, setbacks=(NOW - 60,)),
            says={"alpha": UNSENT},
            drained=("alpha", "gamma"),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... each host in turn": (
        view(
            word=owned(target="gamma", unstarted=True, setbacks=(NOW - 60,), unreached=("beta",)),
            says={"alpha": UNSENT},
            drained=("alpha",),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... also when its target is lost meanwhile": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": STOPPED_UNDER_7},
            drained=("alpha",),
            lost=("beta", "gamma"),
        ),
        "hold: alpha is drained, and beta is lost",
    ),
    "... and where its tree is as soon as it may": (
        view(word=owned(target="beta", unstarted=True), says={"alpha": UNSENT}),
        ("alpha", None, Kind.FIRST),
    ),
    "... an operator may send it elsewhere": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": UNSENT},
            drained=("alpha",),
            intent=VserverIntent(move=MoveWish("gamma", 7)),
        ),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "... where it may not go it is not sent, and it is not started at home for that": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": UNSENT},
            drained=("alpha", "gamma"),
            intent=VserverIntent(move=MoveWish("gamma", 7)),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... whatever is wanted of it, it is on its way": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": STOPPED_UNDER_7},
            drained=("alpha",),
            intent=VserverIntent(want=Want.STOPPED),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... also when it was ignored meanwhile": (
        view(
            word=owned(target="beta", unstarted=True, want=Want.IGNORED),
            says={"alpha": STOPPED_UNDER_7},
            drained=("alpha",),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... but what a person has started there goes on": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": VserverReport(State.RUNNING, 7, by_hand=True)},
            drained=("alpha",),
        ),
        ("alpha", None, Kind.FIRST),
    ),
    "... and what a person has started elsewhere is adopted": (
        view(
            word=owned(target="beta", unstarted=True),
            says={"alpha": UNSENT, "gamma": VserverReport(State.RUNNING, 7, by_hand=True)},
            drained=("alpha",),
        ),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "without a tree anywhere nothing is started": (view(), "hold: no host that is up has its tree"),
    "a vserver found running is adopted where it runs": (
        view(says={"gamma": VserverReport(State.RUNNING, 0), "alpha": STOPPED_TREE}),
        ("gamma", None, Kind.ADOPTED),
    ),
    "a vserver found running twice goes on where it is preferred": (
        view(says={"gamma": VserverReport(State.RUNNING, 0), "beta": VserverReport(State.RUNNING, 0)}),
        ("beta", None, Kind.ADOPTED),
    ),
    "... but not while one of the hosts is lost": (
        view(says={"gamma": VserverReport(State.RUNNING, 0), "beta": VserverReport(State.RUNNING, 0)}, lost=("gamma",)),
        "hold: it may still run on gamma, which is lost",
    ),
    "an ignored vserver is left alone": (
        view(says={"alpha": STOPPED_TREE}, intent=VserverIntent(want=Want.IGNORED)),
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    assert_decides(*CASES[name])


@pytest.mark.parametrize("name", [name for name, (_, expected) in CASES.items() if isinstance(expected, tuple)])
def test_what_has_never_run_is_on_its_way_or_may_be_started(name: str) -> None:
    (word,) = plan(CASES[name][0]).changes[0].assignments
    assert not word.unstarted or word.target is not None


def test_what_is_sent_first_is_not_to_be_started_on_the_way() -> None:
    (sent,) = plan(view(says={"alpha": STOPPED_TREE}, drained=("alpha",))).changes[0].assignments
    there = view(word=sent, says={"alpha": VserverReport(State.STOPPED, sent.epoch, handed=13)}, drained=("alpha",))
    (given,) = plan(there).changes[0].assignments
    assert (sent.unstarted, given.owner, given.unstarted) == (True, "beta", False)


@pytest.mark.parametrize(("handing_failed", "in_force"), [("no space", True), ("", False)])
def test_only_a_sending_that_fails_does_not_hold_a_disarm_up(handing_failed: str, in_force: bool) -> None:
    says = {"alpha": VserverReport(State.STOPPED, 7, handing_failed=handing_failed)}
    word = owned(target="beta", unstarted=True, setbacks=(NOW - 1,))
    seen = view(word=word, says=says, drained=("alpha", "gamma"))
    disarmed = replace(seen, intents=replace(seen.intents, cluster=ClusterIntent(disarmed=True)))
    assert plan(disarmed).memory.disarmed is in_force
