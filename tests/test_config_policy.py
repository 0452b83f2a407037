"""What cluster.yaml says of placement, failback, rules, room and health. The names of the rows are the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from failover.config import examine, parse
from failover.model import Capacity, Check, Needs, Placement, Restart, Shutdown, Stale, Vserver
from tests.test_config import WEB1, problems, text, vservers, web1

# --- what is understood -----------------------------------------------------------------------------------------------

PROBES = "addresses: 10.1.0.5/24, checks"
ADDRESSES = ("10.1.0.5/24",)

UNDERSTOOD: dict[str, tuple[str, dict[str, Any]]] = {  # what web1 says -> what differs from a vserver that says nothing
    "old replicas: ask": ("when_stale: ask", {}),
    "old replicas: the newest is taken": ("when_stale: take", {"when_stale": Stale.TAKE}),
    "old replicas: the owner is waited for, then ask": ("when_stale: {wait: 5m}", {"stale_wait_s": 300.0}),
    "old replicas: no wait is ask": ("when_stale: {wait: 0s}", {}),
    "placement ordered": ("placement: ordered", {}),
    "placement roomiest": ("placement: roomiest", {"placement": Placement.ROOMIEST}),
    "placement freshest": ("placement: freshest", {"placement": Placement.FRESHEST}),
    "failback manual": ("failback: manual", {}),
    "failback auto is after 5 minutes": ("failback: auto", {"failback_s": 300.0}),
    "failback after a time": ("failback: {auto: 60s}", {"failback_s": 60.0}),
    "failback at once is not never": ("failback: {auto: 0s}", {"failback_s": 0.0}),
    "shutdown: move": ("on_host_shutdown: move", {}),
    "shutdown: stop": ("on_host_shutdown: stop", {"on_host_shutdown": Shutdown.STOP}),
    "shutdown: keep": (
        "on_host_shutdown: {keep: 10m}",
        {"on_host_shutdown": Shutdown.KEEP, "keep_s": 600.0},
    ),
    "restart: what is left out is as the model says": (
        "restart: {local: 0}",
        {"restart": Restart(0, Restart.moves, Restart.within_s)},
    ),
    "restart: all of it": ("restart: {local: 5, moves: 0, within: 1h}", {"restart": Restart(5, 0, 3600.0)}),
    "priority": ("priority: 0", {"priority": 0}),
    "needs": ("needs: {memory: 1.5G, cpus: 0.5}", {"needs": Needs(3 * 2**29, 0.5)}),
    "needs of memory alone": ("needs: {memory: 512M}", {"needs": Needs(2**29, 0.0)}),
    "a port": (f"{PROBES}: {{tcp: 80}}", {"addresses": ADDRESSES, "checks": (Check(tcp=80),)}),
    "a web address": (
        "checks: [{http: 'http://10.1.0.5/health', expect: 204}]",
        {"checks": (Check(http="http://10.1.0.5/health", expect=204),)},
    ),
    "a program inside": (
        "checks: [{exec: [/bin/pg_isready, -q], inside: true}]",
        {"checks": (Check(command=("/bin/pg_isready", "-q"), inside=True),)},
    ),
    "one word is a program without arguments": (
        "checks: {exec: /bin/true, inside: false}",
        {"checks": (Check(command=("/bin/true",)),)},
    ),
    "how often, how long and how many": (
        "checks: [{exec: /bin/true, every: 2s, timeout: 500ms, fails: 1}]",
        {"checks": (Check(command=("/bin/true",), every_s=2.0, timeout_s=0.5, fails=1),)},
    ),
    "several checks, in the order of the file": (
        f"{PROBES}: [{{tcp: 80}}, {{exec: /bin/true}}]",
        {"addresses": ADDRESSES, "checks": (Check(tcp=80), Check(command=("/bin/true",)))},
    ),
}

DEFAULTS: dict[str, tuple[str, str, dict[str, Any]]] = {  # defaults, what web1 says itself -> what differs
    "a vserver's own word comes before a time in defaults": (
        "{when_stale: {wait: 5m}, failback: {auto: 1m}, on_host_shutdown: {keep: 5m}}",
        "when_stale: take, failback: manual, on_host_shutdown: stop",
        {"when_stale": Stale.TAKE, "on_host_shutdown": Shutdown.STOP},
    ),
    "a vserver's own time comes before a word in defaults": (
        "{when_stale: take, failback: auto, on_host_shutdown: stop}",
        "when_stale: {wait: 1s}, failback: {auto: 2s}, on_host_shutdown: {keep: 3s}",
        {"stale_wait_s": 1.0, "failback_s": 2.0, "on_host_shutdown": Shutdown.KEEP, "keep_s": 3.0},
    ),
    "restart and needs are filled up key by key": (
        "{restart: {local: 9, within: 1h}, needs: {memory: 1G, cpus: 1}}",
        "restart: {local: 1}, needs: {cpus: 2}",
        {"restart": Restart(1, 1, 3600.0), "needs": Needs(2**30, 2.0)},
    ),
    "a list is replaced, not added to": (
        "{checks: [{exec: /bin/true}]}",
        "checks: [{exec: /bin/false}]",
        {"checks": (Check(command=("/bin/false",)),)},
    ),
    "an empty list takes back what defaults say": ("{checks: [{exec: /bin/true}]}", "checks: []", {}),
}

SAID = {name: ("", *row) for name, row in UNDERSTOOD.items()} | DEFAULTS


@pytest.mark.parametrize("name", SAID)
def test_the_policy_of_a_vserver_is_understood(name: str) -> None:
    defaults, own, differs = SAID[name]
    source = text(defaults=defaults, vservers=f"{{web1: {{primary: alpha, backups: [beta, gamma], {own}}}}}")
    assert parse(source).vservers["web1"] == replace(WEB1, **differs)


def test_what_is_left_out() -> None:
    """Nobody but an operator decides on old replicas, placement is as written, and it never returns by itself."""
    assert parse(web1("want: started")).vservers["web1"] == Vserver(
        "web1",
        "alpha",
        ("beta", "gamma"),
        when_stale=Stale.ASK,
        placement=Placement.ORDERED,
        failback_s=None,
        on_host_shutdown=Shutdown.MOVE,
        restart=Restart(local=2, moves=1, within_s=600.0),
        priority=100,
    )


RULES = ("together_with", "prefer_together_with", "prefer_apart_from", "apart_from", "start_after")


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_names_vservers(rule: str) -> None:
    for written in ("b", "[b]"):
        cluster = parse(
            vservers(a=f"primary: alpha, backups: beta, {rule}: {written}", b="primary: beta, backups: alpha")
        )
        assert cluster.vservers["a"] == replace(Vserver("a", "alpha", ("beta",)), **{rule: ("b",)})
        assert cluster.vservers["b"] == Vserver("b", "beta", ("alpha",))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_in_defaults_says_nothing_to_the_vserver_that_it_names(rule: str) -> None:
    source = text(defaults=f"{{primary: alpha, backups: beta, {rule}: b}}", vservers="{a: {}, b: {}}")
    cluster = parse(source)
    assert [getattr(vserver, rule) for vserver in cluster.vservers.values()] == [("b",), ()]


CAPACITIES = {
    "left out: as measured": ("{}", Capacity()),
    "memory and processors": ("{capacity: {memory: 64G, cpus: 16}}", Capacity(64 * 2**30, 16.0)),
    "memory alone: the processors are as measured": ("{capacity: {memory: 4G}}", Capacity(4 * 2**30)),
}


@pytest.mark.parametrize(("said", "expected"), CAPACITIES.values(), ids=CAPACITIES.keys())
def test_the_capacity_of_a_host_is_understood(said: str, expected: Capacity) -> None:
    assert parse(f"{{hosts: {{h1: {said}}}}}", story=True).hosts["h1"].capacity == expected


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {  # what web1 says -> the key, and what is told
    "a misspelt word for old replicas": (
        "when_stale: tke",
        "when_stale",
        "is not one of ask, take (did you mean take?)",
    ),
    "a wait without its time": ("when_stale: wait", "when_stale", "'wait' says too little: as in {wait: 5m}"),
    "a wait without unit": ("when_stale: {wait: 5}", "when_stale.wait", "'5' has no unit (did you mean 5s?)"),
    "a group that does not say how long": ("when_stale: {}", "when_stale.wait", "is missing: as in {wait: 5m}"),
    "a misspelt placement": (
        "placement: rommiest",
        "placement",
        "ordered, roomiest, freshest (did you mean roomiest?)",
    ),
    "a time where failback wants a word": ("failback: 5m", "failback", "'5m' is not one of manual, auto"),
    "failback with an unknown key": ("failback: {auot: 5m}", "failback.auot", "(did you mean auto?)"),
    "a keep without its time": (
        "on_host_shutdown: keep",
        "on_host_shutdown",
        "'keep' says too little: as in {keep: 10m}",
    ),
    "a number for restart": ("restart: 2", "restart", "is a word: write a group of keys"),
    "a negative number of restarts": ("restart: {local: -1}", "restart.local", "'-1' is not a whole number from 0"),
    "restarts within no time": ("restart: {within: 0s}", "restart.within", "'0s' is no time at all"),
    "a priority that is no number": ("priority: high", "priority", "'high' is not a whole number from 0"),
    "needs without unit": ("needs: {memory: 512}", "needs.memory", "'512' has no unit (did you mean 512M?)"),
    "no processors": ("needs: {cpus: 0}", "needs.cpus", "'0' is not a number of processors: as in 2 or 0.5"),
    "a check of nothing": ("checks: [{every: 5s}]", "checks[1].tcp", "is missing: name one of tcp, http, exec"),
    "two checks in one": (
        "checks: [{tcp: 80, http: 'http://10.1.0.5/'}]",
        "checks[1].http",
        "stands beside tcp: keep one of tcp, http, exec",
    ),
    "a port that cannot be": ("checks: {tcp: 0}", "checks[1].tcp", "'0' is not a whole number from 1 to 65535"),
    "a web address without http": ("checks: {http: 10.1.0.5}", "checks[1].http", "is not a web address"),
    "a status beside a port": (
        "checks: [{exec: /bin/true}, {tcp: 80, expect: 200}]",
        "checks[2].expect",
        "means nothing beside tcp: it goes with http alone",
    ),
    "inside beside a web address": (
        "checks: {http: 'http://10.1.0.5/', inside: true}",
        "checks[1].inside",
        "means nothing beside http: it goes with exec alone",
    ),
    "a status that cannot be": ("checks: {http: 'http://a/', expect: 99}", "checks[1].expect", "from 100 to 599"),
    "inside is true or false": ("checks: {exec: /bin/true, inside: yes}", "checks[1].inside", "one of true, false"),
    "a program that is none": ("checks: {exec: []}", "checks[1].exec", "is empty: name at least one"),
    "a line of a shell for a program": (
        "checks: {exec: /bin/test -e /ready}",
        "checks[1].exec",
        "is one word, so it is taken for the name of a program: write [/bin/test, -e, /ready]",
    ),
    "a check that never fails": ("checks: {tcp: 80, fails: 0}", "checks[1].fails", "from 1 to 1000000000"),
    "a check without pause": ("checks: {tcp: 80, every: 0s}", "checks[1].every", "'0s' is no time at all"),
    "a check that may take no time": ("checks: {tcp: 80, timeout: 0s}", "checks[1].timeout", "'0s' is no time at all"),
}

HOST_REFUSED = {  # the capacity of a host -> the key, and what is told
    "capacity without unit": ("{memory: 64, cpus: 4}", "memory", "'64' has no unit (did you mean 64M?)"),
    "a host without processors": ("{cpus: 0}", "cpus", "'0' is not a number of processors"),
    "an unknown resource": ("{disk: 4G}", "disk", "is not a key that is known here: known here: memory, cpus"),
}

HOME = "primary: alpha, backups: []"
PAIR = "primary: alpha, backups: [beta]"

NEVER_HOLDS = {  # the cluster -> where, and what is told
    "together and apart": (
        vservers(a=f"{HOME}, together_with: [b]", b="primary: alpha, backups: [beta], apart_from: a"),
        "vservers.b.apart_from",
        "b must be both together with and apart from a: drop one of the two rules",
    ),
    "together over a third": (
        vservers(a=f"{HOME}, together_with: b, apart_from: c", b=HOME, c=f"{HOME}, together_with: b"),
        "vservers.a.apart_from",
        "a must be both together with and apart from c: drop one of the two rules",
    ),
    "together without a common host": (
        vservers(a=f"{HOME}, together_with: b", b="primary: beta, backups: [gamma]"),
        "vservers.a.together_with",
        "a and b have no host in common, so they can never be together: give them a common host, or drop the rule",
    ),
    "three together, each two of them with a common host": (
        vservers(
            a=f"{PAIR}, together_with: [b, c]", b="primary: beta, backups: gamma", c="primary: gamma, backups: alpha"
        ),
        "vservers.a.together_with",
        "a, b and c have no host in common, so they can never be together: give them a common host, or drop the rule",
    ),
    "apart with only one host": (
        vservers(a=f"{HOME}, apart_from: b", b=HOME),
        "vservers.a.apart_from",
        "a and b can only run on alpha, so they can never be apart: give one of them another host",
    ),
    "apart where being together leaves only one host": (
        vservers(a=f"{PAIR}, together_with: c", b=f"{HOME}, apart_from: a", c=HOME),
        "vservers.b.apart_from",
        "b and a can only run on alpha, so they can never be apart: give one of them another host",
    ),
    "a circle of starts": (
        vservers(a=f"{HOME}, start_after: b", b=f"{HOME}, start_after: [c]", c=f"{HOME}, start_after: [a]"),
        "vservers.a.start_after",
        "waits for itself: a → b → c → a: take one of them out",
    ),
}

SAYS = {  # what a rule of web1 says -> what is told
    "one twice": ("[web2, web2]", "'web2' is there twice: name it once"),
    "itself": ("web1", "web1 names itself: name another vserver"),
    "one that is misspelt": ("[wbe2]", "'wbe2' is not under vservers (did you mean web2?)"),
}


def of_web1(said: str) -> str:
    return vservers(web1=f"primary: alpha, backups: [beta], {said}", web2="primary: beta, backups: []")


def of_alpha(capacity: str) -> str:
    return text(hosts=f"{{alpha: {{address: 10.0.0.1, capacity: {capacity}}}}}", vservers="")


TOLD = (
    {name: (of_web1(said), f"vservers.web1.{key}", told) for name, (said, key, told) in REFUSED.items()}
    | {name: (of_alpha(said), f"hosts.alpha.capacity.{key}", told) for name, (said, key, told) in HOST_REFUSED.items()}
    | {
        f"{rule}: {name}": (of_web1(f"{rule}: {said}"), f"vservers.web1.{rule}", told)
        for name, (said, told) in SAYS.items()
        for rule in RULES
    }
    | NEVER_HOLDS
)


@pytest.mark.parametrize("name", TOLD)
def test_what_is_refused_is_told_with_its_place(name: str) -> None:
    source, path, told = TOLD[name]
    (problem,) = problems(source)
    assert (problem.path, problem.mark is not None) == (path, True)
    assert told in problem.advice


# --- warnings ---------------------------------------------------------------------------------------------------------


def roomy(*, alpha: str = "", beta: str = "", **vserver: str) -> str:
    """Two hosts with these capacities; an empty one is as measured."""
    hosts = {"alpha": alpha, "beta": beta}
    told = (f"{name}: {{{f'capacity: {said}' if said else ''}}}" for name, said in hosts.items())
    everyone = (f"{name}: {{primary: alpha, backups: [beta], {said}}}" for name, said in vserver.items())
    return f"{{hosts: {{{', '.join(told)}}}, vservers: {{{', '.join(everyone)}}}}}"


SMALL, LARGE = "{memory: 1G, cpus: 1}", "{memory: 4G, cpus: 4}"

WARNED = {  # the cluster -> where, and what is told
    "no host has room": (
        roomy(alpha="{cpus: 1}", beta=SMALL, a="needs: {memory: 1536M, cpus: 2}"),
        "vservers.a.needs",
        "a fits on none of its hosts and will wait (alpha has 1 of 2 cpus, beta has 1G of 1.5G memory and "
        "1 of 2 cpus): lower the needs, or raise a capacity",
    ),
    "a host has no room": (
        roomy(alpha=LARGE, beta=SMALL, a="needs: {memory: 2G}"),
        "vservers.a.needs",
        "a never fits on beta, which has 1G of 2G memory: lower the needs, or raise its capacity",
    ),
    "those that are together must fit together": (
        roomy(alpha=LARGE, beta=LARGE, a="together_with: b, needs: {cpus: 3}", b="needs: {cpus: 2}"),
        "vservers.a.needs",
        "a and b fit on none of their hosts and will wait (alpha has 4 of 5 cpus, beta has 4 of 5 cpus): "
        "lower the needs, or raise a capacity",
    ),
    "three apart on two hosts": (
        roomy(a="apart_from: [b, c]", b="apart_from: c", c=""),
        "vservers.a.apart_from",
        "a, b and c must be apart and have only alpha and beta: not all of them can run: give one of them another host",
    ),
    "a wish against a rule": (
        roomy(a="together_with: b", b="prefer_apart_from: a"),
        "vservers.b.prefer_apart_from",
        "b must be together with a, so this has no effect: drop one of the two",
    ),
    "a wish against the rule of the other": (
        roomy(a="apart_from: b", b="prefer_together_with: a"),
        "vservers.b.prefer_together_with",
        "b must be apart from a, so this has no effect: drop one of the two",
    ),
    "a wish against a wish": (
        roomy(a="prefer_together_with: b, prefer_apart_from: b", b=""),
        "vservers.a.prefer_together_with",
        "a prefers also to be apart from b, so this has no effect: drop one of the two",
    ),
    "a port without an address": (
        roomy(a="checks: {tcp: 80}"),
        "vservers.a.checks",
        "a has no addresses on which its port 80 could answer: add addresses:, or check with exec and inside: true",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_a_policy_that_is_legal_and_worth_a_word(name: str) -> None:
    source, path, told = WARNED[name]
    (warning,) = examine(source, story=True).warnings
    assert (warning.path, warning.advice, warning.mark is not None) == (path, told, True)


WORTH_NO_WORD = {
    "apart with two hosts between them": vservers(a=f"{HOME}, apart_from: b", b=PAIR),
    "together with one common host": vservers(a=f"{HOME}, together_with: b", b="primary: beta, backups: [alpha]"),
    "together with different primaries": vservers(a=f"{PAIR}, together_with: b", b="primary: beta, backups: [alpha]"),
    "together said by both": vservers(a=f"{PAIR}, together_with: b", b=f"{PAIR}, together_with: a"),
    "a chain of starts": vservers(a=f"{HOME}, start_after: [b, c]", b=f"{HOME}, start_after: c", c=HOME),
    "failback without backups": vservers(a=f"{HOME}, failback: auto"),
    "room for all": roomy(alpha=LARGE, beta=LARGE, a="needs: {memory: 4G, cpus: 4}"),
    "hosts as measured may have room": roomy(a="needs: {memory: 8T, cpus: 64}"),
    "a vserver without needs fits everywhere": roomy(alpha=SMALL, beta=SMALL, a=""),
    "two of three apart": roomy(a="apart_from: [b, c]", b="", c=""),
    "a port with an address": roomy(a="addresses: 10.1.0.5/24, checks: {tcp: 80}"),
    "three apart, of which one is stopped": roomy(a="apart_from: [b, c]", b="apart_from: c", c="want: stopped"),
}


@pytest.mark.parametrize("name", WORTH_NO_WORD)
def test_a_policy_that_is_legal(name: str) -> None:
    told = [warning.advice for warning in examine(WORTH_NO_WORD[name], story=True).warnings]
    assert [advice for advice in told if "has no backups" not in advice] == []
