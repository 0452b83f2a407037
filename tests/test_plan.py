"""The leader's policy. `pytest -v tests/test_plan.py` prints it: each row's name is a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.model import (
    Kind,
    Memory,
    MoveWish,
    Replica,
    Restart,
    Shipment,
    State,
    View,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.plan import plan, replica_age, verdicts, without
from failover.timing import PROFILES
from tests.views import NOW, V1, Expected, assert_decides, owned, view

RUNNING = VserverReport(State.RUNNING, 7, shipments={"beta": Shipment(12, 1.0), "gamma": Shipment(12, 1.0)})
MOVING = owned(target="beta")
MOVED_BY_NOBODY = replace(V1, restart=Restart(moves=0))

# name: (view, the expected word: (owner, target, kind) | "hold: pattern" | None)
CASES: dict[str, tuple[View, Expected]] = {
    # at rest
    "a healthy cluster stays as it is": (view(word=owned()), None),
    "a lost backup changes nothing": (view(word=owned(), lost=("beta",)), None),
    "an owner that has not obeyed yet is waited for": (
        view(word=owned(), says={"alpha": replace(RUNNING, epoch=6)}),
        None,
    ),
    # takeover
    "a lost owner is taken over by the first backup": (
        view(word=owned(), lost=("alpha",)),
        ("beta", None, Kind.TAKEOVER),
    ),
    "the second backup takes over when the first is lost too": (
        view(word=owned(), lost=("alpha", "beta")),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a backup that has been silent since the owner was is not given it": (
        view(word=owned(), lost=("alpha",), gone_since=NOW - 2, renewed_at=NOW - 1.9, reported_at=NOW - 2),
        "hold: beta, which would take it over, may be lost together with alpha",
    ),
    "... unless it has renewed meanwhile": (
        view(word=owned(), lost=("alpha",), gone_since=NOW - 2, renewed_at=NOW - 1, reported_at=NOW - 2),
        ("beta", None, Kind.TAKEOVER),
    ),
    "... or must have, for its session is still there": (
        view(word=owned(), lost=("alpha",), gone_since=NOW - 3, renewed_at=NOW - 2.5, reported_at=NOW - 3),
        ("beta", None, Kind.TAKEOVER),
    ),
    "a backup on which it failed does not take over": (
        view(word=owned(failed_on=("beta",), at=NOW - 59), lost=("alpha",)),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "... also when there is no other": (
        view(word=owned(failed_on=("beta",), at=NOW - 59), lost=("alpha", "gamma")),
        "hold: no host may run it: .*beta failed to run it before",
    ),
    "... until it has run elsewhere for a minute": (
        view(word=owned(failed_on=("beta",), at=NOW - 60), lost=("alpha",)),
        ("beta", None, Kind.TAKEOVER),
    ),
    "a backup to which it could not be handed over may take over": (
        view(word=owned(unreached=("beta",), at=NOW - 1), lost=("alpha",)),
        ("beta", None, Kind.TAKEOVER),
    ),
    "an owner that an operator vouches to be off is taken over at once": (
        view(word=owned(), vouched=("alpha",), renewed_at=NOW - 1),
        ("beta", None, Kind.TAKEOVER),
    ),
    "... once it has missed two renewals": (view(word=owned(), vouched=("alpha",), renewed_at=NOW - 0.6), None),
    "an owner that was lost before it said a word has what the owner before it shipped": (
        view(
            word=owned(owner="beta", source="alpha", owner_epoch=7, owned_at=NOW - 1),
            lost=("alpha", "beta"),
            says={
                "alpha": VserverReport(State.RUNNING, 6, shipments={"gamma": Shipment(12, 1.0)}),
                "beta": VserverReport(State.STOPPED, 6),
            },
        ),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "an owner that has not started it yet when it is lost has shipped nothing either": (
        view(
            word=owned(owner="beta", source="alpha", owner_epoch=7, owned_at=NOW - 1),
            lost=("alpha", "beta"),
            says={
                "alpha": VserverReport(State.RUNNING, 6, shipments={"gamma": Shipment(12, 1.0)}),
                "beta": VserverReport(State.STOPPED, 7),
            },
            replicas={"beta": Replica(12, 6)},
        ),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "... and may have run it unseen": (
        view(
            word=owned(owner="beta", source="alpha", owner_epoch=7, owned_at=NOW - 58),
            lost=("alpha", "beta"),
            says={
                "alpha": VserverReport(State.RUNNING, 6, shipments={"gamma": Shipment(12, 1.0)}),
                "beta": VserverReport(State.STOPPED, 6),
            },
        ),
        "hold: .*gamma has a replica that is 63 s old",
    ),
    "a vserver in error stays in error when its host is lost": (
        view(word=owned(), lost=("alpha",), says={"alpha": replace(RUNNING, state=State.ERROR, because="no init")}),
        "hold: it was in error on alpha, which is lost: no init",
    ),
    "... until an operator forgives it": (
        view(
            word=owned(),
            lost=("alpha",),
            says={"alpha": replace(RUNNING, state=State.ERROR, because="no init")},
            intent=VserverIntent(cleared_epoch=7),
        ),
        ("beta", None, Kind.TAKEOVER),
    ),
    "an owner that was gone long before anybody led may only be slow to boot": (
        view(word=owned(), lost=("alpha",), gone_since=NOW - 600, led_at=NOW - 59),
        "hold: alpha, its owner, is waited for",
    ),
    "... for a minute": (
        view(word=owned(), lost=("alpha",), gone_since=NOW - 600, led_at=NOW - 60, age={"beta": -600.0}),
        ("beta", None, Kind.TAKEOVER),
    ),
    "an owner whose loss a leader has seen is not waited for": (
        view(
            word=owned(),
            lost=("alpha",),
            gone_since=NOW - 600,
            led_at=NOW - 1,
            memory=Memory({"alpha": (NOW - 598,)}),
            age={"beta": -600.0},
        ),
        ("beta", None, Kind.TAKEOVER),
    ),
    "a drained backup does not take over": (
        view(word=owned(), lost=("alpha",), drained=("beta",)),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a backup that has not reported does not take over": (
        view(word=owned(), lost=("alpha",), unreported=("beta",)),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a backup without a complete replica does not take over": (
        view(word=owned(), lost=("alpha",), replicas={"beta": None}),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "the tree of a former owner does not take over": (
        view(word=owned(), lost=("alpha",), replicas={"beta": Replica(12, 6, diverged=True)}),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a replica older than max_data_loss waits for an operator": (
        view(word=owned(), lost=("alpha",), age={"beta": 90.0, "gamma": 91.0}),
        "hold: .*beta has a replica that is 9. s old, and max_data_loss is 60 s",
    ),
    "an operator may accept the loss": (
        view(
            word=owned(),
            lost=("alpha",),
            age={"beta": 90.0, "gamma": 91.0},
            intent=VserverIntent(move=MoveWish("gamma", 7, accept_loss=True)),
        ),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a replica whose age nobody knows waits for an operator": (
        view(word=owned(), lost=("alpha",), says={"alpha": VserverReport(State.RUNNING, 7)}),
        "hold: .*the last owner never said how old it is",
    ),
    "an operator who accepts the loss overrules what failed before": (
        view(
            word=owned(failed_on=("gamma",)),
            lost=("alpha",),
            age={"beta": 90.0, "gamma": 91.0},
            intent=VserverIntent(move=MoveWish("gamma", 7, accept_loss=True), cleared_epoch=7),
        ),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a stopped vserver changes its owner with its host": (
        view(word=owned(want=Want.STOPPED), lost=("alpha",), vserver=replace(V1, want=Want.STOPPED)),
        ("beta", None, Kind.TAKEOVER),
    ),
    "an ignored vserver is not taken over": (
        view(word=owned(want=Want.IGNORED), lost=("alpha",), vserver=replace(V1, want=Want.IGNORED)),
        None,
    ),
    # move
    "an operator's move asks the owner to hand over": (
        view(word=owned(), intent=VserverIntent(move=MoveWish("gamma", 7))),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "a move and a stop at once are one change": (
        view(word=owned(), intent=VserverIntent(want=Want.STOPPED, move=MoveWish("gamma", 7))),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "a wish for an older epoch is not obeyed": (
        view(word=owned(), intent=VserverIntent(move=MoveWish("gamma", 6))),
        None,
    ),
    "a move to a lost host is answered and does not linger": (
        view(word=owned(), lost=("gamma",), intent=VserverIntent(move=MoveWish("gamma", 7))),
        ("alpha", None, Kind.FIRST),
    ),
    "taken away from a host, it goes to the first that may": (
        view(word=owned(), lost=("beta",), intent=VserverIntent(move=MoveWish(None, 7))),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "a hand-over that has begun is waited for": (view(word=MOVING), None),
    "once the last changes are shipped the target owns it": (
        view(word=MOVING, says={"alpha": VserverReport(State.STOPPED, 7, handed=13)}),
        ("beta", None, Kind.PLANNED),
    ),
    "a hand-over whose owner is lost after the last ship is finished": (
        view(word=MOVING, says={"alpha": VserverReport(State.STOPPED, 7, handed=13)}, lost=("alpha",)),
        ("beta", None, Kind.PLANNED),
    ),
    "a hand-over whose owner is lost before the last ship becomes a takeover": (
        view(word=MOVING, lost=("alpha",)),
        ("beta", None, Kind.TAKEOVER),
    ),
    "a hand-over whose target is lost is given up": (view(word=MOVING, lost=("beta",)), ("alpha", None, Kind.FIRST)),
    "a hand-over that failed leaves it where it is": (
        view(word=MOVING, says={"alpha": replace(RUNNING, handing_failed="no space left on beta")}),
        ("alpha", None, Kind.FIRST),
    ),
    "a move whose target cannot start it goes back, once the target has let go": (
        view(
            word=owned(owner="beta", source="alpha", kind=Kind.PLANNED),
            says={"beta": VserverReport(State.ERROR, 7, because="no init")},
        ),
        ("beta", "alpha", Kind.PLANNED),
    ),
    "what is let go without a last sync is given": (
        view(
            word=owned(owner="beta", target="alpha", unshipped=True, source="alpha", kind=Kind.PLANNED),
            says={"beta": VserverReport(State.STOPPED, 7, handed=0)},
        ),
        ("alpha", None, Kind.PLANNED),
    ),
    "a hand-over to a host that is lost after the last ship stays where all of it is": (
        view(word=MOVING, says={"alpha": VserverReport(State.STOPPED, 7, handed=13)}, lost=("beta",)),
        ("alpha", None, Kind.FIRST),
    ),
    "... but not a second time": (
        view(
            word=owned(source="beta", kind=Kind.PLANNED, failed_on=("beta",)),
            says={"alpha": VserverReport(State.ERROR, 7, because="no init")},
            vserver=MOVED_BY_NOBODY,
        ),
        "hold: alpha cannot start it: no init",
    ),
    "a vserver that runs where it was moved to has no way back any more": (
        view(word=owned(source="gamma", kind=Kind.PLANNED)),
        ("alpha", None, Kind.PLANNED),
    ),
    "what cannot start again there, later, does not go back to an older copy": (
        view(
            word=owned(kind=Kind.PLANNED),
            says={"alpha": VserverReport(State.ERROR, 7, because="its tree has vanished")},
            vserver=MOVED_BY_NOBODY,
        ),
        "hold: alpha cannot start it: its tree has vanished",
    ),
    # errors, drains, wants
    "what cannot be started after a takeover waits for a person": (
        view(
            word=owned(owner="beta", source="alpha", kind=Kind.TAKEOVER),
            says={"beta": VserverReport(State.ERROR, 7, because="no init")},
            vserver=MOVED_BY_NOBODY,
        ),
        "hold: beta cannot start it: no init",
    ),
    "an operator's start forgives the error": (
        view(
            word=owned(),
            says={"alpha": VserverReport(State.ERROR, 7, because="no init")},
            intent=VserverIntent(want=Want.STARTED, cleared_epoch=7),
        ),
        ("alpha", None, Kind.FIRST),
    ),
    "what cannot run where it is may be started from an old replica at an operator's word, once it is let go": (
        view(
            word=owned(),
            says={"alpha": VserverReport(State.ERROR, 7, because="its tree has vanished")},
            intent=VserverIntent(move=MoveWish("beta", 7, accept_loss=True)),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "accepting a loss after a stop is one change": (
        view(
            word=owned(want=Want.STOPPED),
            says={"alpha": VserverReport(State.STOPPED, 7)},
            intent=VserverIntent(want=Want.STARTED, move=MoveWish("beta", 7, accept_loss=True)),
        ),
        ("alpha", "beta", Kind.FIRST),
    ),
    "accepting a loss asks a living owner to stop first": (
        view(word=owned(), intent=VserverIntent(move=MoveWish("beta", 7, accept_loss=True))),
        ("alpha", "beta", Kind.FIRST),
    ),
    "an operator's start clears the hosts that failed": (
        view(word=owned(failed_on=("beta",)), intent=VserverIntent(cleared_epoch=7)),
        ("alpha", None, Kind.FIRST),
    ),
    "what its owner may not run any more moves to a host that may": (
        view(word=owned(), vserver=replace(V1, primary="beta", backups=("gamma",))),
        ("alpha", "beta", Kind.FIRST),
    ),
    "a drain moves what the host owns": (view(word=owned(), drained=("alpha",)), ("alpha", "beta", Kind.FIRST)),
    "a drain passes over a host on which it failed": (
        view(word=owned(failed_on=("beta",), at=NOW - 1), drained=("alpha",)),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "a drain passes over a host that could not take it": (
        view(word=owned(unreached=("beta",), at=NOW - 1), drained=("alpha",)),
        ("alpha", "gamma", Kind.FIRST),
    ),
    "... and tries it again after a minute": (
        view(word=owned(unreached=("beta", "gamma"), at=NOW - 60), drained=("alpha",)),
        ("alpha", "beta", Kind.FIRST),
    ),
    "a drain ends by itself": (view(word=owned(), drained=("alpha",), drained_until=NOW), None),
    "what has nowhere to go stays on a drained host": (
        view(word=owned(), drained=("alpha",), lost=("beta", "gamma")),
        "hold: alpha is drained, but it must stay there",
    ),
    "an operator's stop is a new word for the owner": (
        view(word=owned(), intent=VserverIntent(want=Want.STOPPED)),
        ("alpha", None, Kind.FIRST),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    assert_decides(*CASES[name])


@pytest.mark.parametrize("name", [name for name, (_, expected) in CASES.items() if isinstance(expected, tuple)])
def test_ownership_is_taken_from_a_lost_host_only_while_its_lease_stays_as_it_is(name: str) -> None:
    seen, _ = CASES[name]
    (change,) = plan(seen).changes
    old, new = seen.assignments.get("v1"), change.assignments[0]
    if old and old.owner != new.owner and not seen.leases[old.owner].alive:
        assert change.leases == ((old.owner, 40),)


def test_every_host_gets_a_verdict_with_a_reason() -> None:
    judged = verdicts(view(word=owned(), lost=("alpha",)), V1)
    assert [verdict.host for verdict in judged] == ["alpha", "beta", "gamma"]
    assert all(verdict.because for verdict in judged)


def test_the_age_of_a_replica_ends_with_the_lease_of_a_lost_owner() -> None:
    seen = view(word=owned(), lost=("alpha",), age={"beta": 3.0})
    later = {host: replace(report, store_at=NOW + 599, promised={}) for host, report in seen.reports.items()}
    seen = replace(seen, reports={**later, "alpha": seen.reports["alpha"]})
    lease_s = PROFILES["fast"].lease_s
    assert replica_age(replace(seen, now=NOW + 600), V1, "beta") == pytest.approx(3.0 + lease_s, abs=0.01)
    assert replica_age(replace(view(word=owned()), now=NOW + 600), V1, "beta") == pytest.approx(601.0)


def test_what_is_no_longer_declared_keeps_its_word() -> None:
    seen = view(word=owned())
    assert plan(replace(seen, cluster=replace(seen.cluster, vservers={}))).changes == ()


def test_an_operators_acceptance_of_a_loss_lasts_from_the_wish_to_the_start() -> None:
    seen = view(word=owned(), intent=VserverIntent(move=MoveWish("beta", 7, accept_loss=True)))
    (asked,) = plan(seen).changes[0].assignments
    let_go = view(word=asked, says={"alpha": VserverReport(State.STOPPED, 8, handed=0)})
    (given,) = plan(let_go).changes[0].assignments
    assert (asked.unshipped, asked.accept_loss) == (True, True)
    assert (given.owner, given.unshipped, given.accept_loss, given.kind) == ("beta", False, True, Kind.TAKEOVER)


def test_without_a_host_is_the_plan_for_its_loss() -> None:
    (change,) = plan(without(view(word=owned()), ("alpha", "beta"))).changes
    assert change.assignments[0].owner == "gamma"
