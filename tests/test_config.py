"""cluster.yaml -> Cluster. The names of the rows are the policy."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from pathlib import Path

import pytest

from failover.config import BadConfig, Loaded, Problem, examine, load, parse, text_of
from failover.config.read import plain, read
from failover.config.schema import NOT_YET, patterns
from failover.errors import BadInput
from failover.model import Cluster, Host, Network, Sync, Vserver, Want, ZooKeeper

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "cluster.yaml.example"
REFERENCE = ROOT / "docs" / "configuration.md"

# A cluster without a problem; a row says what it changes.
HEALTHY = {
    "cluster": "prod",
    "zookeeper": "{servers: [10.0.0.1:2181, 10.0.0.2:2181, 10.0.0.3:2181]}",
    "hosts": "{alpha: {address: 10.0.0.1}, beta: {address: 10.0.0.2}, gamma: {address: 10.0.0.3}}",
    "vservers": "{web1: {primary: alpha, backups: [beta, gamma]}}",
}


def text(**changed: str) -> str:
    """The healthy cluster with other top-level values; one that is empty is left out."""
    return "".join(f"{key}: {value}\n" for key, value in (HEALTHY | changed).items() if value)


def web1(*keys: str) -> str:
    """The healthy cluster whose web1 says more."""
    return text(vservers=f"{{web1: {{primary: alpha, backups: [beta, gamma], {', '.join(keys)}}}}}")


def vservers(**vserver: str) -> str:
    return text(vservers=f"{{{', '.join(f'{name}: {{{said}}}' for name, said in vserver.items())}}}")


def problems(source: str) -> tuple[Problem, ...]:
    with pytest.raises(BadConfig) as caught:
        parse(source)
    return caught.value.problems


# --- what is understood -----------------------------------------------------------------------------------------------

WEB1 = Vserver("web1", "alpha", ("beta", "gamma"))

UNDERSTOOD = {
    "what is left out is as the model says": (web1(), WEB1),
    "one word stands for a list of one": (
        vservers(web1="primary: alpha, backups: beta, addresses: 10.1.0.5/24"),
        Vserver("web1", "alpha", ("beta",), ("10.1.0.5/24",)),
    ),
    "no backups is legal": (vservers(web1="primary: alpha, backups: []"), Vserver("web1", "alpha", ())),
    "the mode alone stands for the whole sync": (web1("sync: rsync"), WEB1),
    "durations, rates and patterns of a sync": (
        web1("sync: {every: 1.5m, bandwidth: 20M/s, exclude: [/tmp, '*.swp'], snapshot: off}"),
        replace(WEB1, sync=Sync("rsync", 90.0, 20 * 2**20, ("/tmp", "*.swp"), "off")),
    ),
    "addresses are kept in their normal form": (
        web1("addresses: [10.1.0.5/24, 'FD00:0::0101/64']", "gateway: fd00:0:0::1"),
        replace(WEB1, addresses=("10.1.0.5/24", "fd00::101/64"), gateway="fd00::1"),
    ),
    "a gateway may be a link-local address of IPv6": (
        web1("addresses: 'fd00::5/64'", "gateway: 'fe80::1'"),
        replace(WEB1, addresses=("fd00::5/64",), gateway="fe80::1"),
    ),
    "both ends of a point-to-point network are addresses": (
        web1("addresses: 10.1.0.0/31", "gateway: 10.1.0.1"),
        replace(WEB1, addresses=("10.1.0.0/31",), gateway="10.1.0.1"),
    ),
    "wanted stopped": (web1("want: stopped"), replace(WEB1, want=Want.STOPPED)),
    "no loss at all may be asked for": (web1("max_data_loss: 0s"), replace(WEB1, max_data_loss_s=0.0)),
    "a rule that names the only thing there is, is accepted": (
        web1("placement: ordered", "failback: manual", "when_stale: ask", "sync: {mode: rsync}"),
        WEB1,
    ),
    "defaults are laid under a vserver's own keys": (
        text(defaults="{want: stopped, backups: [gamma], max_data_loss: 5m}", vservers="{web1: {primary: alpha}}"),
        Vserver("web1", "alpha", ("gamma",), want=Want.STOPPED, max_data_loss_s=300.0),
    ),
    "a vserver's own keys come before defaults": (
        text(defaults="{want: stopped, backups: [gamma]}", vservers="{web1: {primary: alpha, want: started, backups: []}}"),
        Vserver("web1", "alpha"),
    ),
    "the defaults of a group are laid under key by key": (
        text(defaults="{sync: {every: 9s, snapshot: off}}", vservers="{web1: {primary: alpha, backups: [beta], sync: {every: 2s}}}"),
        Vserver("web1", "alpha", ("beta",), sync=Sync(every_s=2.0, snapshot="off")),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_a_vserver_is_understood(source: str, expected: Vserver) -> None:
    assert parse(source).vservers["web1"] == expected


HOSTS = {
    "a host with nothing but its address": ("{address: 10.0.0.9}", Host("h", "10.0.0.9")),
    "a host with a bridge": ("{address: 10.0.0.9, network: {bridge: br0}}", Host("h", "10.0.0.9", Network(bridge="br0"))),
    "a host with a device": (
        "{address: 'FD00::9', network: {device: eth1.5}}",
        Host("h", "fd00::9", Network(device="eth1.5")),
    ),
    "a host with tags": ("{address: 10.0.0.9, tags: [rack1, ssd]}", Host("h", "10.0.0.9", tags=("rack1", "ssd"))),
}


@pytest.mark.parametrize(("said", "expected"), HOSTS.values(), ids=HOSTS.keys())
def test_a_host_is_understood(said: str, expected: Host) -> None:
    assert parse(text(hosts=f"{{h: {said}}}", vservers="")).hosts["h"] == expected


ZOOKEEPERS = {
    "the port may be left out": ("{servers: [10.0.0.1, zoo.example.com]}", ("10.0.0.1:2181", "zoo.example.com:2181")),
    "an IPv6 address stands in brackets": ("{servers: '[fd00:0::1]:2182'}", ("[fd00::1]:2182",)),
}


@pytest.mark.parametrize(("said", "expected"), ZOOKEEPERS.values(), ids=ZOOKEEPERS.keys())
def test_zookeeper_is_understood(said: str, expected: tuple[str, ...]) -> None:
    assert parse(text(zookeeper=said)).zookeeper == ZooKeeper(expected)


WORDS = {
    "names that YAML takes for booleans": ("no", "on"),
    "names that YAML takes for numbers": ("010", "1e3"),
    "names that YAML takes for dates": ("2026-01-01", "2001-12-14"),
    "names that YAML takes for floats": ("1.0", "1_0"),
}


@pytest.mark.parametrize(("host", "vserver"), WORDS.values(), ids=WORDS.keys())
def test_words_stay_words(host: str, vserver: str) -> None:
    cluster = parse(text(hosts=f"{{{host}: {{address: 10.0.0.1}}}}", vservers=f"{{{vserver}: {{primary: {host}, backups: []}}}}"))
    assert cluster.vservers == {vserver: Vserver(vserver, host)}


def test_plain_gives_the_words_of_any_file() -> None:
    assert plain(read("{a: [on, 010, 10:30], b: {c: no, d: }}")) == {"a": ["on", "010", "10:30"], "b": {"c": "no", "d": ""}}


def test_a_story_may_leave_out_name_zookeeper_and_addresses() -> None:
    cluster = parse("{hosts: {h1: {}, h2: {}}, vservers: {v: {primary: h1, backups: [h2]}}}", story=True)
    assert [host.address for host in cluster.hosts.values()] == ["127.0.0.1", "127.0.0.2"]
    assert cluster.name == "story"
    assert len(problems("{hosts: {h1: {}, h2: {}}, vservers: {v: {primary: h1, backups: [h2]}}}")) == 4


def test_a_part_of_another_file_is_judged_at_its_own_place() -> None:
    story = read("id: one\ncluster:\n  hosts: {h1: {}}\n  vservers:\n    v: {primary: h9, backups: []}\n", "one.yaml")
    part = dict((key.text, node) for key, node in story.pairs)["cluster"]  # type: ignore[union-attr]
    with pytest.raises(BadConfig, match=r"^one\.yaml: line 5, column 18  vservers\.v\.primary  'h9' is not under hosts"):
        parse(part, "one.yaml", story=True)


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    # keys
    "a misspelt key": (text(timeing="fast"), "timeing", "is not a key that is known here (did you mean timing?)"),
    "a misspelt key is not called missing as well": (
        text(zookeeper="", zookeper="{servers: 10.0.0.1}"), "zookeper", "is not a key that is known here (did you mean zookeeper?)"),
    "a cluster without a name": (text(cluster=""), "cluster", "is missing: give the cluster a name, as in cluster: prod"),
    "a key without a value": (web1("want: "), "vservers.web1.want", "has no value: write started | stopped | ignored, or leave the key out"),
    "no ZooKeeper server": (text(zookeeper="{servers: []}"), "zookeeper.servers", "is empty: name at least one"),
    "no host": (text(hosts="{}", vservers=""), "hosts", "is empty: name at least one host with its address"),
    "a group where a word belongs": (web1("want: {a: b}"), "vservers.web1.want", "is a group of keys: write started | stopped | ignored"),
    "a word where a group belongs": (text(hosts="alpha", vservers=""), "hosts", "is a word: write a group of keys"),
    "a group where a list belongs": (web1("addresses: {a: b}"), "vservers.web1.addresses", "is a group of keys: write a list"),
    # words
    "a misspelt choice": (web1("want: stoped"), "vservers.web1.want", "'stoped' is not one of started, stopped, ignored (did you mean stopped?)"),
    "`on` is no boolean": (web1("want: on"), "vservers.web1.want", "'on' is not one of started, stopped, ignored"),
    "a misspelt profile": (text(timing="norml"), "timing", "'norml' is not one of fast, normal, patient (did you mean normal?)"),
    "a name with a slash": (text(cluster="a/b"), "cluster", "'a/b' is not a name: up to 63 letters, digits, '_', '.' and '-', the first a letter or a digit"),
    "a name that begins with a dot": (text(cluster=".."), "cluster", "'..' is not a name: up to 63 letters, digits, '_', '.' and '-', the first a letter or a digit"),
    "a name that is too long": (text(cluster="x" * 64), "cluster", f"'{'x' * 59}…' is not a name: up to 63 letters, digits, '_', '.' and '-', the first a letter or a digit"),
    "a duration without unit": (web1("max_data_loss: 5"), "vservers.web1.max_data_loss", "'5' has no unit (did you mean 5s?)"),
    "a duration with an unknown unit": (web1("max_data_loss: 5min"), "vservers.web1.max_data_loss", "'5min' has an unknown unit: the units are ms, s, m, h and d"),
    "a time of day is no duration": (web1("max_data_loss: 10:30"), "vservers.web1.max_data_loss", "'10:30' is not a duration: write one number and one of ms, s, m, h, d, as in 5s"),
    "a negative duration": (web1("max_data_loss: -5s"), "vservers.web1.max_data_loss", "'-5s' is not a duration: write one number and one of ms, s, m, h, d, as in 5s"),
    "a duration beyond reason": (web1("max_data_loss: 99999d"), "vservers.web1.max_data_loss", "'99999d' is longer than ten years (is the unit right?)"),
    "no pause between two syncs": (web1("sync: {every: 0s}"), "vservers.web1.sync.every", "'0s' is no time at all: name at least 1ms"),
    "a rate without a time": (web1("sync: {bandwidth: 20M}"), "vservers.web1.sync.bandwidth", "'20M' is not a rate: write an amount per second, as in 20M/s"),
    "a rate with the unit of a shop": (web1("sync: {bandwidth: 20MB/s}"), "vservers.web1.sync.bandwidth", "'20MB' has an unknown unit (did you mean 20M?)"),
    "a rate of nothing": (web1("sync: {bandwidth: 0M/s}"), "vservers.web1.sync.bandwidth", "'0M' is nothing at all"),
    "everything left out of a sync": (web1("sync: {exclude: [/tmp, /]}"), "vservers.web1.sync.exclude", "'/' leaves everything out: name what is not needed, as in /var/cache"),
    "a filter rule in place of a pattern": (web1("sync: {exclude: ['- /tmp']}"), "vservers.web1.sync.exclude", "'- /tmp' is a filter rule of rsync: write the path alone, as in /var/cache"),
    "a relative path": (text(zookeeper="{servers: 10.0.0.1, credentials: secret}"), "zookeeper.credentials", "'secret' is not a full path: begin it with /"),
    "a port that cannot be": (text(zookeeper="{servers: '10.0.0.1:66666'}"), "zookeeper.servers", "'66666' is not a whole number from 1 to 65535"),
    "a ZooKeeper server named twice": (text(zookeeper="{servers: [10.0.0.1, '10.0.0.1:2181']}"), "zookeeper.servers", "10.0.0.1:2181 is there twice: name each server once"),
    "a network device that cannot be": (text(hosts="{alpha: {address: 10.0.0.1, network: {device: a/b}}}", vservers=""), "hosts.alpha.network.device", "'a/b' is not the name of a network device: at most 15 characters, as in eth0"),
    "a device and a bridge": (text(hosts="{alpha: {address: 10.0.0.1, network: {device: a, bridge: b}}}", vservers=""), "hosts.alpha.network.bridge", "stands beside device: keep one of device, bridge"),
    "neither a device nor a bridge": (text(hosts="{alpha: {address: 10.0.0.1, network: {}}}", vservers=""), "hosts.alpha.network.device", "is missing: name one of device, bridge"),
    # addresses
    "an address without prefix length": (web1("addresses: 10.1.0.5"), "vservers.web1.addresses", "'10.1.0.5' has no prefix length (did you mean 10.1.0.5/24?)"),
    "a prefix length that cannot be": (web1("addresses: 10.1.0.5/33"), "vservers.web1.addresses", "'10.1.0.5/33' has no valid prefix length: a number up to 32, as in 10.1.0.5/24"),
    "a netmask for a prefix length": (web1("addresses: 10.1.0.5/255.255.255.0"), "vservers.web1.addresses", "'10.1.0.5/255.255.255.0' has no valid prefix length: a number up to 32, as in 10.1.0.5/24"),
    "an address with leading zeros": (web1("addresses: 10.1.0.010/24"), "vservers.web1.addresses", "'10.1.0.010' is not an IP address: four numbers up to 255 without leading zeros, as in 10.0.0.1, or IPv6 as in fd00::1"),
    "the address of a network": (web1("addresses: 10.1.0.0/24"), "vservers.web1.addresses", "'10.1.0.0/24' is the address of the network itself: choose another one in 10.1.0.0/24"),
    "a broadcast address": (web1("addresses: 10.1.0.255/24"), "vservers.web1.addresses", "'10.1.0.255/24' is the broadcast address of its network: choose another one in 10.1.0.0/24"),
    "a loopback address": (web1("addresses: 127.0.0.5/8"), "vservers.web1.addresses", "'127.0.0.5/8' can only be reached from the vserver itself"),
    "a multicast address": (web1("addresses: 224.0.0.5/8"), "vservers.web1.addresses", "'224.0.0.5/8' is not the address of one machine"),
    "an IPv4 address in IPv6 dress": (web1("addresses: '::ffff:10.1.0.5/64'"), "vservers.web1.addresses", "'::ffff:10.1.0.5/64' is an IPv4 address in IPv6 dress (did you mean 10.1.0.5?)"),
    "a host by its DNS name": (text(hosts="{alpha: {address: alpha.example.com}}", vservers=""), "hosts.alpha.address", "'alpha.example.com' is not an IP address: four numbers up to 255 without leading zeros, as in 10.0.0.1, or IPv6 as in fd00::1"),
    "a host's address with prefix length": (text(hosts="{alpha: {address: 10.0.0.1/24}}", vservers=""), "hosts.alpha.address", "'10.0.0.1/24' has a prefix length (did you mean 10.0.0.1?)"),
    "two hosts with one address": (text(hosts="{alpha: {address: 'fd00::1'}, beta: {address: 'fd00:0::1'}}", vservers=""), "hosts.beta.address", "fd00::1 already belongs to host alpha (line 3): give each its own"),
    "a vserver with a host's address": (web1("addresses: 10.0.0.2/24"), "vservers.web1.addresses", "10.0.0.2 already belongs to host beta (line 3): give each its own"),
    "two vservers with one address": (
        vservers(web1="primary: alpha, backups: [], addresses: 'fd00::5/64'", db1="primary: alpha, backups: [], addresses: 'FD00:0::5/48'"),
        "vservers.db1.addresses", "fd00::5 already belongs to web1 (line 4): give each its own"),
    "an address twice": (web1("addresses: [10.1.0.5/24, 10.1.0.5/25]"), "vservers.web1.addresses", "10.1.0.5 is there twice: name it once"),
    "an address in defaults belongs to one vserver only": (
        text(defaults="{backups: [], addresses: [10.1.0.5/24]}", vservers="{web1: {primary: alpha}, db1: {primary: beta}}"),
        "defaults.addresses", "10.1.0.5 already belongs to web1 (line 5): give each its own"),
    "a gateway outside of the networks": (web1("addresses: 10.1.0.5/24", "gateway: 10.2.0.1"), "vservers.web1.gateway", "10.2.0.1 is not in a network of web1: 10.1.0.0/24"),
    "a gateway of another family": (web1("addresses: 10.1.0.5/24", "gateway: 'fe80::1'"), "vservers.web1.gateway", "fe80::1 is not in a network of web1: it has no IPv6 address"),
    "a gateway without addresses": (web1("gateway: 10.2.0.1"), "vservers.web1.gateway", "web1 has a gateway but no addresses: add addresses:"),
    "a vserver that is its own gateway": (web1("addresses: 10.1.0.5/24", "gateway: 10.1.0.5"), "vservers.web1.gateway", "10.1.0.5 is an address of web1 itself: name the router"),
    # hosts of a vserver
    "a vserver without primary": (vservers(web1="backups: [beta]"), "vservers.web1.primary", "is missing: name the host on which it runs normally"),
    "a vserver that says nothing about backups": (vservers(web1="primary: alpha"), "vservers.web1.backups", "is missing: name a backup or say backups: []"),
    "a misspelt host": (vservers(web1="primary: alpha, backups: [beta, gama]"), "vservers.web1.backups", "'gama' is not under hosts (did you mean gamma?)"),
    "a host in the wrong case": (vservers(web1="primary: Alpha, backups: []"), "vservers.web1.primary", "'Alpha' is not under hosts (did you mean alpha?)"),
    "a host that nothing resembles": (vservers(web1="primary: xyz, backups: []"), "vservers.web1.primary", "'xyz' is not under hosts: known here: alpha, beta, gamma"),
    "a misspelt host in defaults": (text(defaults="{backups: [gama]}"), "defaults.backups", "'gama' is not under hosts (did you mean gamma?)"),
    "the word none for backups": (vservers(web1="primary: alpha, backups: none"), "vservers.web1.backups", "'none' is not under hosts: if nothing shall take over, write backups: []"),
    "the primary among the backups": (vservers(web1="primary: alpha, backups: [beta, alpha]"), "vservers.web1.backups", "'alpha' is the primary of web1 already: name another host, or if nothing shall take over, write backups: []"),
    "a backup twice": (vservers(web1="primary: alpha, backups: [beta, beta]"), "vservers.web1.backups", "'beta' is there twice: name it once"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "path", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(source: str, path: str, advice: str) -> None:
    assert [(problem.path, problem.advice) for problem in problems(source)] == [(path, advice)]


# Rules of keys that are not built yet are judged too, so the key itself is refused beside them.
NEVER_HOLDS = {
    "together and apart": (
        vservers(a="primary: alpha, backups: [], together_with: [b]", b="primary: alpha, backups: [beta], apart_from: a"),
        "b must be both together with and apart from a: drop one of the two rules"),
    "together over a third": (
        vservers(a="primary: alpha, backups: [], together_with: [b, c], apart_from: c", b="primary: alpha, backups: []", c="primary: alpha, backups: [], together_with: b"),
        "a must be both together with and apart from c: drop one of the two rules"),
    "together without a common host": (
        vservers(a="primary: alpha, backups: [], together_with: b", b="primary: beta, backups: [gamma]"),
        "a and b have no host in common, so they can never be together: give them a common host, or drop the rule"),
    "apart with only one host": (
        vservers(a="primary: alpha, backups: [], apart_from: b", b="primary: alpha, backups: []"),
        "a and b can only run on alpha, so they can never be apart: give one of them another host"),
    "together with itself": (vservers(a="primary: alpha, backups: [], together_with: a"), "a names itself: name another vserver"),
    "with an unknown vserver": (vservers(abc="primary: alpha, backups: [], apart_from: acb"), "'acb' is not under vservers (did you mean abc?)"),
    "a circle of starts": (
        vservers(a="primary: alpha, backups: [], start_after: b", b="primary: alpha, backups: [], start_after: [c]", c="primary: alpha, backups: [], start_after: [a]"),
        "waits for itself: a → b → c → a: take one of them out"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "advice"), NEVER_HOLDS.values(), ids=NEVER_HOLDS.keys())
def test_a_rule_that_can_never_hold(source: str, advice: str) -> None:
    told = [problem.advice for problem in problems(source)]
    assert [line for line in told if "not supported yet" not in line] == [advice]
    assert any("not supported yet" in line for line in told)


HOLDS = {
    "apart with two hosts between them": vservers(a="primary: alpha, backups: [], apart_from: b", b="primary: alpha, backups: [beta]"),
    "together with one common host": vservers(a="primary: alpha, backups: [beta], together_with: b", b="primary: beta, backups: []"),
    "a chain of starts": vservers(a="primary: alpha, backups: [], start_after: [b, c]", b="primary: alpha, backups: [], start_after: c", c="primary: alpha, backups: []"),
}  # fmt: skip


@pytest.mark.parametrize("source", HOLDS.values(), ids=HOLDS.keys())
def test_a_rule_that_can_hold(source: str) -> None:
    assert all("not supported yet" in problem.advice for problem in problems(source))


# --- what is not built yet --------------------------------------------------------------------------------------------

# Every key and short form of the interface. What is built loads; all else is refused, and nothing is ignored.
WHOLE = """
cluster: prod
zookeeper:
  servers: [10.0.0.1:2181, 10.0.0.2:2181, 10.0.0.3:2181]
  credentials: /etc/failover/zookeeper.secret
  tls: {ca: /etc/failover/ca.pem, certificate: /etc/failover/host.pem, key: /etc/failover/host.key}
