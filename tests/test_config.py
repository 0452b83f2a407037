"""cluster.yaml -> Cluster. The names of the rows are the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.config import BadConfig, Problem, examine, parse
from failover.config.read import Pairs, plain, read
from failover.model import Host, Network, Sync, Vserver, Want, ZooKeeper

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
        text(
            defaults="{want: stopped, backups: [gamma]}",
            vservers="{web1: {primary: alpha, want: started, backups: []}}",
        ),
        Vserver("web1", "alpha"),
    ),
    "the defaults of a group are laid under key by key": (
        text(
            defaults="{sync: {every: 9s, snapshot: off}}",
            vservers="{web1: {primary: alpha, backups: [beta], sync: {every: 2s}}}",
        ),
        Vserver("web1", "alpha", ("beta",), sync=Sync(every_s=2.0, snapshot="off")),
    ),
}


@pytest.mark.parametrize(("source", "expected"), UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_a_vserver_is_understood(source: str, expected: Vserver) -> None:
    assert parse(source).vservers["web1"] == expected


HOSTS = {
    "a host with nothing but its address": ("{address: 10.0.0.9}", Host("h", "10.0.0.9")),
    "a host with a bridge": (
        "{address: 10.0.0.9, network: {bridge: br0}}",
        Host("h", "10.0.0.9", Network(bridge="br0")),
    ),
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
    one_host = f"{{{host}: {{address: 10.0.0.1}}}}"
    cluster = parse(text(hosts=one_host, vservers=f"{{{vserver}: {{primary: {host}, backups: []}}}}"))
    assert cluster.vservers == {vserver: Vserver(vserver, host)}


def test_plain_gives_the_words_of_any_file() -> None:
    words = plain(read("{a: [on, 010, 10:30], b: {c: no, d: }}"))
    assert words == {"a": ["on", "010", "10:30"], "b": {"c": "no", "d": ""}}


def test_a_story_may_leave_out_name_zookeeper_and_addresses() -> None:
    cluster = parse("{hosts: {h1: {}, h2: {}}, vservers: {v: {primary: h1, backups: [h2]}}}", story=True)
    assert [host.address for host in cluster.hosts.values()] == ["127.0.0.1", "127.0.0.2"]
    assert cluster.name == "story"
    assert len(problems("{hosts: {h1: {}, h2: {}}, vservers: {v: {primary: h1, backups: [h2]}}}")) == 4


def test_a_part_of_another_file_is_judged_at_its_own_place() -> None:
    story = read("id: one\ncluster:\n  hosts: {h1: {}}\n  vservers:\n    v: {primary: h9, backups: []}\n", "one.yaml")
    assert isinstance(story, Pairs)
    part = next(node for key, node in story.pairs if key.text == "cluster")
    told = r"^one\.yaml: line 5, column 18  vservers\.v\.primary  'h9' is not under hosts"
    with pytest.raises(BadConfig, match=told):
        parse(part, "one.yaml", story=True)


# --- what is refused --------------------------------------------------------------------------------------------------

IN_WEB1 = {  # what web1 says besides its hosts -> the key, and what is told
    "a misspelt key": ("wnat: started", "wnat", "is not a key that is known here (did you mean want?)"),
    "a key without a value": ("want: ", "want", "has no value: write started | stopped | ignored"),
    "a group where a word belongs": ("want: {a: b}", "want", "is a group of keys: write started | stopped | ignored"),
    "a group where a list belongs": ("addresses: {a: b}", "addresses", "is a group of keys: write a list"),
    "a misspelt choice": ("want: stoped", "want", "is not one of started, stopped, ignored (did you mean stopped?)"),
    "`on` is no boolean": ("want: on", "want", "'on' is not one of started, stopped, ignored"),
    "a duration without unit": ("max_data_loss: 5", "max_data_loss", "'5' has no unit (did you mean 5s?)"),
    "a duration with an unknown unit": ("max_data_loss: 5min", "max_data_loss", "the units are ms, s, m, h and d"),
    "a time of day is no duration": ("max_data_loss: 10:30", "max_data_loss", "'10:30' is not a duration"),
    "a negative duration": ("max_data_loss: -5s", "max_data_loss", "'-5s' is not a duration"),
    "a duration beyond reason": ("max_data_loss: 99999d", "max_data_loss", "is longer than ten years"),
    "no pause between two syncs": ("sync: {every: 0s}", "sync.every", "'0s' is no time at all: name at least 1ms"),
    "a rate without a time": ("sync: {bandwidth: 20M}", "sync.bandwidth", "an amount per second, as in 20M/s"),
    "a rate with a longer unit": ("sync: {bandwidth: 20MB/s}", "sync.bandwidth", "(did you mean 20M/s?)"),
    "a rate without unit": ("sync: {bandwidth: 20/s}", "sync.bandwidth", "(did you mean 20M/s?)"),
    "a rate of nothing": ("sync: {bandwidth: 0M/s}", "sync.bandwidth", "'0M/s' is nothing at all"),
    "everything left out of a sync": ("sync: {exclude: [/tmp, /]}", "sync.exclude", "'/' leaves everything out"),
    "a filter rule for a pattern": ("sync: {exclude: ['- /tmp']}", "sync.exclude", "is a filter rule of rsync"),
    "no prefix length": ("addresses: 10.1.0.5", "addresses", "no prefix length (did you mean 10.1.0.5/24?)"),
    "a prefix length that cannot be": (
        "addresses: 10.1.0.5/33",
        "addresses",
        "no valid prefix length: a number up to 32",
    ),
    "a netmask": ("addresses: 10.1.0.5/255.255.255.0", "addresses", "no valid prefix length: a number up to 32"),
    "leading zeros": ("addresses: 10.1.0.010/24", "addresses", "is not an IP address"),
    "the address of a network": ("addresses: 10.1.0.0/24", "addresses", "is the address of the network itself"),
    "a broadcast address": ("addresses: 10.1.0.255/24", "addresses", "is the broadcast address of its network"),
    "a loopback address": ("addresses: 127.0.0.5/8", "addresses", "can only be reached from the vserver itself"),
    "a multicast address": ("addresses: 224.0.0.5/8", "addresses", "is not the address of one machine"),
    "IPv4 in IPv6 dress": ("addresses: '::ffff:10.1.0.5/64'", "addresses", "(did you mean 10.1.0.5?)"),
    "an address twice": ("addresses: [10.1.0.5/24, 10.1.0.5/25]", "addresses", "10.1.0.5 is there twice"),
    "a host's address": ("addresses: 10.0.0.2/24", "addresses", "10.0.0.2 already belongs to host beta (line 3)"),
    "a gateway outside of the networks": (
        "addresses: 10.1.0.5/24, gateway: 10.2.0.1",
        "gateway",
        "10.2.0.1 is not in a network of web1: 10.1.0.0/24",
    ),
    "a gateway of another family": (
        "addresses: 10.1.0.5/24, gateway: 'fe80::1'",
        "gateway",
        "fe80::1 is not in a network of web1: it has no IPv6 address",
    ),
    "a gateway without addresses": ("gateway: 10.2.0.1", "gateway", "web1 has a gateway but no addresses"),
    "a vserver that is its own gateway": (
        "addresses: 10.1.0.5/24, gateway: 10.1.0.5",
        "gateway",
        "10.1.0.5 is an address of web1 itself: name the router",
    ),
}


@pytest.mark.parametrize(("said", "key", "told"), IN_WEB1.values(), ids=IN_WEB1.keys())
def test_refused_in_a_vserver(said: str, key: str, told: str) -> None:
    (problem,) = problems(web1(said))
    assert problem.path == f"vservers.web1.{key}"
    assert told in problem.advice


HOSTS_OF_WEB1 = {  # all that web1 says -> the key, and what is told
    "no primary": ("backups: [beta]", "primary", "is missing: name the host on which it runs normally"),
    "nothing said about backups": ("primary: alpha", "backups", "is missing: name a backup or say backups: []"),
    "a misspelt host": ("primary: alpha, backups: gama", "backups", "'gama' is not under hosts (did you mean gamma?)"),
    "a host in the wrong case": ("primary: Alpha, backups: []", "primary", "(did you mean alpha?)"),
    "a host that nothing resembles": ("primary: xyz, backups: []", "primary", "known here: alpha, beta, gamma"),
    "the word none": ("primary: alpha, backups: none", "backups", "if nothing shall take over, write backups: []"),
    "the primary among the backups": ("primary: alpha, backups: [alpha]", "backups", "is the primary of web1 already"),
    "a backup twice": ("primary: alpha, backups: [beta, beta]", "backups", "'beta' is there twice: name it once"),
}


@pytest.mark.parametrize(("said", "key", "told"), HOSTS_OF_WEB1.values(), ids=HOSTS_OF_WEB1.keys())
def test_refused_hosts_of_a_vserver(said: str, key: str, told: str) -> None:
    (problem,) = problems(vservers(web1=said))
    assert problem.path == f"vservers.web1.{key}"
    assert told in problem.advice


IN_HOST = {  # what host alpha says -> the key, and what is told
    "no address": ("tags: [rack1]", "address", "is missing: give its IP address"),
    "a DNS name": ("address: alpha.example.com", "address", "'alpha.example.com' is not an IP address"),
    "a prefix length": ("address: 10.0.0.1/24", "address", "has a prefix length (did you mean 10.0.0.1?)"),
    "no such device": ("address: 10.0.0.1, network: {device: a/b}", "network.device", "is not the name of a network"),
    "device and bridge": (
        "address: 10.0.0.1, network: {device: a, bridge: b}",
        "network.bridge",
        "stands beside device: keep one of device, bridge",
    ),
    "neither device nor bridge": (
        "address: 10.0.0.1, network: {}",
        "network.device",
        "is missing: name one of device, bridge",
    ),
}


@pytest.mark.parametrize(("said", "key", "told"), IN_HOST.values(), ids=IN_HOST.keys())
def test_refused_in_a_host(said: str, key: str, told: str) -> None:
    (problem,) = problems(text(hosts=f"{{alpha: {{{said}}}}}", vservers=""))
    assert problem.path == f"hosts.alpha.{key}"
    assert told in problem.advice


IN_CLUSTER = {  # the top-level keys that differ -> the path, and what is told
    "a misspelt key": ({"timeing": "fast"}, "timeing", "is not a key that is known here (did you mean timing?)"),
    "a misspelt key is not called missing as well": (
        {"zookeeper": "", "zookeper": "{servers: 10.0.0.1}"},
        "zookeper",
        "is not a key that is known here (did you mean zookeeper?)",
    ),
    "no name": ({"cluster": ""}, "cluster", "is missing: give the cluster a name, as in cluster: prod"),
    "a name with a slash": ({"cluster": "a/b"}, "cluster", "'a/b' is not a name"),
    "a name that begins with a dot": ({"cluster": ".."}, "cluster", "'..' is not a name"),
    "a name that ends with a dot": ({"cluster": "web."}, "cluster", "'web.' is not a name"),
    "a name with two dots": ({"cluster": "a..b"}, "cluster", "'a..b' is not a name"),
    "a name that is taken": ({"cluster": "spawner.sock"}, "cluster", "'spawner.sock' is not a name"),
    "a name that is too long": ({"cluster": "x" * 64}, "cluster", f"'{'x' * 59}…' is not a name"),
    "a misspelt profile": ({"timing": "norml"}, "timing", "(did you mean normal?)"),
    "a misspelt term": ({"timing": "{sesion: 2s}"}, "timing.sesion", "(did you mean session?)"),
    "terms that are not safe": (
        {"timing": "{session: 500ms}"},
        "timing",
        "only 0.40 s, too short for a renewal to be lost with ticks of 0.2 s: raise session to at least 1.4 s",
    ),
    "a grant that outlives the leader's session": (
        {"timing": "{grant: 5s}"},
        "timing",
        "whole grants of 5 s are beyond that while a proof is on its way: raise leader_session to at least ",
    ),
    "no host": ({"hosts": "{}", "vservers": ""}, "hosts", "is empty: name at least one host with its address"),
    "a word for the hosts": ({"hosts": "alpha", "vservers": ""}, "hosts", "is a word: write a group of keys"),
    "no ZooKeeper server": ({"zookeeper": "{servers: []}"}, "zookeeper.servers", "is empty: name at least one"),
    "a ZooKeeper server named twice": (
        {"zookeeper": "{servers: [10.0.0.1, '10.0.0.1:2181']}"},
        "zookeeper.servers",
        "10.0.0.1:2181 is there twice: name each server once",
    ),
    "a port that cannot be": (
        {"zookeeper": "{servers: '10.0.0.1:66666'}"},
        "zookeeper.servers",
        "'66666' is not a whole number from 1 to 65535",
    ),
    "a relative path": (
        {"zookeeper": "{servers: 10.0.0.1, credentials: secret}"},
        "zookeeper.credentials",
        "'secret' is not a full path: begin it with /",
    ),
    "two hosts with one address": (
        {"hosts": "{alpha: {address: 'fd00::1'}, beta: {address: 'FD00:0::1'}}", "vservers": ""},
        "hosts.beta.address",
        "fd00::1 already belongs to host alpha (line 3): give each its own",
    ),
    "two vservers with one address": (
        {
            "defaults": "{primary: alpha, backups: []}",
            "vservers": "{a: {addresses: 'fd00::5/64'}, b: {addresses: 'FD00:0::5/48'}}",
        },
        "vservers.b.addresses",
        "fd00::5 already belongs to a (line 4): give each its own",
    ),
    "an address in defaults belongs to one vserver only": (
        {"defaults": "{backups: [], addresses: 10.1.0.5/24}", "vservers": "{a: {primary: alpha}, b: {primary: beta}}"},
        "defaults.addresses",
        "10.1.0.5 already belongs to a (line 5): give each its own",
    ),
    "a misspelt host in defaults": (
        {"defaults": "{backups: [gama]}"},
        "defaults.backups",
        "'gama' is not under hosts (did you mean gamma?)",
    ),
}


@pytest.mark.parametrize(("changed", "path", "told"), IN_CLUSTER.values(), ids=IN_CLUSTER.keys())
def test_refused_in_the_cluster(changed: dict[str, str], path: str, told: str) -> None:
    (problem,) = problems(text(**changed))
    assert problem.path == path
    assert told in problem.advice


def test_no_second_problem_follows_from_the_first() -> None:
    """What could not be read is neither missing, nor as in defaults, nor a ground to conclude from."""
    (problem,) = problems(text(defaults="{backups: [alpha]}", vservers="{web1: {primary: alpha, backups: {}}}"))
    assert problem.advice == "is a group of keys: write a list"
    (problem,) = problems(text(hosts="{alpha: {address: 1}}", vservers="{web1: {primary: alpha, backups: []}}"))
    assert problem.path == "hosts.alpha.address"
    for rule in ("together_with", "apart_from"):
        told = problems(vservers(a=f"primary: gama, backups: [], {rule}: b", b="primary: gama, backups: []"))
        assert [problem.message for problem in told] == ["'gama' is not under hosts"] * 2
    told = problems(vservers(a="primary: aplha, backups: [], together_with: b", b="primary: alpha, backups: []"))
    assert [problem.message for problem in told] == ["'aplha' is not under hosts"]


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
