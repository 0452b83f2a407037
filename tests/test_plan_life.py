"""The leader's policy for what a vserver lives through: shutdowns of its host, failures, restarts, its way home, copies
that a person started, replicas that are old. Each row's name is a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.model import (
    Kind,
    Memory,
    Placement,
    Replica,
    Shipment,
    Shutdown,
    Stale,
    State,
    View,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.plan import plan
from tests.views import NOW, V1, Expected, assert_decides, owned, view

RUNNING = VserverReport(State.RUNNING, 7, shipments={"beta": Shipment(12, 1.0), "gamma": Shipment(12, 1.0)})
HOMING = replace(V1, failback_s=60.0)
FLAPPED = Memory({"beta": (NOW - 500, NOW - 300, NOW - 100)})
FAILED = VserverReport(State.ERROR, 7, because="no init")
UNREADABLE = replace(RUNNING, state=State.ERROR, because="bad disk")
UNSHIPPED = owned(
    failed_at=(NOW - 19, NOW - 9), setbacks=(NOW - 19, NOW - 9), setback="bad disk", unreached=("beta", "gamma")
)
BY_HAND = VserverReport(State.RUNNING, 7, by_hand=True)

# name: (view, the expected word: (owner, target, kind) | "hold: pattern" | None)
CASES: dict[str, tuple[View, Expected]] = {
    "a host that is shut down hands over what it owns": (
        view(word=owned(), leaving=("alpha",)),
        ("alpha", "beta", Kind.FIRST),
    ),
    "a host that is shut down takes nothing over": (
        view(word=owned(), lost=("alpha",), leaving=("beta",)),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "what stays with its host is not moved at a shutdown": (
        view(word=owned(), leaving=("alpha",), vserver=replace(V1, on_host_shutdown=Shutdown.STOP)),
        None,
    ),
    "... and waits for it": (
        view(
            word=owned(),
            leaving=("alpha",),
            lost=("alpha",),
            says={"alpha": replace(RUNNING, state=State.STOPPED)},
            vserver=replace(V1, on_host_shutdown=Shutdown.STOP),
        ),
        "hold: alpha was shut down, and it waits for it",
    ),
    "... or for so long, if so declared": (
        view(
            word=owned(),
            leaving=("alpha",),
            lost=("alpha",),
            memory=Memory({"alpha": (NOW,)}),
            says={"alpha": replace(RUNNING, state=State.STOPPED)},
            vserver=replace(V1, on_host_shutdown=Shutdown.KEEP, keep_s=600.0),
        ),
        "hold: alpha was shut down, and it waits 600 s for it",
    ),
    "... and then is taken over, whole if the last changes were shipped": (
        view(
            word=owned(),
            leaving=("alpha",),
            lost=("alpha",),
            gone_since=NOW - 601,
            memory=Memory({"alpha": (NOW - 600,)}),
            says={"alpha": VserverReport(State.STOPPED, 7, shipments={"beta": Shipment(12, 1.0, final=True)})},
            vserver=replace(V1, on_host_shutdown=Shutdown.KEEP, keep_s=600.0),
        ),
        ("beta", None, Kind.PLANNED),
    ),
    # failures
    "what failed too often on its owner is moved": (
        view(word=owned(), says={"alpha": replace(RUNNING, state=State.ERROR, because="it ended three times")}),
        ("alpha", "beta", Kind.FIRST),
    ),
    "what could not start where it was moved to goes back": (
        view(word=owned(owner="beta", source="alpha", kind=Kind.PLANNED), says={"beta": FAILED}),
        ("beta", "alpha", Kind.PLANNED),
    ),
    "... from a drain elsewhere, if another host may run it": (
        view(word=owned(owner="beta", source="alpha", kind=Kind.PLANNED), says={"beta": FAILED}, drained=("alpha",)),
        ("beta", "gamma", Kind.PLANNED),
    ),
    "... or else back all the same": (
        view(
            word=owned(owner="beta", source="alpha", kind=Kind.PLANNED),
            says={"beta": FAILED},
            drained=("alpha", "gamma"),
        ),
        ("beta", "alpha", Kind.PLANNED),
    ),
    "... and is not stopped on the way": (
        view(
            word=owned(owner="beta", target="alpha", unshipped=True, source="alpha", kind=Kind.PLANNED),
            says={"beta": replace(FAILED, state=State.STOPPED)},
            drained=("alpha", "gamma"),
        ),
        None,
    ),
    "what a taker cannot even begin to start is started elsewhere as it is": (
        view(
            word=owned(owner="beta", source="alpha", kind=Kind.TAKEOVER, owner_epoch=7, owned_at=NOW - 5),
            lost=("alpha",),
            says={
                "alpha": VserverReport(State.RUNNING, 6, shipments={"gamma": Shipment(12, 1.0)}),
                "beta": VserverReport(State.ERROR, 7, because="it cannot read its disk"),
            },
            replicas={"beta": Replica(12, 6)},
        ),
        ("beta", "gamma", Kind.TAKEOVER),
    ),
    "... as often as declared": (
        view(
            word=owned(failed_at=(NOW - 1200,), at=NOW - 601),
            says={"alpha": replace(RUNNING, state=State.ERROR, because="it ended three times")},
        ),
        "hold: alpha cannot start it: it ended three times",
    ),
    "... and what was long ago does not count": (
        view(
            word=owned(failed_at=(NOW - 601,), at=NOW - 1),
            says={"alpha": replace(RUNNING, state=State.ERROR, because="it ended three times")},
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... nor does what an operator has forgiven": (
        view(word=owned(failed_at=(NOW - 1,)), intent=VserverIntent(cleared_epoch=7)),
        ("alpha", None, Kind.FIRST),
    ),
    "what failed and cannot be shipped to one host is shipped to another": (
        view(word=owned(failed_at=(NOW - 19,), setbacks=(NOW - 19,), unreached=("beta",)), says={"alpha": UNREADABLE}),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "... or else another host starts its replica as it is": (
        view(word=owned(target="beta", unshipped=True), says={"alpha": replace(UNREADABLE, handed=0)}),
        ("beta", None, Kind.TAKEOVER),
    ),
    "... one that is fresh enough": (
        view(word=UNSHIPPED, says={"alpha": replace(UNREADABLE, shipments={"gamma": Shipment(12, 59.0)})}),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "... and if there is none, that is said": (
        view(word=UNSHIPPED, says={"alpha": replace(UNREADABLE, shipments={"gamma": Shipment(12, 61.0)})}),
        r"hold: it failed on alpha \(bad disk\), which cannot ship it \(bad disk\): beta .* last owner never said .*; "
        "gamma has a replica that is 61 s old, and max_data_loss is 60 s",
    ),
    "... only once": (
        view(word=replace(UNSHIPPED, failed_at=(NOW - 19, NOW - 9, NOW - 5)), says={"alpha": UNREADABLE}),
        "hold: alpha cannot start it: bad disk",
    ),
    "... not because another move had failed before it did": (
        view(word=replace(UNSHIPPED, failed_at=(NOW - 100,)), says={"alpha": UNREADABLE}),
        "hold: alpha cannot start it: bad disk",
    ),
    "what cannot be stopped is not moved": (
        view(
            word=owned(want=Want.STOPPED),
            says={"alpha": replace(RUNNING, state=State.ERROR, because="it does not end")},
            intent=VserverIntent(want=Want.STOPPED),
        ),
        "hold: alpha cannot stop it: it does not end",
    ),
    # restart
    "an operator's restart stops it first": (
        view(word=owned(), intent=VserverIntent(restart_epoch=7)),
        ("alpha", None, Kind.FIRST),
    ),
    "... waits until it is stopped": (view(word=owned(want=Want.STOPPED, again=True)), None),
    "... and starts it again": (
        view(word=owned(want=Want.STOPPED, again=True), says={"alpha": VserverReport(State.STOPPED, 7)}),
        ("alpha", None, Kind.FIRST),
    ),
    "... elsewhere if its host is lost meanwhile": (
        view(word=owned(want=Want.STOPPED, again=True), lost=("alpha",)),
        ("beta", None, Kind.TAKEOVER),
    ),
    # failback
    "what may go home goes home once its primary has been healthy so long": (
        view(word=owned(owner="beta"), vserver=HOMING, up_since={"alpha": NOW - 60}),
        ("beta", "alpha", Kind.FIRST),
    ),
    "... not before": (view(word=owned(owner="beta"), vserver=HOMING, up_since={"alpha": NOW - 59}), None),
    "... not to a drained primary": (
        view(word=owned(owner="beta"), vserver=HOMING, drained=("alpha",)),
        None,
    ),
    "... not at once after the drain": (
        view(word=owned(owner="beta"), vserver=HOMING, undrained={"alpha": NOW - 59}),
        None,
    ),
    "... not if an operator put it where it is": (
        view(word=owned(owner="beta", pinned=True), vserver=HOMING),
        None,
    ),
    "... not by default": (view(word=owned(owner="beta")), None),
    # started by hand
    "a second copy started by hand has to go": (
        view(word=owned(), says={"beta": BY_HAND}),
        ("alpha", None, Kind.FIRST),
    ),
    "... and is told so once": (view(word=owned(), says={"beta": replace(BY_HAND, epoch=6)}), None),
    "a copy started by hand where it may run is adopted when its owner is lost": (
        view(word=owned(), lost=("alpha",), says={"beta": BY_HAND}),
        ("beta", None, Kind.ADOPTED),
    ),
    "... of two such copies the preferred one": (
        view(word=owned(), lost=("alpha",), says={"gamma": BY_HAND, "beta": BY_HAND}),
        ("beta", None, Kind.ADOPTED),
    ),
    "... and when its owner does not run it, once that has let go": (
        view(
            word=owned(),
            says={"beta": BY_HAND, "alpha": VserverReport(State.ERROR, 7, because="no init")},
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "... and then is its own": (
        view(
            word=owned(target="beta", unshipped=True),
            says={"beta": BY_HAND, "alpha": VserverReport(State.STOPPED, 7, handed=0)},
        ),
        ("beta", None, Kind.ADOPTED),
    ),
    "what is wanted stopped is not adopted": (
        view(
            word=owned(want=Want.STOPPED),
            says={"beta": BY_HAND, "alpha": VserverReport(State.STOPPED, 7)},
            vserver=replace(V1, want=Want.STOPPED),
        ),
        ("alpha", None, Kind.FIRST),
    ),
    "what was ignored is adopted where it runs": (
        view(
            word=owned(want=Want.IGNORED),
            says={"beta": BY_HAND, "alpha": VserverReport(State.STOPPED, 7)},
        ),
        ("beta", None, Kind.ADOPTED),
    ),
    "... of two copies that of its owner, or else the preferred one": (
        view(word=owned(want=Want.IGNORED), says={"beta": BY_HAND, "gamma": BY_HAND, "alpha": RUNNING}),
        ("alpha", None, Kind.FIRST),
    ),
    "... but not before every live host has said what runs there": (
        view(word=owned(want=Want.IGNORED), says={"beta": BY_HAND}, behind=("gamma",)),
        "hold: gamma has not said yet whether it runs there",
    ),
    "what was ignored and may still run on a lost host is started nowhere": (
        view(word=owned(want=Want.IGNORED), says={"beta": BY_HAND}, lost=("beta",)),
        "hold: it may still run on (alpha|beta)",
    ),
    "what was ignored and runs nowhere belongs to its owner again": (
        view(word=owned(want=Want.IGNORED), says={"alpha": VserverReport(State.STOPPED, 7)}),
        ("alpha", None, Kind.FIRST),
    ),
    "what was found running is not taken over before its host was told that it owns it": (
        view(word=owned(unheld=True), lost=("alpha",), says={"alpha": replace(RUNNING, epoch=6)}),
        "hold: no host may run it: .*beta must not start what may still run on alpha",
    ),
    "... but once that has obeyed": (view(word=owned(unheld=True), lost=("alpha",)), ("beta", None, Kind.TAKEOVER)),
    "... or is known to be off": (
        view(
            word=owned(unheld=True, source="gamma"),
            vouched=("alpha",),
            renewed_at=NOW - 1,
            says={"gamma": replace(RUNNING, epoch=5), "alpha": replace(RUNNING, epoch=6)},
        ),
        ("beta", None, Kind.TAKEOVER),
    ),
    "what was ignored, on an owner that is lost and never said that it does not run there, is started nowhere": (
        view(word=owned(want=Want.IGNORED), says={"alpha": replace(RUNNING, epoch=6)}, lost=("alpha",)),
        "hold: it may still run on alpha, which is lost",
    ),
    "what goes without a last sync needs a replica that is fresh enough": (
        view(
            word=owned(target="beta", unshipped=True),
            says={"alpha": VserverReport(State.STOPPED, 7, handed=0, shipments={"beta": Shipment(12, 90.0)})},
        ),
        ("alpha", None, Kind.FIRST),
    ),
    "what was removed is ignored": (
        view(word=owned(), intent=VserverIntent(removed=True)),
        ("alpha", None, Kind.FIRST),
    ),
    # freshness
    "of replicas that are all too old the newest is taken, if so declared": (
        view(
            word=owned(),
            lost=("alpha",),
            age={"beta": 91.0, "gamma": 90.0},
            vserver=replace(V1, when_stale=Stale.TAKE),
        ),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "with replicas that are too old its owner is waited for, if so declared": (
        view(
            word=owned(),
            lost=("alpha",),
            age={"beta": 90.0, "gamma": 90.0},
            vserver=replace(V1, stale_wait_s=300.0),
        ),
        "hold: .*alpha is waited for",
    ),
    "the freshest backup takes over, if so declared": (
        view(
            word=owned(),
            lost=("alpha",),
            age={"beta": 9.0, "gamma": 1.0},
            vserver=replace(V1, placement=Placement.FRESHEST),
        ),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a backup that was lost again and again is the last to take over": (
        view(word=owned(), lost=("alpha",), memory=FLAPPED, up_since={"beta": NOW - 99}),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "... but better than none": (
        view(word=owned(), lost=("alpha", "gamma"), memory=FLAPPED, up_since={"beta": NOW - 99}),
        ("beta", None, Kind.TAKEOVER),
    ),
    "... until it has been up for long": (
        view(
            word=owned(),
            lost=("alpha",),
            memory=Memory({"beta": (NOW - 900, NOW - 800, NOW - 700)}),
            up_since={"beta": NOW - 600},
        ),
        ("beta", None, Kind.TAKEOVER),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    assert_decides(*CASES[name])


@pytest.mark.parametrize(("asked_at", "expected"), [(NOW - 30, (NOW - 90, NOW)), (NOW - 90, (NOW - 90, NOW - 30))])
def test_a_move_because_it_failed_is_marked_when_it_cannot_be_shipped(
    asked_at: float, expected: tuple[float, ...]
) -> None:
    word = owned(target="beta", failed_at=(NOW - 90, NOW - 30), at=asked_at)
    stays = plan(view(word=word, says={"alpha": replace(UNREADABLE, handing_failed="bad disk")})).changes[0]
    assert stays.assignments[0].failed_at == expected


def test_what_its_owner_cannot_ship_is_given_away_as_it_is() -> None:
    word = plan(view(word=UNSHIPPED, says={"alpha": UNREADABLE})).changes[0].assignments[0]
    assert (word.target, word.unshipped, word.failed_at[-1]) == ("beta", True, NOW)


def test_what_a_taker_cannot_even_begin_to_start_is_not_shipped_from_there() -> None:
    seen, _ = CASES["what a taker cannot even begin to start is started elsewhere as it is"]
    (word,) = plan(seen).changes[0].assignments
    assert word.unshipped, "it has nothing that the others have not"
