"""Whose power the leader cuts, and what is proved by that: each row's name is a rule. Claim S16."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from failover.model import (
    ClusterIntent,
    Cut,
    CutWish,
    Fence,
    Fencing,
    HostIntent,
    Kind,
    Lease,
    Replica,
    Shipment,
    State,
    View,
    VserverIntent,
    VserverReport,
    Want,
)  # fmt: skip
from failover.plan import alive, fencing, plan, without
from failover.plan.fencing import Ended
from failover.timing import PROFILES
from tests.orders import beside
from tests.views import NOW, V1, owned, view

APC = Fence("fence_apc", {"ip": "10.0.9.1", "plug": "1"})
FAST = PROFILES["fast"]
SILENT_S = FAST.lease_s + 0.01
GONE = {"lost": ("alpha",)}
UNDER_WAY = Fencing(40, NOW - 3.0, because="it is silent")
OFF = Fencing(40, NOW - 3.0, Cut.OFF, NOW - 1.0)
FAILED = Fencing(40, NOW - 3.0, Cut.FAILED, NOW - 1.0, "it did not end", failures=1)
ABG, AB = ("alpha", "beta", "gamma"), ("alpha", "beta")


def seen(
    silent_s: float = SILENT_S,
    last: Fencing | None = None,
    *,
    wish: CutWish | None = None,
    leader: str = "beta",
    watched_s: float = 500.0,
    unchanged_s: float = 500.0,
    device: Fence | None = APC,
    **rest: Any,
) -> View:
    """v1 runs on alpha, which hangs on an outlet and has not renewed its lease for so long; its session lives."""
    base = view(**{"word": owned(), "gone_since": NOW - silent_s, **rest})
    hosts = {**base.cluster.hosts, "alpha": replace(base.cluster.hosts["alpha"], fence=device)}
    lease = replace(base.leases["alpha"], store_at=NOW - silent_s)
    last_words = replace(base.reports["alpha"], store_at=min(base.reports["alpha"].store_at, NOW - silent_s))
    said = {"alpha": replace(base.intents.hosts.get("alpha", HostIntent()), cut=wish)} if wish else {}
    return replace(
        base,
        cluster=replace(base.cluster, hosts=hosts),
        leases={**base.leases, "alpha": lease},
        reports={**base.reports, "alpha": last_words},
        intents=replace(base.intents, hosts={**base.intents.hosts, **said}),
        memory=replace(base.memory, fencings={"alpha": last} if last else {}),
        leader=leader,
        watched_at=NOW - watched_s,
        unchanged_s={"alpha": unchanged_s},
    )


def granted() -> View:
    found = seen()
    return replace(found, leases={**found.leases, "alpha": replace(found.leases["alpha"], granted=3)})


def disarmed(found: View) -> View:
    return replace(found, intents=replace(found.intents, cluster=ClusterIntent(disarmed=True)))


def added(**rest: Any) -> View:
    """gamma alone could take it over, and alpha was not told of gamma yet."""
    silent = {"alpha": VserverReport(State.RUNNING, 6, shipments={"gamma": Shipment(12, 1.0)})}
    word = owned(hosts=ABG, known_hosts=AB)
    return seen(**{"word": word, "drained": ("beta",), "says": silent, **GONE, **rest})


def wanted(want: Want) -> View:
    return seen(vserver=replace(V1, want=want), word=owned(want=want))


IGNORED = {"word": owned(want=Want.IGNORED), **GONE}
ASKED, INSISTED = CutWish(NOW - 1.0), CutWish(NOW - 1.0, anyway=True)
ALONE = replace(V1, backups=())
STARTED, BEGUN, NOTHING = "started", "begun", "nothing"

# view -> whether its power is cut now, and what is said of alpha (a pattern; empty: nothing)
BEGINS: dict[str, tuple[View, bool, str]] = {
    # by itself
    "an owner that is silent for a whole lease is cut": (seen(), True, "it has not renewed .*: fence_apc is cutting"),
    "... and not one that is silent for less": (seen(FAST.lease_s - 0.01), False, ""),
    "... nor one without a device": (seen(device=None), False, ""),
    "... nor the leader's own host": (seen(leader="alpha"), False, ""),
    "... nor one that rests on grants, and need not renew": (granted(), False, ""),
    "... nor before the leader has heard the store for so long": (seen(60.0, watched_s=FAST.lease_s - 0.01), False, ""),
    "... nor before its lease has been the same for two renewals by the leader's own clock": (
        seen(60.0, unchanged_s=2 * FAST.renew_s - 0.01),
        False,
        "",
    ),
    "... nor while the cluster is disarmed": (disarmed(seen()), False, ""),
    "... nor one that an operator vouches for": (seen(vouched=("alpha",)), False, ""),
    "... nor one that is off by its device": (seen(last=OFF), False, ""),
    "an owner whose session is gone is not: what it had is taken over": (seen(**GONE), False, ""),
    # what is worth it
    "what could go nowhere is not worth it": (seen(vserver=ALONE, word=owned(hosts=("alpha",))), False, ""),
    "... nor if all others are drained": (seen(drained=("beta", "gamma")), False, ""),
    "... nor what is wanted stopped": (wanted(Want.STOPPED), False, ""),
    "... nor what is ignored": (wanted(Want.IGNORED), False, ""),
    "... nor what is owned elsewhere": (seen(word=owned(owner="beta")), False, ""),
    # what waits for a proof
    "when only a proof is waited for, it is cut though its session is gone": (
        added(),
        True,
        "what waits may still run there: fence_apc is cutting",
    ),
    "... as when what was ignored is wanted again": (seen(**IGNORED), True, "what waits may still run there"),
    "... and not when it waits for something else": (
        seen(**GONE, replicas={"beta": None, "gamma": None}),
        False,
        "",
    ),
    # again
    "what is under way is not begun again": (seen(last=UNDER_WAY), False, "it is silent: fence_apc is cutting"),
    "... before its end can never be known": (
        seen(last=replace(UNDER_WAY, began_at=NOW - 70.0)),
        False,
        ".*could not cut its power .nobody saw how it ended.",
    ),
    "what failed is not tried again at once": (
        seen(last=FAILED),
        False,
        "it has not .*; fence_apc could not cut its power .it did not end., and tries again at 00:16:44 UTC",
    ),
    "... but after a while": (seen(last=replace(FAILED, ended_at=NOW - 5.0)), True, "it has not renewed"),
    "... the later, the more often it has failed": (
        seen(last=replace(FAILED, ended_at=NOW - 19.0, failures=3)),
        False,
        ".*tries again at",
    ),
    "... but within five minutes": (seen(last=replace(FAILED, ended_at=NOW - 300.0, failures=50)), True, ".*"),
    "... and at once when it has been back meanwhile": (seen(last=replace(FAILED, version=39)), True, ".*"),
    "a proof of an earlier time does not count": (seen(last=replace(OFF, version=39)), True, ".*"),
    "a failure of what is well again is not shown": (seen(0.1, last=FAILED), False, ""),
    # an operator's wish
    "what an operator wishes is done, whatever it owns": (
        seen(wish=ASKED, word=owned(owner="beta")),
        True,
        "an operator says so: fence_apc is cutting its power",
    ),
    "... once": (seen(wish=ASKED, last=replace(FAILED, wish_at=NOW - 1.0)), False, ".*tries again"),
    "... and soon or never": (seen(0.1, wish=CutWish(NOW - 31.0, anyway=True)), False, ""),
    "... and at once, however often it failed": (seen(wish=ASKED, last=replace(FAILED, failures=9)), True, ".*"),
    "... but not while the host renews its lease": (seen(0.1, wish=ASKED), False, ""),
    "... unless he insists": (seen(0.1, wish=INSISTED), True, ".*"),
    "... if it is not the leader's own host": (seen(wish=INSISTED, leader="alpha"), False, ""),
    "... and the cluster is not disarmed": (disarmed(seen(wish=INSISTED)), False, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BEGINS)
def test_whose_power_is_cut(name: str) -> None:
    found, begins, said = BEGINS[name]
    decided = plan(found)
    assert decided.cuts.begin == (("alpha",) if begins else ())
    holds = [hold for hold in decided.holds if hold.subject == "alpha"]
    assert bool(holds) == bool(said)
    assert all(re.match(said, hold.because) for hold in holds)
    now = decided.memory.fencings.get("alpha")
    assert (now is not None and now.state is Cut.UNDER_WAY and now.began_at == NOW) == begins
    assert all(hold.hint or decided.again_s for hold in holds), "a hold says what to do, or ends by itself"


def test_one_worth_it_of_several_is_enough() -> None:
    both = beside(seen(vserver=ALONE, word=owned(hosts=("alpha",))), replace(V1, name="v2", addresses=()))
    second = replace(owned(), vserver="v2")
    reports = {
        "alpha": replace(
            both.reports["alpha"],
            vservers={
                "v1": VserverReport(State.RUNNING, 7),
                "v2": VserverReport(State.RUNNING, 7, shipments={"beta": Shipment(12, 1.0)}),
            },
        ),
        "beta": replace(both.reports["beta"], replicas={"v2": Replica(12, 7)}),
        "gamma": both.reports["gamma"],
    }
    found = replace(both, assignments={**both.assignments, "v2": second}, reports=reports)
    assert plan(found).cuts.begin == ("alpha",)


def test_a_wish_for_what_is_under_way_is_answered_by_that() -> None:
    now = plan(seen(last=UNDER_WAY, wish=ASKED)).memory.fencings["alpha"]
    assert now == replace(UNDER_WAY, wish_at=ASKED.at)


# --- what it proves ---------------------------------------------------------------------------------------------------


def takeover(found: View) -> tuple[str, tuple[Any, ...], tuple[Any, ...]]:
    (change,) = plan(found).changes
    (word,) = change.assignments
    assert word.kind is Kind.TAKEOVER
    return word.owner, change.leases, change.vouched


def test_s16_a_success_is_a_proof_upon_the_version_that_was_read_before() -> None:
    assert takeover(seen(last=OFF)) == ("beta", (), (("alpha", 40),))
    assert not alive(seen(last=OFF), "alpha")


NO_PROOF = {
    "what is under way": UNDER_WAY,
    "a failure": FAILED,
    "a success before it renewed its lease": replace(OFF, version=39),
}


@pytest.mark.parametrize("last", NO_PROOF.values(), ids=NO_PROOF.keys())
def test_s16_nothing_else_is(last: Fencing) -> None:
    assert plan(seen(last=last)).changes == ()
    assert alive(seen(last=last), "alpha")


@pytest.mark.parametrize("last", [None, UNDER_WAY, FAILED], ids=["none", "under way", "failed"])
def test_a_lost_lease_counts_whatever_the_device_says(last: Fencing | None) -> None:
    assert takeover(seen(last=last, **GONE)) == ("beta", (("alpha", 40),), ())


def test_s16_who_was_never_asked_follows_only_once_all_that_the_fenced_one_had_promised_is_over() -> None:
    """An owner before it may run on by its promise."""
    early = added(last=OFF)
    assert plan(early).changes == ()
    assert 0 < (plan(early).again_s or 0) < 2 * FAST.promise_s
    late = added(last=replace(OFF, ended_at=NOW - 1.1 * FAST.promise_s))
    assert takeover(late) == ("gamma", (), (("alpha", 40),))
    reports = {**late.reports, "alpha": replace(late.reports["alpha"], terms=PROFILES["patient"])}
    assert plan(replace(late, reports=reports)).changes == (), "by its own terms its promises are longer"


def test_s16_who_may_still_run_by_promises_is_remembered_beyond_a_takeover_before_that() -> None:
    word = owned(hosts=ABG, known_hosts=AB)
    before = VserverReport(State.RUNNING, 6, shipments={"beta": Shipment(12, 1.0)})
    (change,) = plan(seen(word=word, last=OFF, says={"alpha": before})).changes
    assert change.assignments[0].known_hosts == AB


def test_what_no_lease_holds_is_ended_by_a_power_cut_at_once() -> None:
    unheld = {"word": owned(unheld=True), "says": {"alpha": VserverReport(State.RUNNING, 6)}, **GONE}
    assert plan(seen(**unheld)).cuts.begin == ("alpha",)
    assert "must not start what may still run" in plan(seen(**unheld)).holds[0].because
    assert "must not start what may still run" not in plan(seen(last=OFF, **unheld)).holds[0].because


def test_what_was_ignored_is_managed_again_once_its_host_is_off() -> None:
    assert "may still run on alpha" in plan(seen(**IGNORED)).holds[0].because
    (change,) = plan(seen(last=OFF, **IGNORED)).changes
    assert change.assignments[0].want is Want.STARTED


def test_a_fenced_host_is_not_waited_for_as_if_it_were_booting() -> None:
    booting = {"led_at": NOW - 1.0, "gone_since": NOW - 3600.0, **GONE}
    assert "slow to boot" in plan(seen(3600.0, **booting)).holds[0].because
    proved = seen(3600.0, last=replace(OFF, ended_at=NOW - 3599.0), **booting)
    assert takeover(proved)[0] == "beta"


def test_nothing_is_given_to_who_may_have_died_with_it() -> None:
    """Its session lives, but nobody has heard of it since."""
    both = seen(last=OFF, renewed_at=NOW - SILENT_S, reported_at=NOW - SILENT_S)
    (hold,) = (hold for hold in plan(both).holds if hold.subject == "v1")
    assert "may be lost together with alpha" in hold.because


def test_what_it_wrote_last_it_wrote_before_it_was_off() -> None:
    unheard = replace(V1, max_data_loss_s=10.0)
    rest = {"vserver": unheard, "reported_at": NOW - 30.0, "word": owned(hosts=ABG), **GONE}
    assert "old" in plan(seen(30.0, **rest)).holds[0].because
    assert takeover(seen(30.0, last=replace(OFF, ended_at=NOW - 29.0), **rest))[0] == "beta"


# --- what has become of it --------------------------------------------------------------------------------------------


def noted(*ended: Ended, last: Fencing = UNDER_WAY) -> tuple[Fencing, list[str]]:
    memory, events = fencing.noted(seen(last=last), ended)
    return memory.fencings["alpha"], [event.text for event in events]


def test_a_success_and_a_failure_are_remembered_and_told() -> None:
    began = UNDER_WAY.began_at
    assert noted(Ended("alpha", began, off=True)) == (
        replace(UNDER_WAY, state=Cut.OFF, ended_at=NOW, because=""),
        ["alpha is off, says fence_apc"],
    )
    assert noted(Ended("alpha", began, off=False, because="no route")) == (
        replace(UNDER_WAY, state=Cut.FAILED, ended_at=NOW, because="no route", failures=1),
        ["fence_apc could not cut the power of alpha: no route"],
    )


@pytest.mark.parametrize(
    "last", [OFF, FAILED, replace(UNDER_WAY, began_at=NOW - 9.0)], ids=["off", "failed", "another"]
)
def test_the_end_of_an_attempt_that_nobody_waits_for_changes_nothing(last: Fencing) -> None:
    assert noted(Ended("alpha", UNDER_WAY.began_at, off=True), last=last) == (last, [])


def test_who_renews_its_lease_meanwhile_is_spared_unless_an_operator_insists() -> None:
    back = replace(UNDER_WAY, version=39)
    assert plan(seen(0.1, last=back)).cuts.spare == ("alpha",)
    assert plan(seen(0.1, last=UNDER_WAY)).cuts.spare == ()
    assert plan(seen(0.1, last=replace(back, wish_at=INSISTED.at), wish=INSISTED)).cuts.spare == ()
    assert plan(seen(0.1, last=replace(back, wish_at=ASKED.at), wish=ASKED)).cuts.spare == ("alpha",)


LISTENS = {
    "at once while who is off by its device has a session": (seen(last=OFF), -math.inf),
    "two renewals after the last one that is known": (seen(0.5), NOW - 0.5 + 2 * FAST.renew_s),
    "at once for a wish": (seen(0.5, wish=ASKED), -math.inf),
    "at once while its power is being cut": (seen(0.5, last=UNDER_WAY, **GONE), -math.inf),
    "never for who is gone": (seen(**GONE), float("inf")),
    "never for who is off and gone": (seen(last=OFF, **GONE), float("inf")),
    "never for who is off by a person's word": (seen(vouched=("alpha",)), float("inf")),
    "never for who owns nothing that is wanted started": (seen(word=owned(owner="beta")), float("inf")),
    "never without devices": (seen(device=None), float("inf")),
}


@pytest.mark.parametrize("name", LISTENS)
def test_when_the_leases_are_read_again(name: str) -> None:
    found, at = LISTENS[name]
    assert fencing.listens_at(found) == pytest.approx(at)


ANSWERS = {
    "none yet": (seen(wish=ASKED), None),
    "none while it is under way": (seen(last=replace(UNDER_WAY, wish_at=ASKED.at), wish=ASKED), None),
    "not that of an older attempt": (seen(last=FAILED, wish=ASKED), None),
    "yes": (seen(last=replace(OFF, wish_at=ASKED.at), wish=ASKED), (True, "alpha is off, says fence_apc")),
    "no": (
        seen(last=replace(FAILED, wish_at=ASKED.at), wish=ASKED),
        (False, "fence_apc did not cut its power: it did not end"),
    ),
    "nobody obeys": (
        seen(wish=CutWish(NOW - 31.0)),
        (False, "nobody has obeyed within 30 s: does a host lead the cluster, and is it armed?"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_wish_is_answered(name: str) -> None:
    found, expected = ANSWERS[name]
    wish = found.intents.hosts["alpha"].cut
    assert wish is not None
    assert fencing.answer(found, "alpha", wish.at) == expected


def test_what_would_be_if_a_host_were_lost_does_not_rest_on_its_device() -> None:
    assert plan(without(seen(0.1), ("alpha",))).cuts.begin == ()


def test_a_cluster_without_devices_remembers_nothing_of_them() -> None:
    assert plan(view(word=owned())).memory.fencings == {}


def test_a_host_that_is_declared_no_more_is_forgotten() -> None:
    gone = seen(last=FAILED)
    hosts = {name: host for name, host in gone.cluster.hosts.items() if name != "alpha"}
    leases = {name: lease for name, lease in gone.leases.items() if name != "alpha"}
    found = replace(gone, cluster=replace(gone.cluster, hosts=hosts), leases=leases, assignments={})
    assert plan(found).memory.fencings == {}


def test_nobody_is_cut_who_has_never_joined() -> None:
    found = seen(wish=INSISTED)
    leases: dict[str, Lease] = {name: lease for name, lease in found.leases.items() if name != "alpha"}
    assert plan(replace(found, leases=leases)).cuts.begin == ()


def test_an_intent_of_another_kind_is_no_wish() -> None:
    assert plan(seen(0.1, drained=("alpha",), intent=VserverIntent())).cuts.begin == ()
