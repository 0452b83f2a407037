"""The whole schema of cluster.yaml: what is built loads, all else is refused, and the reference tells both."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from failover.config import Loaded, examine, load, parse, read_all, text_of
from failover.config.read import plain, read
from failover.config.schema import NOT_YET, patterns
from failover.model import Capacity, Check, Cluster, Host, Needs, Restart, Sync, Vserver
from tests.test_config import problems, text, web1

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "cluster.yaml.example"
REFERENCE = ROOT / "docs" / "configuration.md"

# Every key and short form of the interface. What is built loads; all else is refused, and nothing is ignored.
WHOLE = """
cluster: prod
zookeeper:
  servers: [10.0.0.1:2181, 10.0.0.2:2181, 10.0.0.3:2181]
  credentials: /etc/failover/zookeeper.secret
  tls: {ca: /etc/failover/ca.pem, certificate: /etc/failover/host.pem, key: /etc/failover/host.key}
timing: {session: 2s, tick: 200ms, drift: 1%, freeze: 50ms, margin: 50ms, renewals: 6,
         grant: 200ms, leader_session: 1.2s}
lease: grants
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
  v2: {primary: hostA, backups: [hostB], sync: {mode: shared, every: "0 3 * * *"}, when_stale: take,
       placement: freshest, failback: auto, on_host_shutdown: move}
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
    "limits": ("limits: {processes: 500}", "is not supported yet: leave it out"),
}


@pytest.mark.parametrize(("said", "advice"), NOT_YET_VALUES.values(), ids=NOT_YET_VALUES.keys())
def test_a_value_that_is_not_built_yet(said: str, advice: str) -> None:
    assert [problem.advice for problem in problems(web1(said))] == [advice]


def test_what_is_not_built_yet_is_refused_in_defaults_too() -> None:
    source = text(defaults="{limits: {processes: 2}, sync: {every: continuous}}")
    assert [problem.path for problem in problems(source)] == ["defaults.limits", "defaults.sync.every"]


def test_a_wrong_value_of_what_is_not_built_yet_is_told_as_well() -> None:
    told = [problem.advice for problem in problems(web1("limits: {dsk: 2G}", "conf: ''"))]
    assert told == [
        "is not supported yet: leave it out",
        "is not a key that is known here (did you mean disk?)",
        "is empty: write one line of text",
        "is not supported yet: leave it out",
    ]


def test_the_example_loads_without_a_warning() -> None:
    loaded = read_all(EXAMPLE)
    assert loaded == Loaded(load(EXAMPLE), ()) == Loaded(parse(text_of(EXAMPLE)))
    assert set(loaded.cluster.vservers) == {"web1", "db1", "old"}
    assert loaded.cluster.vservers["db1"].sync == Sync("rsync", 2.0, 50 * 2**20, ("/tmp", "/var/cache"))


RECORDS = {
    "": Cluster,
    "hosts.*": Host,
    "hosts.*.capacity": Capacity,
    "vservers.*": Vserver,
    "vservers.*.checks": Check,
    "vservers.*.needs": Needs,
    "vservers.*.restart": Restart,
    "vservers.*.sync": Sync,
}
OTHER_WORDS = {
    (Cluster, "name"): "cluster",
    (Cluster, "grants"): "lease",
    (Check, "command"): "exec",
    (Vserver, "stale_wait_s"): "when_stale.wait",
    (Vserver, "keep_s"): "on_host_shutdown.keep",
}


def test_the_example_of_the_reference_is_right() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    loaded = examine(f"hosts: {{hostA: {{}}, hostB: {{}}, hostC: {{}}}}\n{block}", story=True)
    assert set(loaded.cluster.vservers) == {"db1", "web1"}
    assert loaded.warnings == ()


def test_what_the_example_comments_out_is_right_too() -> None:
    whole = re.sub(r"^    # ", "    ", EXAMPLE.read_text(), flags=re.MULTILINE)
    loaded = examine(whole)
    assert [len(vserver.checks) for vserver in loaded.cluster.vservers.values()] == [2, 1, 0]
    assert loaded.warnings == ()


def test_every_field_of_the_model_can_be_said() -> None:
    """A field that no key fills, or a key that no field takes, is found here."""
    said = {pattern for pattern in patterns() if pattern not in NOT_YET or NOT_YET[pattern].partly}
    for prefix, record in RECORDS.items():
        for field in fields(record):
            name = OTHER_WORDS.get((record, field.name), field.name)
            words = {name, *(name.removesuffix(unit) for unit in ("_s", "_bytes", "_bytes_s"))} - {"name"}
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
