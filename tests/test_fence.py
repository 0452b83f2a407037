"""The fence: frames of what is held pass, nothing else does, and it closes without anybody's help."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from agents import fence, network
from failover.boot import boot_time
from failover.model import Network
from tests.guarded import BRIDGE, DEVICE, Guard, guarded
from tests.wires import answers, eventually, inside

FORMS = pytest.mark.parametrize("form", [DEVICE, BRIDGE], ids=["macvlan", "bridge"])
MAC = "02:fa:10:00:00:01"


def test_the_whole_fence_is_one_transaction() -> None:
    other = "02:fa:10:00:00:02"
    assert fence.laid(DEVICE, {MAC: 2.0, other: 0.05}, fenced=["02:fa:10:00:00:03"], before=BRIDGE).splitlines() == [
        "add table bridge failover",
        "delete table bridge failover",
        "add table netdev failover",
        "delete table netdev failover",
        "add table netdev failover",
        "add set netdev failover held { type ether_addr; flags timeout; }",
        "add set netdev failover fenced { type ether_addr; }",
        'add chain netdev failover vservers { type filter hook egress device "eth0" priority 0; policy accept; }',
        "add rule netdev failover vservers ether saddr @fenced ether saddr != @held drop",
        f"add element netdev failover fenced {{ {MAC}, {other}, 02:fa:10:00:00:03 }}",
        "add element netdev failover held { 02:fa:10:00:00:01 timeout 1900ms }",
    ]


def test_a_renewal_gives_an_element_new_time_whether_it_is_there_or_not() -> None:
    element = "{ 02:fa:10:00:00:01 timeout 1900ms }"
    assert fence.refreshed(BRIDGE, {MAC: 2.0}).splitlines() == [
        f"add element bridge failover held {element}",
        "delete element bridge failover held { 02:fa:10:00:00:01 }",
        f"add element bridge failover held {element}",
    ]


class Fenced:
    """A guarded host whose vserver a peer can reach."""

    def __init__(self, guard: Guard, form: Network) -> None:
        self.guard, self.form, self.run = guard, form, guard.directory / "run"
        self.peer = guard.wires.host("peer", "10.9.0.1/24", "fd09::1/64")
        for name, last in (("v1", 101), ("v2", 102)):
            addresses = (f"10.9.0.{last}/24", f"fd09::{last}/64")
            inside(
                self.guard.netns,
                lambda name=name, to=addresses: network.prepare(name, form, to, None, run=self.run),  # type: ignore[misc]
            )
            inside(self.guard.netns, lambda name=name: network.up(name, run=self.run))  # type: ignore[misc]

    def reach(self, last: int, timeout_s: float = 1.0) -> set[bool]:
        return {answers(self.peer, f"{prefix}{last}", timeout_s) for prefix in ("10.9.0.", "fd09::")}

    def close(self) -> None:
        for name in network.prepared(run=self.run):
            inside(self.guard.netns, lambda name=name: network.remove(name, run=self.run))  # type: ignore[misc]


@pytest.fixture
def fenced(form: Network) -> Iterator[Fenced]:
    with guarded(bridge=form.bridge is not None) as guard:
        made = Fenced(guard, form)
        yield made
        made.close()


@pytest.mark.needs("root", "nft")
@FORMS
def test_the_fence_stops_only_what_is_under_the_lease_and_not_held(fenced: Fenced) -> None:
    fenced.guard.start()
    until = fenced.guard.hold(1.0, "v1", form=fenced.form)
    assert fenced.reach(101) == fenced.reach(102) == {True}
    assert eventually(lambda: boot_time() > until)
    assert fenced.reach(101, timeout_s=0.2) == {False}
    assert fenced.reach(102) == {True}, "it was started by hand: nobody's business"
    fenced.guard.hold(30, "v1", "v2", form=fenced.form)
    assert fenced.reach(101) == fenced.reach(102) == {True}


@pytest.mark.needs("root", "nft")
@FORMS
def test_what_is_released_passes_also_after_its_end(fenced: Fenced) -> None:
    fenced.guard.start()
    until = fenced.guard.hold(1.0, "v1", "v2", form=fenced.form)
    assert fenced.guard.says(until, {"v2": network.mac_of("v2")}, fenced.form, released=("v1",))
    assert eventually(lambda: boot_time() > until)
    assert fenced.reach(101) == {True}
    assert fenced.reach(102, timeout_s=0.2) == {False}


@pytest.mark.needs("root", "nft")
@FORMS
def test_the_fence_closes_by_itself_while_the_guard_does_not_run(fenced: Fenced) -> None:
    fenced.guard.start()
    fenced.guard.hold(30, "v2", form=fenced.form)
    until = fenced.guard.hold(1.0, "v1", "v2", form=fenced.form)
    os.kill(fenced.guard.pid, signal.SIGSTOP)
    assert fenced.reach(101) == {True}
    assert eventually(lambda: boot_time() > until)
    assert fenced.reach(101, timeout_s=0.2) == fenced.reach(102, timeout_s=0.2) == {False}
    os.kill(fenced.guard.pid, signal.SIGCONT)
    fenced.guard.hold(30, "v1", form=fenced.form)
    assert fenced.reach(101) == {True}
    assert fenced.reach(102, timeout_s=0.2) == {False}


@pytest.mark.needs("root", "nft")
@FORMS
def test_a_fence_that_somebody_flushed_is_laid_anew_by_the_next_renewal(fenced: Fenced) -> None:
    fenced.guard.start()
    fenced.guard.hold(30, "v1", form=fenced.form)
    subprocess.run(["nsenter", f"--net={fenced.guard.netns}", "nft", "flush", "ruleset"], check=True)
    until = fenced.guard.hold(1.0, "v1", form=fenced.form)
    os.kill(fenced.guard.pid, signal.SIGSTOP)
    assert eventually(lambda: boot_time() > until)
    assert fenced.reach(101, timeout_s=0.2) == {False}


@pytest.mark.needs("root", "nft")
@FORMS
def test_a_new_guard_keeps_the_fence_of_what_was_withdrawn_open_until_its_end(fenced: Fenced) -> None:
    fenced.guard.start()
    fenced.guard.hold(30, "v1", "v2", form=fenced.form)
    fenced.guard.end(signal.SIGKILL)
    fenced.guard.start()
    fenced.guard.hold(30, "v1", form=fenced.form)
    assert fenced.reach(101) == fenced.reach(102) == {True}
