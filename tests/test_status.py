"""What a person and a program see of a cluster."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from failover.cli.status import as_data, lines, short
from failover.model import (
    ClusterIntent,
    Cut,
    Fencing,
    Hold,
    HostIntent,
    Intents,
    Memory,
    Replica,
    Report,
    Shipment,
    State,
    View,
    VserverIntent,
    VserverReport,
    Want,
)
from failover.plan import plan
from failover.timing import PROFILES
from tests.views import NOW, V1, owned, view

HEALTHY, FAST = view(word=owned()), PROFILES["fast"]
DISARMED = Intents(cluster=ClusterIntent(disarmed=True, reason="new switch", by="anna"))


def fenced(host: str) -> View:
    """Its device says that it is off; its session lives still."""
    off = Fencing(40, NOW - 3.0, Cut.OFF, NOW - 1.0)
    return view(word=owned(), memory=Memory(fencings={host: off}))


def with_grants(*hosts: str, **why: str) -> View:
    """These rest on grants; the others say why not."""
    seen = view(word=owned())
    leases = {name: replace(lease, granted=name in hosts) for name, lease in seen.leases.items()}
    reports = {name: replace(report, on_session=why.get(name, "")) for name, report in seen.reports.items()}
    return replace(seen, leases=leases, reports=reports)


# name: (the cluster, what some line must contain)
SHOWN: dict[str, tuple[View, str]] = {
    "where it runs, its address, each copy's generation and age": (
        HEALTHY,
        "v1       running  alpha  –      10.0.0.101  beta #12 1.0 s, gamma #12 1.0 s",
    ),
    "a lost host": (view(word=owned(), lost=("beta",)), "beta   lost   –"),
    "a host whose power was cut": (fenced("beta"), "beta   fenced  –"),
    "a lease that rests on the session": (HEALTHY, "alpha  up     session, 2 s  v1"),
    "a lease that rests on grants": (with_grants("alpha"), "alpha  up     grants, 0.2 s  v1"),
    "an agent that was not restarted": (
        replace(HEALTHY, reports={**HEALTHY.reports, "beta": Report("beta", terms=PROFILES["patient"])}),
        "beta: restart failover-agent; if that changes nothing",
    ),
    "a session that goes on with its length": (
        replace(HEALTHY, reports={**HEALTHY.reports, "beta": Report("beta", terms=replace(FAST, session_s=10.0))}),
        "beta: its session is one of 10 s until the host is booted",
    ),
    "a session that ZooKeeper has cut short": (
        replace(HEALTHY, reports={**HEALTHY.reports, "beta": Report("beta", terms=replace(FAST, session_s=1.5))}),
        "zoo.cfg's",
    ),
    "no lease of a lost host": (view(word=owned(), lost=("beta",)), "beta   lost   –             –"),
    "why a lease is back on the session": (
        with_grants("alpha", gamma="no answer in time from the leader"),
        "gamma: no answer in time from the leader",
    ),
    "a copy on a lost host": (view(word=owned(), lost=("beta",)), "beta lost, gamma #12"),
    "a host without a copy": (view(word=owned(), replicas={"beta": None}), "beta none, gamma #12"),
    "a former owner's tree": (view(word=owned(), replicas={"beta": Replica(9, 5, diverged=True)}), "beta old"),
    "a drained host": (view(word=owned(), drained=("gamma",)), "gamma  drained  session, 2 s  –"),
    "a vserver that is being moved": (view(word=owned(target="beta")), "v1       moving"),
    "a vserver whose agent has not obeyed yet": (
        view(word=owned(), says={"alpha": VserverReport(State.RUNNING, 6)}),
        "v1       starting",
    ),
    "a frozen vserver": (view(word=owned(), says={"alpha": VserverReport(State.FROZEN, 7)}), "v1       frozen"),
    "an error": (view(word=owned(), says={"alpha": VserverReport(State.ERROR, 7)}), "v1       error"),
    "nobody leads": (replace(HEALTHY, leader=None), "nobody leads"),
    "a drain: by whom, why and until when": (
        replace(
            HEALTHY,
            intents=Intents(hosts={"gamma": HostIntent(True, until_at=2000.0, reason="new memory", by="anna")}),
        ),
        f"gamma until {time.strftime('%Y-%m-%d %H:%M', time.localtime(2000.0))} by anna (new memory)",
    ),
    "a drain that has ended is none": (
        view(word=owned(), drained=("gamma",), drained_until=NOW - 1),
        "gamma  up     session, 2 s  –",
    ),
    "a disarm": (
        replace(HEALTHY, intents=DISARMED, memory=Memory(disarmed=True)),
        "! the cluster is disarmed by anna (new switch): the manager starts, stops and",
    ),
    "a disarm that waits for what has begun": (
        replace(HEALTHY, intents=DISARMED),
        "the manager first finishes",
    ),
    "ignored by a command, not by an intent about something else": (
        view(word=owned(), intent=VserverIntent(cleared_epoch=3), vserver=replace(V1, want=Want.IGNORED)),
        "v1       ignored",
    ),
    "why a copy does not get younger": (
        view(
            word=owned(),
            says={"alpha": VserverReport(State.RUNNING, 7, shipments={"beta": Shipment(3, 9, "no space")})},
        ),
        "v1 on beta: no space",
    ),
    "what was kept aside": (
        view(word=owned(), replicas={"beta": Replica(12, 7, salvaged=("/vservers/.replica/v1/salvage/7-1",))}),
        "beta: v1: /vservers/.replica/v1/salvage/7-1",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_status_shows(name: str) -> None:
    seen, expected = SHOWN[name]
    shown = lines(seen)
    assert any(expected in line for line in shown), "\n".join(shown)


def test_what_was_removed_is_shown_no_more() -> None:
    seen = view(word=owned(), intent=VserverIntent(removed=True, want=Want.IGNORED))
    assert "no vserver is declared" in lines(seen)
    assert not any("v1" in line for line in lines(seen))
    assert as_data(seen)["vservers"] == {}
    assert as_data(seen)["hosts"]["alpha"]["owns"] == []


def test_a_disarm_and_the_end_of_a_drain_are_data_too() -> None:
    data = as_data(view(word=owned(), drained=("gamma",), drained_until=NOW + 60))
    assert (data["disarmed"], data["hosts"]["gamma"]["drained_until"]) == (False, NOW + 60)
    assert as_data(replace(HEALTHY, intents=DISARMED))["disarmed"]


def test_what_a_lease_rests_on_is_data_too() -> None:
    hosts = as_data(with_grants("alpha", alpha="of old", beta="the guard does not answer"))["hosts"]
    assert hosts["alpha"]["lease"] == {"rests_on": "grants", "length": 0.2, "because": ""}
    assert hosts["beta"]["lease"] == {"rests_on": "session", "length": 2.0, "because": "the guard does not answer"}
    assert as_data(view(word=owned(), lost=("beta",)))["hosts"]["beta"]["lease"] is None


def test_the_last_attempt_to_cut_its_power_is_data_too() -> None:
    hosts = as_data(fenced("beta"))["hosts"]
    assert hosts["alpha"]["fencing"] is None
    assert hosts["beta"]["fencing"] == {"state": "off", "because": "", "began": NOW - 3.0, "ended": NOW - 1.0}


def test_what_waits_comes_first_with_what_to_do() -> None:
    seen = view(word=owned(), lost=("alpha", "beta"), age={"gamma": 400.0})
    shown = lines(replace(seen, holds=plan(seen).holds))
    assert shown[2].startswith("! v1 waits: no host may run it: alpha is lost; beta is lost; gamma has a")
    assert any("→ start an old replica all the same: failover start v1 --on gamma" in line for line in shown)


def test_status_fits_80_columns() -> None:
    seen = replace(HEALTHY, holds=(Hold("v1", "a reason that is long " * 10, "a hint that is long " * 10),))
    assert max(map(len, lines(seen))) <= 80


def test_there_are_colours_only_when_asked_for() -> None:
    assert not any("\x1b" in line for line in lines(HEALTHY))
    assert any("\x1b[32mrunning\x1b[0m" in line for line in lines(HEALTHY, coloured=True))


def test_the_same_as_data() -> None:
    own = as_data(HEALTHY)["vservers"]["v1"]
    assert (own["state"], own["owner"], own["epoch"]) == ("running", "alpha", 7)
    assert own["backups"]["beta"] == {
        "up": True, "generation": 12, "diverged": False, "age_s": 1.0, "because": "", "salvaged": [],
    }  # fmt: skip
    assert own["verdicts"]["beta"]["may"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (9.96, "10.0 s"), (42, "42 s"), (600, "10 min"), (7200, "2 h"), (864000, "10 d")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert short(seconds) == text
