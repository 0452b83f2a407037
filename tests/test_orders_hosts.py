"""What an operator's commands about hosts and the cluster come to, a rule a row: `pytest -v` prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from failover import orders
from failover.errors import BadInput, Refused
from failover.model import (
    ClusterIntent,
    HostIntent,
    MoveWish,
    Replica,
    Shutdown,
    Stale,
    View,
    Vserver,
    VserverIntent,
    Want,
)
from failover.orders import Order
from tests.orders import (
    ACCEPT,
    AWAY,
    CLEAR,
    DRAIN,
    ERROR,
    FAILBACK,
    FENCE,
    HEALTHY,
    IGNORE,
    MOVE,
    OFF,
    REMOVE,
    RESTART,
    START,
    STOP,
    STOPPED,
    TAKEOVER,
    UNDRAIN,
    V2,
    Command,
    Does,
    No,
    Rows,
    Says,
    beside,
    check,
    disarmed,
    do,
    hosts,
    leaderless,
    silent,
    wishes,
    wishing,
)
from tests.views import NOW, V1, owned, view

VOUCHED = "{} counts as off once it has missed two renewals; if it renews, this word is void"


TAKEOVERS: Rows = {
    "a takeover moves all that the host owns": (
        beside(HEALTHY, V2, v2="alpha"),
        TAKEOVER,
        Does({"v1": AWAY, "v2": VserverIntent(move=MoveWish(None, 3))}, awaits=("v1", "v2")),
    ),
    "a takeover of a host that owns nothing is answered": (
        HEALTHY,
        do(orders.takeover, "beta"),
        Says("beta owns nothing"),
    ),
    "what is ignored is not taken away": (wishing(want=Want.IGNORED), TAKEOVER, Says("alpha owns nothing")),
    "what is on its way already goes where it was sent": (
        wishing(move=MoveWish("gamma", 7)),
        TAKEOVER,
        Does({}, "", ("v1",)),
    ),
    "a takeover with nowhere to go is refused": (
        view(word=owned(), drained=("beta",), lost=("gamma",)),
        TAKEOVER,
        No(Refused, "v1 has nowhere to go: beta is drained; gamma is lost"),
    ),
    "a lost host need not take part": (
        view(word=owned(), lost=("alpha",)),
        TAKEOVER,
        Does({"v1": AWAY}, awaits=("v1",)),
    ),
    "a lost host whose replicas are too old is refused, with the way out": (
        view(word=owned(), lost=("alpha",), age={"beta": 90.0, "gamma": 91.0}),
        TAKEOVER,
        No(Refused, "nobody may take over what it owns: v1: .*beta has a replica", "failover start v1 --on beta"),
    ),
    "... but not where the newest is to be taken": (
        view(
            word=owned(),
            lost=("alpha",),
            age={"beta": 90.0, "gamma": 91.0},
            vserver=replace(V1, when_stale=Stale.TAKE),
        ),
        TAKEOVER,
        Does({"v1": AWAY}, awaits=("v1",)),
    ),
    "what waits for a host that was shut down may be taken over": (
        view(word=owned(), lost=("alpha",), vserver=replace(V1, on_host_shutdown=Shutdown.STOP)),
        TAKEOVER,
        Does({"v1": AWAY}, awaits=("v1",)),
    ),
    "a person vouches that the host is off": (
        silent(HEALTHY, "alpha", 2.5),
        OFF,
        Does(
            {"v1": AWAY, "alpha": HostIntent(vouched=40)},
            VOUCHED.format("alpha"),
            ("v1",),
        ),
    ),
    "... also when what it owns must wait for another word": (
        silent(view(word=owned(), age={"beta": 90.0, "gamma": 91.0}), "alpha", 2.5),
        OFF,
        Does(
            {"alpha": HostIntent(vouched=40)},
            VOUCHED.format("alpha"),
            ("v1",),
        ),
    ),
    "... and for a host that owns nothing": (
        silent(HEALTHY, "beta", 2.5),
        do(orders.takeover, "beta", confirmed_off=True),
        Does(
            {"beta": HostIntent(vouched=40)},
            VOUCHED.format("beta"),
        ),
    ),
}

HOSTS: Rows = {
    "a drain has a reason": (
        HEALTHY,
        do(orders.drain, "alpha", reason="new memory"),
        Does({"alpha": HostIntent(True, reason="new memory")}, "alpha is drained; it owns 1 vserver", ("v1",)),
    ),
    "a drain may have an end": (
        HEALTHY,
        do(orders.drain, "beta", until_at=NOW + 60),
        Does({"beta": HostIntent(True, until_at=NOW + 60)}, "beta is drained; it owns no vserver"),
    ),
    "... but not in the past": (HEALTHY, do(orders.drain, "beta", until_at=NOW), No(BadInput, "would be over already")),
    "a host that is down may be drained": (
        view(word=owned(), lost=("alpha",)),
        DRAIN,
        Does({"alpha": HostIntent(True)}, "alpha is drained; it owns 1 vserver"),
    ),
    "a second drain is answered": (
        hosts(HEALTHY, alpha=HostIntent(True, reason="new memory")),
        DRAIN,
        Says("alpha is drained already"),
    ),
    "a second drain may change the end, and keeps the reason": (
        hosts(HEALTHY, beta=HostIntent(True, until_at=NOW + 60, reason="new memory")),
        do(orders.drain, "beta"),
        Does({"beta": HostIntent(True, reason="new memory")}, "beta is drained; it owns no vserver"),
    ),
    "a drain that has ended may be set again": (
        hosts(HEALTHY, beta=HostIntent(True, until_at=NOW - 1, reason="new memory")),
        do(orders.drain, "beta"),
        Does({"beta": HostIntent(True)}, "beta is drained; it owns no vserver"),
    ),
    "an undrain keeps what was vouched": (
        hosts(HEALTHY, alpha=HostIntent(True, until_at=NOW + 60, vouched=40, reason="new memory")),
        UNDRAIN,
        Does({"alpha": HostIntent(vouched=40)}, "alpha may run vservers again; nothing moves back by itself"),
    ),
    "an undrain names what returns": (
        hosts(view(word=owned(owner="beta"), vserver=replace(V1, failback_s=300.0)), alpha=HostIntent(True)),
        UNDRAIN,
        Does({"alpha": HostIntent()}, "alpha may run vservers again; what returns by itself: v1"),
    ),
    "an undrain of a host that is not drained is answered": (HEALTHY, UNDRAIN, Says("alpha is not drained")),
    "a person may vouch for a host whose session has ended": (
        view(word=owned(), lost=("alpha",)),
        FENCE,
        Does(
            {"alpha": HostIntent(vouched=40)},
            VOUCHED.format("alpha"),
        ),
    ),
    "... or may yet live: it is the lease that decides": (
        HEALTHY,
        FENCE,
        Does(
            {"alpha": HostIntent(vouched=40)},
            VOUCHED.format("alpha"),
        ),
    ),
    "a second fence is answered": (
        hosts(HEALTHY, alpha=HostIntent(vouched=40)),
        FENCE,
        Says("alpha counts as off already"),
    ),
    "what was vouched ends with the next renewal": (
        silent(hosts(HEALTHY, alpha=HostIntent(vouched=39)), "alpha", 3.0),
        FENCE,
        Does(
            {"alpha": HostIntent(vouched=40)},
            VOUCHED.format("alpha"),
        ),
    ),
    "who never joined cannot be vouched for": (
        replace(HEALTHY, leases={}),
        FENCE,
        No(Refused, "alpha has never joined"),
    ),
}

CLUSTER: Rows = {
    "a disarm has a reason": (
        HEALTHY,
        do(orders.disarm, reason="new switch"),
        Does({"": ClusterIntent(disarmed=True, reason="new switch")}, "the manager starts, .* until: failover arm"),
    ),
    "a second disarm is answered": (disarmed(HEALTHY), do(orders.disarm), Says("the cluster is disarmed already")),
    "arm ends it": (
        disarmed(HEALTHY, "new switch"),
        orders.arm,
        Does({"": ClusterIntent()}, "the manager starts, stops and moves vservers again"),
    ),
    "a second arm is answered": (HEALTHY, orders.arm, Says("the cluster is armed already")),
}

CASES: Rows = {**TAKEOVERS, **HOSTS, **CLUSTER}


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    check(CASES[name])


def test_no_row_is_lost_to_another_of_the_same_name() -> None:
    assert len(CASES) == len(TAKEOVERS) + len(HOSTS) + len(CLUSTER)


def test_a_replica_that_only_failed_to_follow_is_named_as_the_way_out() -> None:
    seen = view(word=owned(), lost=("alpha",), replicas={"beta": None, "gamma": Replica(9, 5, diverged=True)})
    with pytest.raises(Refused) as refused:
        TAKEOVER(seen)
    assert refused.value.hint.endswith("failover start v1 --on gamma --accept-loss")


# --- when nobody would obey -------------------------------------------------------------------------------------------

DONE: dict[str, Command] = {
    "move": MOVE,
    "takeover": TAKEOVER,
    "takeover at a person's word": OFF,
    "failback": FAILBACK,
    "start": START,
    "start with a loss": ACCEPT,
    "stop": STOP,
    "restart": RESTART,
}
TAKEN: dict[str, Command] = {
    "ignore": IGNORE,
    "remove": REMOVE,
    "clear": CLEAR,
    "drain": DRAIN,
    "undrain": do(orders.undrain, "beta"),
    "fence": do(orders.fence, "gamma"),
}
ALL: dict[str, Command] = {**DONE, **TAKEN}
TROUBLED = view(word=owned(), says={"alpha": ERROR}, drained=("beta",), lost=("gamma",))


@pytest.mark.parametrize("name", DONE)
def test_what_shall_be_done_is_refused_while_the_cluster_is_disarmed(name: str) -> None:
    with pytest.raises(Refused, match=r"the cluster is disarmed \(new switch\)") as refused:
        DONE[name](disarmed(TROUBLED, "new switch"))
    assert refused.value.hint == "failover arm"


@pytest.mark.parametrize("name", DONE)
def test_what_shall_be_done_is_refused_while_nobody_leads(name: str) -> None:
    with pytest.raises(Refused, match="nobody would obey"):
        DONE[name](leaderless(TROUBLED))


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("without", [disarmed, leaderless])
def test_what_shall_be_so_is_taken_at_any_time_but_not_awaited(without: Callable[[View], View], name: str) -> None:
    order = TAKEN[name](without(TROUBLED))
    assert order.vservers or order.hosts
    assert "nothing follows until" in order.notice
    assert not order.awaited


@pytest.mark.parametrize("name", ALL)
def test_a_removed_vserver_takes_no_command_but_apply(name: str) -> None:
    command = ALL[name]
    seen = wishing(removed=True)
    if name in ("move", "failback", "start", "start with a loss", "stop", "restart", "ignore", "clear"):
        with pytest.raises(BadInput, match="v1 was removed: failover apply brings it back"):
            command(seen)
    elif name == "takeover":
        assert command(seen).notice == "alpha owns nothing"


# --- apply ------------------------------------------------------------------------------------------------------------

APPLIES: dict[str, tuple[View, dict[str, Vserver], tuple[str, ...], str]] = {
    # name: (the cluster, the new file's vservers, its hosts, the refusal)
    "the same file is taken": (HEALTHY, {"v1": V1}, ("alpha", "beta", "gamma"), ""),
    "what runs is not taken away": (
        HEALTHY,
        {},
        ("alpha", "beta", "gamma"),
        r"v1 runs on alpha \(first: failover remove v1\)",
    ),
    "what was removed may be taken away": (wishing(removed=True), {}, ("alpha", "beta", "gamma"), ""),
    "what is stopped may be taken away": (
        view(word=owned(), says={"alpha": STOPPED}),
        {},
        ("alpha", "beta", "gamma"),
        "",
    ),
    "an owner stays allowed": (
        HEALTHY,
        {"v1": replace(V1, primary="beta", backups=("gamma",))},
        ("alpha", "beta", "gamma"),
        r"v1 is owned by alpha \(first: failover move v1 beta\)",
    ),
    "a lost owner is taken over first": (
        view(word=owned(), lost=("alpha",)),
        {"v1": replace(V1, primary="beta", backups=("gamma",))},
        ("alpha", "beta", "gamma"),
        r"v1 is owned by alpha \(first: failover takeover alpha\)",
    ),
    "the target of a move stays allowed": (
        view(word=owned(target="gamma")),
        {"v1": replace(V1, backups=("beta",))},
        ("alpha", "beta", "gamma"),
        r"v1 is being moved to gamma right now \(wait until it is there\)",
    ),
    "a host that owns something is not taken away": (
        HEALTHY,
        {"v1": replace(V1, primary="beta", backups=("gamma",))},
        ("beta", "gamma"),
        r"use: alpha owns v1 \(first: failover drain alpha\)",
    ),
    "a host that may run something is not taken away": (
        HEALTHY,
        {"v1": replace(V1, backups=("beta",))},
        ("alpha", "beta"),
        r"gamma may run v1 \(first: failover drain gamma\)",
    ),
    "a drained host that owns nothing may be taken away": (
        view(word=owned(), drained=("gamma",)),
        {"v1": replace(V1, backups=("beta",))},
        ("alpha", "beta"),
        "",
    ),
    "a lost host that owns nothing may be taken away": (
        view(word=owned(), lost=("gamma",)),
        {"v1": replace(V1, backups=("beta",))},
        ("alpha", "beta"),
        "",
    ),
    "all that is in use is named at once": (
        beside(HEALTHY, V2, v2="beta"),
        {"v2": replace(V2, primary="alpha", backups=())},
        ("alpha", "gamma"),
        r"v1 runs on alpha .*; beta owns v2 \(first: failover drain beta\)",
    ),
}


@pytest.mark.parametrize("name", APPLIES)
def test_apply(name: str) -> None:
    seen, vservers, named, refusal = APPLIES[name]
    hosts = {host: seen.cluster.hosts[host] for host in named}
    new = replace(seen.cluster, hosts=hosts, vservers=vservers)
    if refusal:
        with pytest.raises(Refused, match=refusal):
            orders.refuse_losses(seen, new)
    else:
        orders.refuse_losses(seen, new)


def test_apply_brings_back_what_was_removed_and_nothing_else() -> None:
    removed = view(word=owned(), intent=VserverIntent(want=Want.IGNORED, removed=True))
    order = orders.restore(removed, removed.cluster)
    assert (wishes(removed, order), order.notice) == ({"v1": VserverIntent()}, "managed again: v1")
    assert orders.restore(HEALTHY, HEALTHY.cluster) == Order()
    assert orders.restore(removed, replace(removed.cluster, vservers={})) == Order()