timing: {session: 2s, tick: 200ms, drift: 1%, freeze: 50ms, margin: 50ms, renewals: 4}
notify:
  - {webhook: "https://chat.example/hook", events: [takeover, waiting, host_lost]}
  - {mail: ops@example.com, smtp: mail.example.com:25}
  - {command: [/usr/local/bin/page-me]}
defaults: {sync: rsync, failback: manual, max_data_loss: 60s}
hosts:
  hostA:
    address: 10.0.0.1
    capacity: {memory: 64G, cpus: 16}
    network: {device: eth0}
    fence: {agent: fence_ipmilan, options: {ip: 10.0.9.1, username: admin, password_file: /etc/failover/ipmi}}
    tags: [rack1]
  hostB: {address: 10.0.0.2, network: {bridge: br0}}
  hostC: {address: 10.0.0.3}
vservers:
  v1:
    primary: hostA
    backups: [hostB, hostC]
    addresses: [10.0.0.101/24, "fd00::101/64"]
    gateway: 10.0.0.254
    want: started
    sync: {mode: block, every: continuous, window: 200ms, bandwidth: 50M/s, full_scan: 24h,
           exclude: [/tmp, /var/cache], snapshot: auto, keep: {generations: 3},
           hooks: {before: /bin/true, after: [/bin/sync, -f]}}
    max_data_loss: 60s
    when_stale: {wait: 5m}
    placement: roomiest
    failback: {auto: 5m}
    on_host_shutdown: {keep: 10m}
    restart: {local: 2, moves: 1, within: 10m}
    priority: 100
    together_with: [db1]
    apart_from: [v2]
    prefer_together_with: [db1]
    prefer_apart_from: [v2]
    start_after: [db1]
    needs: {memory: 2G, cpus: 2}
    limits: {processes: 500, disk: 20G, io: 100M/s}
    checks:
      - {tcp: 80, every: 5s, timeout: 1s, fails: 3}
      - {http: "http://10.0.0.101/health", expect: 200}
      - {exec: [/usr/bin/pg_isready], inside: true}
    conf: v1.conf
  v2: {primary: hostA, backups: [hostB], sync: {mode: shared, every: "0 3 * * *"}, when_stale: take, placement: freshest,
       failback: auto, on_host_shutdown: move}
  db1: {primary: hostA, backups: [hostB], on_host_shutdown: stop, sync: {every: 5s}}
