"""The agent's machine on a host of its own, with guard, spawner and network: what it sees of failures and health."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from agents import network
from agents.isolation import vserver as isolation
from agents.isolation.vserver import Settings
from agents.machine import LEAVING, VSERVERS
from agents.steps import Seen, SeenVserver, Start, Stop, Thaw
from failover.errors import FailoverError
from failover.model import Assignment, Check, Cluster, Host, State, Told, Vserver, Want
from tests import trees
from tests.real_host import RealHost, real_hosts
from tests.trees import unique, wait_until

pytestmark = pytest.mark.needs("root", "busybox", "nft")

# Idles; ends itself, the way that somebody writes into /end.
OBEDIENT = """
trap 'exit 0' TERM
while :; do
    [ -e /end ] && busybox $(cat /end)
    busybox sleep 0.02
done
"""
WEB = f"busybox httpd -f -p 80 -h /var & echo $! > /httpd; {trees.IDLE}"


class Alpha:
    """What its agent is told and sees of a vserver which is to run there."""

    def __init__(self, host: RealHost) -> None:
        self.host, self.machine = host, host.machine()
        self.vserver = Vserver(unique(), "alpha", ("beta",), ("10.9.0.101/24",))
        self.tree = VSERVERS / self.vserver.name
        self.word = Assignment(self.vserver.name, "alpha", 7)

    def told(self, **changes: object) -> None:
        self.word = Assignment(**{**vars(self.word), **changes})  # type: ignore[arg-type]
        hosts = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(("alpha", "beta"), 1)}
        cluster = Cluster("test", hosts, {self.vserver.name: self.vserver})
        told = Told("alpha", cluster, {self.vserver.name: self.word})
        assert self.machine.hold(self.machine.now() + 30.0, told)

    def see(self) -> SeenVserver:
        return self.look().vservers[self.vserver.name]

    def look(self) -> Seen:
        return self.machine.observe([self.vserver.name])

    def do(self, step: Start | Stop | Thaw) -> SeenVserver:
        """Begin it, and look when it is over."""
        self.machine.begin(step)
        wait_until(lambda: step.name not in self.see().busy, f"{step.name} is over")
        return self.see()

    def start(self) -> SeenVserver:
        return self.do(Start(self.vserver, self.word.epoch, "alpha"))

    def ended(self) -> SeenVserver:
        wait_until(lambda: self.see().state is State.STOPPED, "it has ended")
        return self.see()


def on_alpha(play: Callable[[Alpha], None]) -> Callable[[], None]:
    """The test on a host of its own."""

    def body(host: RealHost) -> None:
        alpha = Alpha(host)
        try:
            play(alpha)
        finally:
            isolation.kill(alpha.vserver.name)
            for name in network.prepared():
                network.remove(name)

    def test() -> None:
        with real_hosts("alpha") as hosts:
            hosts["alpha"](lambda: body(hosts["alpha"]))

    test.__name__, test.__doc__ = play.__name__, play.__doc__
    return test


@on_alpha
def test_ends_that_nobody_asked_for_are_remembered_as_failures(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree, OBEDIENT)
    alpha.told()
    assert alpha.start().state is State.RUNNING
    pid = isolation.status(alpha.vserver.name).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    (crash,) = alpha.ended().failures
    assert (crash.epoch, crash.because) == (7, "its init died of SIGKILL")
    alpha.told(epoch=8)
    alpha.start()
    (alpha.tree / "end").write_text("poweroff -f")
    assert [(failure.epoch, failure.because) for failure in alpha.ended().failures[1:]] == [
        (8, "it was powered off from inside")
    ]


@on_alpha
def test_a_stop_is_no_failure_unless_it_is_for_one(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree)
    alpha.told()
    alpha.start()
    seen = alpha.do(Stop(alpha.vserver, 7))
    assert (seen.state, seen.networked, seen.failures) == (State.STOPPED, False, ())
    alpha.start()
    (failure,) = alpha.do(Stop(alpha.vserver, 7, because="tcp 80 does not answer (3 times)")).failures
    assert (failure.epoch, failure.because) == (7, "tcp 80 does not answer (3 times)")


@on_alpha
def test_a_stop_that_fails_is_remembered_once_with_its_time(alpha: Alpha) -> None:
    def fails(_: str) -> None:
        raise FailoverError("its network stays")

    alpha.told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "remove", fails)
        for because, known in (("", 1), ("its checks fail", 2)):
            seen = alpha.do(Stop(alpha.vserver, 7, because=because))
            assert (seen.failed["stop"], len(seen.failures)) == ((7, "its network stays"), known)


@on_alpha
def test_a_start_that_came_to_nothing_is_a_failure_and_leaves_nothing(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree)
    (alpha.tree / "sbin/init").unlink()
    alpha.told()
    seen = alpha.start()
    assert (seen.state, seen.networked) == (State.STOPPED, False)
    (failure,) = seen.failures
    assert failure.epoch == 7
    assert "init" in failure.because


@on_alpha
def test_a_start_whose_word_is_over_is_no_failure(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree)
    alpha.told(epoch=8)
    seen = alpha.do(Start(alpha.vserver, 7, "alpha"))
    assert (seen.state, seen.networked, seen.failures) == (State.STOPPED, False, ())


@on_alpha
def test_who_has_started_it_is_known_also_to_the_next_agent(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree)
    alpha.told()
    alpha.start()
    assert not alpha.see().by_hand
    alpha.machine = alpha.host.machine()
    alpha.told(owner="beta", epoch=8)
    assert not alpha.see().by_hand


@on_alpha
def test_a_copy_started_by_hand_is_seen_so_from_its_first_epoch_on(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree)
    alpha.told(owner="beta", epoch=8)
    isolation.start(Settings(alpha.vserver.name, alpha.tree))
    assert (alpha.see().by_hand, alpha.see().by_hand_epoch) == (True, 8)
    alpha.told(epoch=9)
    assert (alpha.see().by_hand, alpha.see().by_hand_epoch) == (True, 8)
    alpha.told(epoch=10, owner="alpha")  # adopted
    alpha.see()
    alpha.machine = alpha.host.machine()
    alpha.told(epoch=11, owner="beta")
    assert not alpha.see().by_hand


@on_alpha
def test_health_is_asked_from_within_and_only_while_it_is_to_run(alpha: Alpha) -> None:
    trees.busybox_tree(alpha.tree, WEB)
    web = Check(tcp=80, every_s=0.05, timeout_s=0.5, fails=2)
    alpha.vserver = Vserver(alpha.vserver.name, "alpha", ("beta",), ("10.9.0.101/24",), checks=(web,))
    alpha.told()
    alpha.start()
    watch = alpha.machine._checks._watches[alpha.vserver.name]
    wait_until(lambda: watch._tallies[0].healthy, "it was once well")
    assert not alpha.see().failing
    isolation.execute(alpha.vserver.name, ["kill", (alpha.tree / "httpd").read_text().strip()])
    wait_until(lambda: alpha.see().failing, "it fails")
    assert alpha.see().failing == "tcp 80 does not answer (2 times)"
    alpha.told(want=Want.STOPPED)
    assert not alpha.see().failing


@on_alpha
def test_the_host_says_what_it_has_and_when_it_is_shut_down(alpha: Alpha) -> None:
    alpha.told()
    capacity = alpha.look().capacity
    assert capacity.memory_bytes is not None
    assert 2**26 < capacity.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert capacity.cpus == len(os.sched_getaffinity(0))
    assert not alpha.look().leaving
    LEAVING.touch()
    assert alpha.look().leaving
