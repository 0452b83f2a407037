"""How often the manager repeats by itself what comes to nothing. Each row's name is a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.model import Assignment, Hold, Kind, MoveWish, State, View, VserverIntent, VserverReport
from failover.plan import plan
from tests.test_plan_rules import vs, world
from tests.views import NOW, V1, owned, view

FULL = VserverReport(State.STOPPED, 7, handing_failed="its disk is full")
BROKEN = VserverReport(State.ERROR, 7, because="no init")
ALONE = replace(V1, backups=("beta",))
HOMING = replace(V1, primary="beta", backups=("alpha", "gamma"), failback_s=10.0)

PAUSES = {1: 60.0, 2: 120.0, 3: 240.0, 4: 480.0, 5: 960.0, 6: 1800.0}  # so many setbacks: so long a pause


def often(times: int, ended_at: float) -> tuple[float, ...]:
    return tuple(ended_at - 100.0 * n for n in reversed(range(times)))


def failed_on_beta(times: int, ago_s: float) -> Assignment:
    back = often(times, NOW - ago_s)
    return owned(unreached=("beta",), setbacks=back, setback="its disk is full", at=NOW - ago_s)


def drained(word: Assignment, intent: VserverIntent | None = None, says: VserverReport | None = None) -> View:
    word = replace(word, hosts=ALONE.hosts)
    return view(
        word=word, vserver=ALONE, drained=("alpha",), intent=intent, says={"alpha": says} if says is not None else None
    )


APART = vs("app", primary="beta", backups=("alpha", "gamma"), apart_from=("db",))


def broken_rule(times: int, ago_s: float) -> View:
    """`app` is where `db` is, and has been moved for a rule before."""
    return world(
        vs("db", priority=200), APART, on={"app": "alpha"}, words={"app": {"mended": often(times, NOW - ago_s)}}
    )


@pytest.mark.parametrize(("times", "pause_s"), PAUSES.items())
@pytest.mark.parametrize("name", ["a drain", "a rule"])
def test_pauses_grow(name: str, times: int, pause_s: float) -> None:
    seen = {"a drain": lambda ago: drained(failed_on_beta(times, ago)), "a rule": lambda ago: broken_rule(times, ago)}
    early, due = plan(seen[name](pause_s - 0.5)), plan(seen[name](pause_s))
    assert not early.changes
    assert early.again_s == pytest.approx(0.5), "the leader looks again then"
    assert due.changes[0].assignments[0].target == "beta"


HOLDS: dict[str, tuple[View, Hold]] = {
    "what is drained says what failed, and when it is tried again": (
        drained(failed_on_beta(2, 20)),
        Hold(
            "v1",
            "alpha is drained, but it must stay there: beta could not take it (its disk is full), and is tried again "
            "at 00:18:20 UTC",
            "add or repair a backup, or try again at once: failover clear v1",
        ),
    ),
    "what may not go home yet says so, too": (
        view(word=replace(failed_on_beta(1, 20), owner="gamma"), vserver=HOMING),
        Hold(
            "v1",
            "it does not return to beta yet: beta could not take it (its disk is full), and is tried again "
            "at 00:17:20 UTC",
        ),
    ),
    "what breaks a rule again says when it is moved": (
        broken_rule(1, 20),
        Hold(
            "app",
            "alpha runs db, which must be apart from it; it was moved for a rule just now, and may be again "
            "at 00:17:20 UTC",
            "try again at once: failover clear app",
        ),
    ),
    "where it failed for a rule it is not tried a second time": (
        world(vs("db", priority=200), APART, on={"app": "alpha"}, words={"app": {"failed_on": ("beta", "gamma")}}),
        Hold(
            "app",
            "alpha runs db, which must be apart from it, but it must stay there: beta failed to run it before; "
            "gamma failed to run it before",
            "add or repair a backup",
        ),
    ),
}


@pytest.mark.parametrize("name", HOLDS)
def test_a_hold_names_the_reason_and_the_moment(name: str) -> None:
    seen, expected = HOLDS[name]
    assert plan(seen).holds == (expected,)


ARRIVED = owned(owner="beta", source="alpha", kind=Kind.PLANNED)
FAILED_BEFORE = {"unreached": ("beta",), "setbacks": (NOW - 900, NOW - 800), "setback": "its disk is full"}
# name: (view, what is remembered then: (unreached, setbacks, why, moved for a rule))
REMEMBERED: dict[str, tuple[View, tuple[tuple[str, ...], tuple[float, ...], str, tuple[float, ...]]]] = {
    "a handover that failed is remembered": (
        drained(owned(target="beta"), says=FULL),
        (("beta",), (NOW,), "its disk is full", ()),
    ),
    "... with those before it": (
        drained(owned(target="beta", **FAILED_BEFORE), says=FULL),
        (("beta",), (NOW - 900, NOW - 800, NOW), "its disk is full", ()),
    ),
    "... but no more than six": (
        drained(owned(target="beta", setbacks=often(6, NOW - 1)), says=FULL),
        (("beta",), (*often(6, NOW - 1)[1:], NOW), "its disk is full", ()),
    ),
    "... and none after an hour without any": (
        drained(owned(target="beta", setbacks=often(3, NOW - 3600)), says=FULL),
        (("beta",), (NOW,), "its disk is full", ()),
    ),
    "a target that could not start it is remembered": (
        view(word=replace(ARRIVED, setbacks=(NOW - 900,)), says={"beta": BROKEN}, drained=("alpha", "gamma")),
        (("beta",), (NOW - 900, NOW), "no init", ()),
    ),
    "a move that succeeds forgets them": (view(word=replace(ARRIVED, **FAILED_BEFORE)), ((), (), "", ())),
    "... but not the return from a move that failed": (
        view(word=owned(source="alpha", kind=Kind.PLANNED, **FAILED_BEFORE)),
        (("beta",), (NOW - 900, NOW - 800), "its disk is full", ()),
    ),
    "... nor that from a host on which it had begun": (
        view(word=owned(source="beta", kind=Kind.PLANNED, **FAILED_BEFORE)),
        (("beta",), (NOW - 900, NOW - 800), "its disk is full", ()),
    ),
    "an operator who clears it has them forgotten": (
        drained(owned(mended=(NOW - 5,), **FAILED_BEFORE), VserverIntent(cleared_epoch=7)),
        ((), (), "", ()),
    ),
    "an operator who moves it has them forgotten": (
        drained(owned(mended=(NOW - 5,), **FAILED_BEFORE), VserverIntent(move=MoveWish("beta", 7))),
        ((), (), "", ()),
    ),
    "a move for a rule is remembered": (broken_rule(1, 100), ((), (), "", (NOW - 100, NOW))),
    "... but no more than six of them": (broken_rule(6, 1801), ((), (), "", (*often(6, NOW - 1801)[1:], NOW))),
    "... and none after an hour without one": (broken_rule(2, 3600), ((), (), "", (NOW,))),
    "... though it succeeds": (view(word=replace(ARRIVED, mended=(NOW - 5,))), ((), (), "", (NOW - 5,))),
}


@pytest.mark.parametrize("name", REMEMBERED)
def test_remembered(name: str) -> None:
    seen, expected = REMEMBERED[name]
    word = plan(seen).changes[0].assignments[0]
    assert (word.unreached, word.setbacks, word.setback, word.mended) == expected


GOES: dict[str, tuple[View, str]] = {
    "a takeover asks for no setbacks": (view(word=failed_on_beta(6, 1), lost=("alpha",)), "beta"),
    "another host is tried at once": (view(word=failed_on_beta(1, 1), drained=("alpha",)), "gamma"),
    "what is in error waits no longer than a minute": (drained(failed_on_beta(6, 60), says=BROKEN), "beta"),
}


@pytest.mark.parametrize("name", GOES)
def test_goes_all_the_same(name: str) -> None:
    seen, expected = GOES[name]
    word = plan(seen).changes[0].assignments[0]
    assert (word.target or word.owner) == expected


def test_what_is_in_error_waits_a_minute() -> None:
    assert not plan(drained(failed_on_beta(6, 59), says=BROKEN)).changes
