"""The whole cluster on real processes: hosts die, are cut off, lose daemons and come back; observers look every 10 ms.

One lab serves all tests of this file; each begins with everything up, v1 running and every replica fresh.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.command import CommandFailed
from failover.lab import drill, faults, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from failover.lab.watch import Watch
from tests.lab.cluster import cluster_of, first_process, others, owner_of, settle, settled

pytestmark = [pytest.mark.needs("root", "java", "rsync", "sshd", "nft", "btrfs", "busybox"), pytest.mark.timeout(300)]

NAME = f"t{os.getpid()}-cluster"
SRVR = """
import socket, sys
with socket.create_connection((sys.argv[1], 2181)) as server:
    server.sendall(b"srvr")
    print(server.makefile().read())
"""
DAEMONS = ("agent", "guard", "leader", "spawner", "sshd", "zookeeper")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with cluster_of(NAME, tmp_path_factory.mktemp("cluster")) as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    return settle(shared)


def refused(lab: Lab, host: str, *words: str) -> tuple[int | None, str]:
    """The exit code of a command that must fail, and what it says on stderr."""
    with pytest.raises(CommandFailed) as failure:
        sample.failover(lab, host, *words)
    return failure.value.returncode, failure.value.stderr


def write(lab: Lab, host: str, path: str, text: str) -> None:
    sample.vserver(lab, host, sample.NAME, "exec", "--", "sh", "-c", f"echo {text} > {path}; sync")


# --- takeover and move ------------------------------------------------------------------------------------------------


def test_a_power_cut_is_survived_with_address_and_data(lab: Lab) -> None:
    source = owner_of(lab)
    write(lab, source, "/var/www/index.html", "written before the cut")
    written = time.time()
    sample.await_("shipped page", lambda: shipped_since(lab, written))
    with Probe(lab, sample.URL) as probe, Watch(lab, sample.NAME) as watch:
        taken = drill.take_over(lab, probe, source, ask=others(lab, source)[0])
        probe.await_answer(after=time.monotonic())
    assert taken.target != source
    assert probe.samples[-1].what == "200 written before the cut"
    assert watch.doubles() == []
    assert taken.cut < taken.noticed <= taken.decided < taken.started < taken.answered


def shipped_since(lab: Lab, moment: float) -> bool:
    """Whether every backup has acknowledged a round that began after a moment (wall clock)."""
    asked = time.time()  # before the answer: the time it takes must not make a round look younger
    copies = sample.status(lab)["vservers"][sample.NAME]["backups"].values()
    return all(copy["age_s"] is not None and asked - copy["age_s"] > moment for copy in copies if copy["up"])


def test_s6_a_host_that_is_cut_off_never_runs_or_answers_beside_its_successor(lab: Lab) -> None:
    source = owner_of(lab)
    ask = others(lab, source)[0]
    with Watch(lab, sample.NAME) as watch, Probe(lab, sample.URL) as probe:
        lab.isolate(source)
        sample.await_("takeover", lambda: owner_of(lab, ask) != source and sample.status(lab, ask), timeout_s=30)
        probe.await_answer(after=time.monotonic())
        lab.join(source)
        sample.await_("settled cluster", lambda: settled(lab))
    assert watch.doubles() == []
    assert owner_of(lab) != source


def test_s9_what_only_a_former_owner_had_is_kept_aside_and_listed(lab: Lab) -> None:
    source = owner_of(lab)
    ask = others(lab, source)[0]
    lab.isolate(source)
    write(lab, source, "/root/never-shipped", "precious")
    sample.await_("takeover", lambda: owner_of(lab, ask) != source)
    lab.join(source)
    sample.await_("settled cluster", lambda: settled(lab))

    def salvaged() -> list[str]:
        return list(sample.status(lab)["vservers"][sample.NAME]["backups"][source]["salvaged"])

    sample.await_("what is kept aside", lambda: salvaged() != [])  # its last report may be one of before
    found = lab.exec(source, ["sh", "-c", f"cat {salvaged()[-1]}/root/never-shipped"]).stdout
    assert found == b"precious\n"
    assert "never-shipped" in lab.exec(source, ["sh", "-c", f"cat {salvaged()[-1]}.json"]).stdout.decode()


def test_a_stalled_host_never_runs_or_answers_beside_its_successor(lab: Lab) -> None:
    source = owner_of(lab)
    with Watch(lab, sample.NAME) as watch, Probe(lab, sample.URL):
        faults.perform(lab, f"stall {source} 6s")
        sample.await_("settled cluster", lambda: settled(lab))
    speaking = [sight for sight in watch.doubles() if len(sight.speaks) > 1]
    assert speaking == []
    assert owner_of(lab) != source


def test_a_move_loses_nothing(lab: Lab) -> None:
    source = owner_of(lab)
    target = others(lab, source)[0]
    write(lab, source, "/var/www/index.html", "written before the move")
    with Probe(lab, sample.URL) as probe, Watch(lab, sample.NAME) as watch:
        drill.move(lab, probe, target, ask=target)
        probe.await_answer(after=time.monotonic())
    assert probe.samples[-1].what == "200 written before the move"
    assert watch.doubles() == []
    assert owner_of(lab) == target


def test_a_move_whose_target_cannot_start_it_goes_back(lab: Lab) -> None:
    source = owner_of(lab)
    target = others(lab, source)[0]
    faults.stop_service(lab, "spawner", target)
    try:
        code, said = refused(lab, source, "move", sample.NAME, target)
    finally:
        faults.start_service(lab, "spawner", target)
    assert code == 4
    assert f"{target} could not start it" in said
    sample.await_("it runs where it was", lambda: sample.running_on(lab, source))


def test_takeover_by_hand_empties_a_host(lab: Lab) -> None:
    source = owner_of(lab)
    sample.failover(lab, source, "takeover", source)
    assert owner_of(lab) != source


def test_a_drain_empties_a_host_and_keeps_it_free(lab: Lab) -> None:
    source = owner_of(lab)
    try:
        sample.failover(lab, source, "drain", source, "--reason", "new memory")
        assert owner_of(lab) != source
        code, said = refused(lab, source, "move", sample.NAME, source)
        assert (code, f"{source} is drained (new memory)" in said) == (4, True)
    finally:
        sample.failover(lab, source, "undrain", source)


def test_stop_and_start(lab: Lab) -> None:
    source = owner_of(lab)
    assert sample.failover(lab, source, "stop", sample.NAME).endswith(f"{sample.NAME} is stopped on {source}\n")
    assert sample.failover(lab, source, "start", sample.NAME).endswith(f"{sample.NAME} is running on {source}\n")


def test_restart(lab: Lab) -> None:
    source, before = owner_of(lab), first_process(lab, owner_of(lab))
    assert sample.failover(lab, source, "restart", sample.NAME).endswith(f"{sample.NAME} is running on {source}\n")
    assert first_process(lab, source) != before


@pytest.mark.parametrize(("command", "back"), [("ignore", ("start", sample.NAME)), ("remove", ("apply",))])
def test_what_is_ignored_or_removed_runs_on_and_is_adopted(lab: Lab, command: str, back: tuple[str, ...]) -> None:
    source, before = owner_of(lab), first_process(lab, owner_of(lab))
    assert sample.failover(lab, source, command, sample.NAME).endswith(f"{sample.NAME} is left alone\n")
    assert first_process(lab, source) == before
    sample.failover(lab, source, *back)
    sample.await_("it is managed again", lambda: settled(lab))
    assert (owner_of(lab), first_process(lab, source)) == (source, before)


def test_a_disarmed_cluster_refuses_what_it_would_not_do(lab: Lab) -> None:
    source = owner_of(lab)
    sample.failover(lab, source, "disarm", "--reason", "new switch")
    try:
        code, said = refused(lab, source, "stop", sample.NAME)
        assert (code, "the cluster is disarmed (new switch)" in said) == (4, True)
    finally:
        sample.failover(lab, source, "arm")


def test_nobody_vouches_for_a_host_that_evidently_runs(lab: Lab) -> None:
    source = owner_of(lab)
    code, said = refused(lab, "hostB", "fence", source, "--confirmed")
    assert (code, f"{source} is not off: it has just renewed its lease" in said) == (3, True)
    assert owner_of(lab) == source


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_killed_daemon_stops_nothing_and_comes_back(lab: Lab, daemon: str) -> None:
    source, victim = owner_of(lab), host_of(lab, daemon)
    before, epoch = first_process(lab, source), sample.status(lab)["vservers"][sample.NAME]["epoch"]
    killed = lab.host(victim).service(daemon)
    faults.kill_service(lab, daemon, victim)
    sample.await_(daemon, lambda: lab.host(victim).service(daemon) not in (None, killed))
    write(lab, source, "/root/after", daemon)
    sample.await_("settled cluster", lambda: settled(lab))
    now = time.time()
    sample.await_("the next round", lambda: shipped_since(lab, now))
    assert first_process(lab, source) == before
    assert sample.status(lab)["vservers"][sample.NAME]["epoch"] == epoch


def host_of(lab: Lab, daemon: str) -> str:
    """Where it matters most: the leading leader, ZooKeeper's own leader, and the others beside the vserver."""
    if daemon == "leader":
        return str(sample.status(lab)["leader"])
    if daemon == "zookeeper":
        addresses = {name: lab.host(name).addresses[0].split("/")[0] for name in lab.real_hosts}
        modes = {name: lab.exec("client", [sys.executable, "-c", SRVR, to]).stdout for name, to in addresses.items()}
        return next(name for name, mode in modes.items() if b"Mode: leader" in mode)
    return owner_of(lab)


