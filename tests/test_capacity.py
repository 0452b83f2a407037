"""Who survives whom, on a cluster as it is and as a file says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from failover.cli import main as command
from failover.model import Needs
from failover.plan.capacity import matrix, survival
from tests.test_plan_rules import BIG, GIB, vs, world

FILE = """
cluster: small
zookeeper: {servers: ["10.0.0.1:2181"]}
hosts:
  alpha: {address: 10.0.0.1, capacity: {memory: 8G, cpus: 4}}
  beta: {address: 10.0.0.2, capacity: {memory: SIZE, cpus: 4}}
vservers:
  v1: {primary: alpha, backups: [beta], needs: {memory: 3G}}
  v2: {primary: beta, backups: [alpha], needs: {memory: 3G}, start_after: [v1]}
"""


def test_every_host_is_lost_once_and_what_it_owned_goes_on_elsewhere() -> None:
    seen = world(vs("v1"), vs("v2", "beta"), vs("v3", "gamma", ()))
    found = {one.lost: one for one in matrix(seen)}
    assert set(found) == {("alpha",), ("beta",), ("gamma",)}
    assert [move[:3] for move in found["alpha",].moved] == [("v1", "alpha", "beta")]
    assert not found["gamma",].whole
    assert found["gamma",].waiting[0][0] == "v3"


def test_two_hosts_at_once_are_every_pair() -> None:
    found = list(matrix(world(vs("v1")), at_once=2))
    assert [one.lost for one in found] == [("alpha", "beta"), ("alpha", "gamma"), ("beta", "gamma")]
    assert all(one.whole for one in found)


def test_one_scenario_takes_no_room_from_the_next() -> None:
    seen = world(
        vs("v1", "alpha", ("gamma",), needs=BIG), vs("v2", "beta", ("gamma",), needs=BIG), memory_gib={"gamma": 4}
    )
    assert all(one.whole for one in matrix(seen))
    assert not survival(seen, ("alpha", "beta")).whole


def test_what_is_lost_on_one_host_must_find_room_together() -> None:
    small = Needs(memory_bytes=GIB)
    seen = world(*(vs(f"v{n}", "alpha", ("beta",), needs=small) for n in range(5)), memory_gib={"beta": 4})
    assert [name for name, _ in survival(seen, ("alpha",)).waiting] == ["v4"]


@pytest.mark.parametrize(("size", "code", "says"), [("8G", 0, "N+1 holds"), ("4G", 1, "v1 would wait")])
def test_the_command_asks_a_file(
    size: str, code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE.replace("SIZE", size))
    assert run("capacity", "--file", str(file)) == code
    assert says in capsys.readouterr().out
    assert run("capacity", "--json", "--file", str(file)) == code
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["lost"] for row in rows] == [["alpha"], ["beta"]]


def test_a_plan_without_a_host_asks_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE.replace("SIZE", "8G"))
    assert run("plan", "--without", "alpha", "--file", str(file)) == 0
    assert "v1: alpha -> beta" in capsys.readouterr().out


EXAMPLE = str(Path(__file__).parent.parent / "cluster.yaml.example")


@pytest.mark.parametrize("host", ["hostA", "hostB", "hostC"])
def test_a_plan_of_a_file_begins_with_all_that_is_wanted_running(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """web1 starts after db1, and is not kept waiting by it when only web1's host is lost."""
    assert run("plan", "--without", host, "--file", EXAMPLE) == 0
    assert re.fullmatch(rf"(web1|db1|old): {host} -> host[AC]  .*\n", capsys.readouterr().out)


def test_a_plan_of_a_file_changes_nothing_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--file", EXAMPLE) == 0
    assert capsys.readouterr().out == "nothing would change\n"


def test_more_losses_than_hosts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE.replace("SIZE", "8G"))
    assert run("capacity", "--lost", "2", "--file", str(file)) == 2
    assert "--lost must be from 1 to 1" in capsys.readouterr().err


def run(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["failover", *words])
        command.main()
    return int(ended.value.code or 0)