"""


def _pattern(path: str) -> str:
    """vservers.v1.sync.every -> vservers.*.sync.every"""
    first, *rest = path.split(".")
    return ".".join((first, "*", *rest[1:])) if first in ("hosts", "vservers") and rest else path


def test_what_is_not_built_yet_is_refused_and_nothing_else() -> None:
    told = problems(WHOLE)
    assert [problem.advice for problem in told if "not supported yet" not in problem.advice] == []
    assert all(problem.hint for problem in told)
    assert {_pattern(problem.path) for problem in told} == set(NOT_YET)


def test_the_whole_names_every_key_of_the_schema() -> None:
    def keys(node: object, path: str) -> set[str]:
        if isinstance(node, list):
            return set().union(*(keys(item, path) for item in node))
        if not isinstance(node, dict):
            return set()
        below = {name: _pattern(f"{path}.{name}".removeprefix(".")) for name in node}
        return set(below.values()).union(*(keys(node[name], f"{path}.{name}".removeprefix(".")) for name in node))

    said = {_pattern(key) for key in keys(plain(read(WHOLE)), "")}
    assert set(patterns()) <= said


def test_not_yet_names_only_keys_of_the_schema() -> None:
    assert set(NOT_YET) <= set(patterns())


NOT_YET_VALUES = {
    "continuous sync": ("sync: {every: continuous}", "'continuous' is not supported yet: name a duration such as 5s"),
    "sync by the clock": ("sync: {every: '0 3 * * *'}", "'0 3 * * *' is not supported yet: name a duration such as 5s"),
    "block": ("sync: block", "'block' is not supported yet: write rsync"),
    "return by itself": ("failback: auto", "'auto' is not supported yet: write manual, and move it back with `failover move`"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "advice"), NOT_YET_VALUES.values(), ids=NOT_YET_VALUES.keys())
def test_a_value_that_is_not_built_yet(said: str, advice: str) -> None:
    assert [problem.advice for problem in problems(web1(said))] == [advice]


def test_what_is_not_built_yet_is_refused_in_defaults_too() -> None:
    source = text(defaults="{restart: {local: 2}, sync: {every: continuous}}")
    assert [problem.path for problem in problems(source)] == ["defaults.restart", "defaults.sync.every"]


def test_a_wrong_value_of_what_is_not_built_yet_is_told_as_well() -> None:
    told = [problem.advice for problem in problems(web1("restart: {locl: 2}", "priority: x"))]
    assert told == [
        "is not supported yet: leave it out",
        "is not a key that is known here (did you mean local?)",
        "'x' is not a whole number from 0 to 1000000000",
        "is not supported yet: leave it out",
    ]


# --- places, files and texts ------------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    source = """\
cluster: prod
zookeeper: {servers: [10.0.0.1:2181]}
hosts:
  alpha: {address: 10.0.0.1}
  gamma: {address: 10.0.0.3}
