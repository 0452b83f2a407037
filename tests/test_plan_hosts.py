"""By which hosts an owner goes, and who may follow one that is lost: each row's name is a rule. Claim S12.

Without ZooKeeper an owner rests on the promises of the hosts that it knows of; it never asked the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failover.model import (
    Assignment,
    ClusterIntent,
    Kind,
    MoveWish,
    Replica,
    Shipment,
    State,
    View,
    Vserver,
    VserverIntent,
    VserverReport,
    Want,
)  # fmt: skip
from failover.plan import plan
from tests.views import V1, Expected, assert_decides, owned, view

AB, ABG = ("alpha", "beta"), ("alpha", "beta", "gamma")
TOLD = owned(hosts=ABG, known_hosts=AB)  # gamma was added; alpha may not know it yet
SILENT = {"alpha": VserverReport(State.RUNNING, 6, shipments={"beta": Shipment(12, 1.0), "gamma": Shipment(12, 1.0)})}
BETA_IS_OLD: dict[str, Any] = {"age": {"beta": 900.0}}
ACCEPTED = VserverIntent(move=MoveWish("gamma", 7, accept_loss=True))
WAITS = "hold: no host may run it: alpha is lost; beta is drained; gamma was added when alpha could not be told"
BY_HAND = {"gamma": VserverReport(State.RUNNING, 7, by_hand=True)}

CASES: dict[str, tuple[View, Expected]] = {
    # who may follow
    "an owner that knows all its hosts may be followed by any": (
        view(word=TOLD, lost=("alpha",), drained=("beta",)),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "one that may not know a host is not followed by it": (
        view(word=TOLD, lost=("alpha",), drained=("beta",), says=SILENT),
        WAITS,
    ),
    "... but by the others": (view(word=TOLD, lost=("alpha",), says=SILENT), ("beta", None, Kind.TAKEOVER)),
    "a host that may not run it any more does not follow": (
        view(
            word=owned(hosts=AB, known_hosts=ABG),
            vserver=replace(V1, backups=("beta",)),
            lost=("alpha",),
            drained=("beta",),
            says=SILENT,
        ),
        "hold: no host may run it: alpha is lost; beta is drained",
    ),
    "a host that was added and that nobody was told of yet does not follow": (
        view(word=owned(hosts=AB), lost=("alpha",), drained=("beta",)),
        WAITS,
    ),
    "an operator's word about the loss changes nothing about that": (
        view(word=TOLD, lost=("alpha",), drained=("beta",), says=SILENT, intent=ACCEPTED),
        WAITS,
    ),
    "his word that the owner is off does": (
        view(word=TOLD, lost=("alpha",), drained=("beta",), says=SILENT, vouched=("alpha",), gone_since=900.0),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "a copy started by hand there is not adopted from a lost owner": (
        view(word=TOLD, lost=("alpha",), says={**SILENT, **BY_HAND}),
        "hold: a copy was started by hand on gamma, which was added when alpha could not be told",
    ),
    "a word of an older failover restricts nothing": (
        view(word=owned(hosts=()), lost=("alpha",), drained=("beta",), says=SILENT),
        ("gamma", None, Kind.TAKEOVER),
    ),
    "an owner that lives may hand it over to anybody": (
        view(word=TOLD, intent=VserverIntent(move=MoveWish("gamma", 7))),
        ("alpha", "gamma", Kind.FIRST),
    ),
    # telling the owner
    "when its hosts have changed its owner is told": (view(word=owned(hosts=AB)), ("alpha", None, Kind.FIRST)),
    "... and when an older failover has not told it": (view(word=owned(hosts=())), ("alpha", None, Kind.FIRST)),
    "... but not for another order": (view(word=owned(hosts=("gamma", "alpha", "beta"))), None),
    "... nor before it has obeyed the present word": (view(word=owned(hosts=AB), says=SILENT), None),
    "... nor in the midst of a move": (view(word=owned(hosts=AB, target="beta")), None),
    "an owner that may not run it any more is one of its hosts": (
        view(word=owned(hosts=ABG), vserver=replace(V1, primary="beta", backups=("gamma",))),
        ("alpha", "beta", Kind.FIRST),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    seen, expected = CASES[name]
    assert_decides(seen, expected)


def next_word(seen: View) -> Assignment:
    (change,) = plan(seen).changes
    (word,) = change.assignments
    return word


WIDER = replace(V1, backups=("beta", "gamma"))


def known(word: Assignment, **changes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The hosts of the next word, and those that may follow its owner before it has obeyed it."""
    decided = next_word(view(word=word, **changes))
    return decided.hosts, decided.known_hosts


def test_s12_who_is_told_of_more_hosts_may_still_go_by_those_of_before() -> None:
    assert known(owned(hosts=AB)) == (ABG, AB)


def test_s12_who_is_told_of_fewer_hosts_may_still_go_by_those_of_before() -> None:
    narrow = replace(V1, backups=("beta",))
    assert known(owned(hosts=ABG), vserver=narrow) == (AB, ABG)


def test_s12_of_several_words_that_nobody_has_obeyed_only_the_hosts_of_all_may_follow() -> None:
    stopped = VserverIntent(want=Want.STOPPED)
    assert known(owned(hosts=ABG, known_hosts=AB), says=SILENT, intent=stopped) == (ABG, AB)
    narrow: Vserver = replace(V1, backups=("gamma",))
    unknown = known(owned(hosts=AB, known_hosts=ABG), says=SILENT, intent=stopped, vserver=narrow)
    assert unknown == (("alpha", "gamma"), AB)


def test_s12_who_takes_over_from_a_lost_owner_inherits_what_that_may_rest_on() -> None:
    assert known(owned(hosts=AB), lost=("alpha",)) == (ABG, AB)
    assert known(TOLD, lost=("alpha",), says=SILENT) == (ABG, AB)


def test_who_was_given_it_by_its_owner_inherits_nothing() -> None:
    handed = VserverReport(State.STOPPED, 7, handed=12)
    word = owned(hosts=AB, target="beta")
    assert known(word, says={"alpha": handed}, replicas={"beta": Replica(12, 7)}) == (ABG, ())


def test_a_first_word_rests_on_nothing() -> None:
    first = next_word(view(says={"alpha": VserverReport(State.STOPPED, 0)}, replicas={"beta": None, "gamma": None}))
    assert (first.hosts, first.known_hosts) == (ABG, ())


def test_a_disarmed_manager_still_tells_an_owner_by_which_hosts_it_goes() -> None:
    seen = view(word=owned(hosts=AB))
    disarmed = replace(
        seen,
        intents=replace(seen.intents, cluster=ClusterIntent(disarmed=True)),
        memory=replace(seen.memory, disarmed=True),
    )
    assert next_word(disarmed).hosts == ABG