def test_a_killed_rsync_is_followed_by_another(lab: Lab) -> None:
    source = owner_of(lab)
    lab.exec(source, ["dd", "if=/dev/urandom", f"of=/vservers/{sample.NAME}/root/big", "bs=1M", "count=64"])
    sample.await_("an rsync to kill", lambda: lab.exec(source, ["pkill", "-KILL", "rsync"]), timeout_s=30, pause_s=0.02)
    now = time.time()
    sample.await_("the next round", lambda: shipped_since(lab, now))
    lab.exec(source, ["rm", f"/vservers/{sample.NAME}/root/big"])


# --- bad input, and a bad day -----------------------------------------------------------------------------------------

BAD = {
    "an unknown vserver": (("move", "v2", "hostB"), 2, "there is no vserver v2"),
    "an unknown host": (("move", "v1", "hostX"), 2, "there is no host hostX"),
    "an unknown host to drain": (("drain", "hosta"), 2, "did you mean hostA?"),
    "accepting a loss where there is none": (
        ("start", "v1", "--on", "hostB"),
        2,
        "--on HOST and --accept-loss go together",
    ),
    "a file that is not there": (("check", "/nonexistent.yaml"), 2, "/nonexistent.yaml"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(lab: Lab, name: str) -> None:
    words, code, says = BAD[name]
    found, said = refused(lab, "hostB", *words)
    assert found == code
    assert says in said
    assert "Traceback" not in said


def test_broken_yaml_wrong_credentials_and_no_zookeeper_are_one_clear_line_each(lab: Lab) -> None:
    text = lab.exec("hostB", ["cat", "/etc/failover/cluster.yaml"]).stdout.decode()
    cases = {
        "/tmp/broken.yaml": (text + "\n  - nonsense: [", 2, "/tmp/broken.yaml"),
        "/tmp/nowhere.yaml": (text.replace("2181", "2199"), 5, "ZooKeeper does not answer at"),
        "/tmp/secret.yaml": (
            text.replace("zookeeper: {", "zookeeper: {credentials: /tmp/wrong.secret, "),
            6,
            "ZooKeeper does not accept our credentials",
        ),
    }
    lab.exec("hostB", ["sh", "-c", "umask 077; echo failover:wrong > /tmp/wrong.secret"])
    for path, (content, code, says) in cases.items():
        lab.exec("hostB", ["sh", "-c", f"cat > {path} <<'END'\n{content}\nEND"])
        found, said = refused(lab, "hostB", "--config", path, "status")
        assert (found, says in said, "Traceback" in said) == (code, True, False), said


def test_a_move_to_a_lost_host_is_refused(lab: Lab) -> None:
    source = owner_of(lab)
    target = others(lab, source)[0]
    lab.power_off(target)
    ask = others(lab, source)[1]
    sample.await_("loss", lambda: sample.status(lab, ask)["hosts"][target]["state"] == "lost")
    code, said = refused(lab, ask, "move", sample.NAME, target)
    assert (code, f"{target} is lost" in said) == (4, True)


def test_a_move_to_a_host_that_may_not_run_it_is_refused(lab: Lab) -> None:
    source = owner_of(lab)
    target, other = others(lab, source)
    law = lab.exec(source, ["cat", "/etc/failover/cluster.yaml"]).stdout.decode()
    narrow = re.sub(r"backups: \[.*\]", f"backups: [{other}]", re.sub(r"primary: \w+", f"primary: {source}", law))
    lab.exec(source, ["sh", "-c", f"cat > /tmp/narrow.yaml <<'END'\n{narrow}\nEND"])
    sample.failover(lab, source, "apply", "/tmp/narrow.yaml")
    try:
        code, said = refused(lab, source, "move", sample.NAME, target)
        assert (code, f"{target} is neither its primary nor one of its backups" in said) == (4, True)
        assert owner_of(lab) == source
    finally:
        sample.failover(lab, source, "apply")


def test_a_backup_without_space_keeps_its_last_generation_and_says_so(lab: Lab) -> None:
    source = owner_of(lab)
    target = others(lab, source)[0]
    before = sample.status(lab)["vservers"][sample.NAME]["backups"][target]["generation"]
    faults.perform(lab, f"disk-full {target}")
    try:
        lab.exec(source, ["dd", "if=/dev/urandom", f"of=/vservers/{sample.NAME}/root/big", "bs=1M", "count=8"])
        sample.await_("reason", lambda: "space" in sample.status(lab)["vservers"]["v1"]["backups"][target]["because"])
        assert sample.status(lab)["vservers"][sample.NAME]["backups"][target]["generation"] >= before
        assert "space" in sample.failover(lab, source, "status")
    finally:
        faults.perform(lab, f"disk-free {target}")
        lab.exec(source, ["rm", "-f", f"/vservers/{sample.NAME}/root/big"])


def test_a_tree_that_vanished_empties_no_replica_and_one_of_them_is_started(lab: Lab) -> None:
    source = owner_of(lab)
    sample.failover(lab, source, "stop", sample.NAME)
    lab.exec(source, ["mv", f"/vservers/{sample.NAME}", "/vservers/aside"])
    sample.failover(lab, source, "start", sample.NAME)
    assert owner_of(lab) != source
    assert "which cannot ship it" in sample.failover(lab, source, "history")
    sample.await_("copies everywhere", lambda: settled(lab))
    copies = sample.status(lab)["vservers"][sample.NAME]["backups"]
    assert all(copy["generation"] for copy in copies.values())
    lab.exec(source, ["rm", "-rf", "/vservers/aside"])


def test_the_whole_store_away_stops_nothing_for_good(lab: Lab) -> None:
    source = owner_of(lab)
    before = first_process(lab, source)
    faults.perform(lab, "store-down")
    time.sleep(4)
    faults.perform(lab, "store-up")
    sample.await_("settled cluster", lambda: settled(lab))
    assert first_process(lab, owner_of(lab)) == before


def test_status_fits_eighty_columns(lab: Lab) -> None:
    assert max(len(line) for line in sample.failover(lab, "hostA", "status").splitlines()) <= 80


def test_help_is_there_for_every_command(lab: Lab, tmp_path: Path) -> None:
    for command in (
        "init",
        "check",
        "apply",
        "status",
        "move",
        "takeover",
        "start",
        "stop",
        "drain",
        "history",
        "plan",
    ):
        assert "usage: failover" in sample.failover(lab, "hostA", command, "--help")