vservers:
  web1: {primary: alpha, backups: [gamma], addresses: 10.0.0.5/24}
  db1:
    primary: alpha
    backups: [gama]
    addresses: [10.0.0.5/24]
  old:
    primary: gamma
"""
    with pytest.raises(BadConfig) as caught:
        parse(source, "/etc/failover/cluster.yaml")
    assert str(caught.value) == """\
/etc/failover/cluster.yaml has 3 problems
  line 10, column 15  vservers.db1.backups    'gama' is not under hosts (did you mean gamma?)
  line 11, column 17  vservers.db1.addresses  10.0.0.5 already belongs to web1 (line 7): give each its own
  line 12, column 3   vservers.old.backups    is missing: name a backup or say backups: []"""
    assert caught.value.exit_code == BadInput.exit_code == 2


def test_one_problem_is_one_line() -> None:
    with pytest.raises(BadConfig) as caught:
        parse(text(timing="fasst"))
    assert str(caught.value) == "cluster.yaml: line 5, column 9  timing  'fasst' is not one of fast, normal, patient (did you mean fast?)"  # noqa: E501


NOT_YAML = {
    "an empty text": ("", "cluster.yaml is empty: begin with cluster.yaml.example"),
    "a text of comments": ("# later\n", "cluster.yaml is empty: begin with cluster.yaml.example"),
    "a list": ("- a\n", "cluster.yaml: line 1, column 1  begins with no key: begin with cluster: and a name"),
    "a word": ("prod", "cluster.yaml: line 1, column 1  begins with no key: begin with cluster: and a name"),
    "a tab": ("hosts:\n\talpha: {}", "cluster.yaml: line 2, column 1  a tab cannot be used here: indent with spaces"),
    "an open quote": ("a: b\nc: 'd\ne: f\n", "cluster.yaml: line 4, column 1  the quote that opens on line 2 is never closed: close it"),
    "an open list": ("a: [b,\n  c\nd: e", "cluster.yaml: line 3, column 2  the [ of line 1 is not closed, or lacks a comma before this: close it with ]"),
    "an open group": ("a: {b: c", "cluster.yaml: line 1, column 9  the { of line 1 is not closed, or lacks a comma before this: close it with }"),
    "a colon too many": ("a: b: c", "cluster.yaml: line 1, column 5  a colon cannot stand here: check the indentation, or put the text in quotes"),
    "a wrong indentation": ("a:\n  b: c\n d: e", "cluster.yaml: line 3, column 2  this does not fit the indentation that began on line 1: align it"),
    "a key without colon": ("cluster: prod\nhosts\n  a: {}\n", "cluster.yaml: line 3, column 4  the key on line 2 has no colon: write it as key: value"),
    "a key twice": ("cluster: a\ncluster: b", "cluster.yaml: line 2, column 1  the key 'cluster' is there twice (first on line 1): keep one"),
    "a template not filled in": ("a: {{ b }}", "cluster.yaml: line 1, column 5  a list or a group cannot be a key (is there a { or [ too many?)"),
    "an anchor that holds itself": ("a: &x [*x]", "cluster.yaml: line 1, column 8  an alias (*) is not understood: write the value itself; what all vservers share belongs under defaults"),
    "a merge key": ("a: {<<: b}", "cluster.yaml: line 1, column 5  << is not understood: write the value itself; what all vservers share belongs under defaults"),
    "a tag": ("a: !!int 5", "cluster.yaml: line 1, column 4  the tag 'tag:yaml.org,2002:int' is not understood: leave it out"),
    "two documents": ("a: b\n---\nc: d", "cluster.yaml: line 2, column 1  a second document begins here: keep one, and remove the line ---"),
    "a NUL": ("a: b\nc: \0", "cluster.yaml: line 2, column 4  the character 0x0000 belongs in no text (is it a binary file?)"),
    "half a character": ("a: \ud800", "cluster.yaml: line 1, column 4  the character 0xd800 belongs in no text (is it a binary file?)"),
    "brackets without end": ("[" * 100_000, "cluster.yaml: line 1, column 41  more than 40 levels deep (is a bracket not closed?)"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "told"), NOT_YAML.values(), ids=NOT_YAML.keys())
def test_what_is_not_yaml_is_told_in_one_line(source: str, told: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(source)
    assert str(caught.value) == told


FILES = {
    "latin1": (b"cluster: prod\nhosts: {caf\xe9: {}}", "{}: line 2, column 12  is not UTF-8 text: save it as UTF-8"),
    "utf-16": ("cluster: prod".encode("utf-16"), "{}: line 1, column 1  is not UTF-8 text: save it as UTF-8"),
    "too large": (b"#" * 1_000_000, "{} is larger than 900 kB, more than ZooKeeper keeps in one record"),
}


@pytest.mark.parametrize(("data", "told"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_text(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(data)
    with pytest.raises(BadConfig) as caught:
        load(path)
    assert str(caught.value) == told.replace("{}", str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"x\.yaml is not there: begin with cluster\.yaml\.example$"):
        load(tmp_path / "x.yaml")
    with pytest.raises(BadConfig, match=r"is a directory: name the file in it$"):
        load(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(BadConfig, match=r"loop cannot be read \(Too many levels of symbolic links\)$"):
        load(loop)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse("\ufeff" + text()) == parse(text())


def test_nothing_of_the_file_is_obeyed_by_the_terminal() -> None:
    with pytest.raises(BadConfig) as caught:
        parse(text(timing='"a\\e[2J\\nb"', **{'"k\\e[0m"': "x"}))
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert len(str(caught.value).splitlines()) == 1 + len(caught.value.problems)


# --- warnings ---------------------------------------------------------------------------------------------------------

WARNED = {
    "a healthy cluster": (text(), ()),
    "no backups": (
        vservers(web1="primary: alpha, backups: []"),
        ("web1 has no backups: nothing can take over: name a host in backups",),
    ),
    "no vservers": (text(vservers=""), ("there are no vservers: add one under vservers:",)),
    "one ZooKeeper server": (
        text(zookeeper="{servers: 10.0.0.1}"),
        ("one ZooKeeper server: none of them may fail: name three",),
    ),
    "replicas that are too old most of the time": (
        web1("max_data_loss: 4s"),
        ("the replicas of web1 are mostly older than its max_data_loss of 4 s: sync every 2s, or allow more",),
    ),
}


@pytest.mark.parametrize(("source", "advice"), WARNED.values(), ids=WARNED.keys())
def test_what_is_legal_and_worth_a_word(source: str, advice: tuple[str, ...]) -> None:
    assert tuple(warning.advice for warning in examine(source).warnings) == advice


# --- the example, the reference, and anything at all ------------------------------------------------------------------


def test_the_example_loads_without_a_warning() -> None:
    loaded = examine(text_of(EXAMPLE), "cluster.yaml.example")
    assert loaded == Loaded(load(EXAMPLE), ())
    assert set(loaded.cluster.vservers) == {"web1", "db1", "old"}
    assert loaded.cluster.vservers["db1"].sync == Sync("rsync", 2.0, 50 * 2**20, ("/tmp", "/var/cache"))


def test_every_field_of_the_model_can_be_said() -> None:
    """A field that no key fills, or a key that no field takes, is found here."""
    said = {pattern for pattern in patterns() if pattern not in NOT_YET or NOT_YET[pattern].partly}
    for record, prefix in ((Vserver, "vservers.*"), (Host, "hosts.*"), (Sync, "vservers.*.sync"), (Cluster, "")):
        for field in fields(record):
            name = "cluster" if (record, field.name) == (Cluster, "name") else field.name
            words = {name, name.removesuffix("_s"), name.removesuffix("_bytes_s")} - {"name"}
            assert not words or any(f"{prefix}.{word}".removeprefix(".") in said for word in words), (record, name)


def test_the_reference_names_every_key_and_says_what_is_not_built_yet() -> None:
    rows = {}
    for line in REFERENCE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[1].startswith("`"):
            rows[cells[1].strip("`")] = line
    assert set(patterns()) - {"defaults"} <= set(rows) | {"defaults"}
    for pattern, rule in NOT_YET.items():
        assert "not yet" in rows[pattern], pattern
        assert rule.partly or rows[pattern].split("|")[2].strip() == "not yet", pattern
    for pattern in set(rows) & set(patterns()):
        above = any(pattern == key or pattern.startswith(f"{key}.") for key in NOT_YET)
        assert above or "not yet" not in rows[pattern], pattern


def _mutated(source: str, rng: random.Random) -> str:
    lines = source.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(source))
        length = rng.randint(0, 12)
        junk = "".join(rng.choice(_JUNK) for _ in range(rng.randint(0, 3)))
        kind = rng.randrange(5)
        if kind == 0:
            source = source[:at]
        elif kind == 1:
            source = source[:at] + junk + source[at + length :]
        elif kind == 2:
            source = source[:at] + source[at : at + length] * 2 + source[at + length :]
        elif kind == 3:
            rng.shuffle(lines)
            source = "".join(lines)
        else:
            other = rng.randrange(len(source))
            source = source[:at] + source[other : other + 40] + source[at + length :]
        source = source or "x"
    return source


_JUNK = [*"{}[]:,-#&*!|>'\"%@`?~ \t\n\0\ud800é→0123456789ms/.<", "null", "!!int ", "---\n", "\r\n", "\u2028", "\x85", "\x1b", "<<: "]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_written_the_answer_is_a_cluster_or_bad_config(seed: int) -> None:
    rng = random.Random(seed)
    sources = (EXAMPLE.read_text(), WHOLE)
    for _ in range(60):
        source = _mutated(rng.choice(sources), rng)
        for story in (False, True):
            try:
                cluster = parse(source, story=story)
            except BadConfig as bad:
                assert bad.problems
                assert all(line.isprintable() for line in str(bad).splitlines())
                assert len(str(bad).splitlines()) in (1, 1 + len(bad.problems))
            else:
                assert set(cluster.hosts) >= {host for vserver in cluster.vservers.values() for host in vserver.hosts}
