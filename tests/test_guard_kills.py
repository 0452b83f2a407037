"""What has had no word for long is killed by the guard: never early, whatever has become of guard, machine and word."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents import fence, guard, network
from agents.asking import Asking
from agents.guard import Keeper
from agents.isolation import cgroup
from agents.lease import Word
from agents.overdue import UNSEEN_S, Overdue
from failover.boot import boot_time
from tests.guarded import DEVICE, Guard, Vserver, guarded
from tests.wires import eventually

pytestmark = pytest.mark.needs("root", "nft")

AFTER_S = 60.0


@pytest.fixture
def there() -> Iterator[Guard]:
    with guarded() as made:
        yield made


@pytest.fixture
def v1(there: Guard) -> Iterator[Vserver]:
    made = Vserver(there.directory, "v1")
    yield made
    made.close()


def is_there(vserver: Vserver) -> bool:
    return cgroup.populated(vserver.group)


def test_it_is_killed_frozen_as_it_is_and_not_before(there: Guard, v1: Vserver) -> None:
    there.start("--kill-after", "1.5")
    until = there.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    assert eventually(lambda: not is_there(v1))
    assert boot_time() > until + 1.4
    assert max(v1.beats()) < until
    assert f"{v1.name}: without a word of the lease for 1.5 s, it was killed by the guard" in there.log.read_text()


def test_a_word_before_that_lets_it_go_on(there: Guard, v1: Vserver) -> None:
    there.start("--kill-after", "1.5")
    there.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    time.sleep(0.5)
    there.hold(30, v1)
    time.sleep(1.5)
    assert v1.goes_on()


def test_for_the_next_guard_the_time_counts_anew(there: Guard, v1: Vserver) -> None:
    there.start("--kill-after", "2")
    there.hold(0.3, v1)
    assert eventually(lambda: v1.frozen)
    time.sleep(1.2)
    there.end(signal.SIGKILL)
    there.start("--kill-after", "2")
    time.sleep(1.2)
    assert is_there(v1) and v1.frozen
    assert eventually(lambda: not is_there(v1))


# --- a keeper on a clock of the test's --------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return boot_time() + self.ahead_s


class Kept:
    """A keeper for which the end of v1 has come."""

    def __init__(self, directory: Path, v1: Vserver, clock: Clock, kill_after_s: float) -> None:
        self._directory, self._clock, self._kill_after_s = directory, clock, kill_after_s
        self.mac = network.mac_of(v1.name)
        ends = {v1.name: {"until": clock.now() - 0.1, "mac": self.mac}}
        (directory / "guard.json").write_text(json.dumps({"network": {"device": "eth0", "bridge": None}, "ends": ends}))
        self.keeper = Keeper(directory, Overdue(kill_after_s), Asking(lambda asks, letter: None))
        self.keeper.enforce()

    def look_on(self, length_s: float, step_s: float = UNSEEN_S - 1.0) -> None:
        for _ in range(round(length_s / step_s)):
            self._clock.ahead_s += step_s
            self.keeper.enforce()

    def pass_unseen(self, length_s: float) -> None:
        """The guard hangs, or the machine sleeps."""
        self._clock.ahead_s += length_s
        self.keeper.enforce()


@pytest.fixture
def keep(tmp_path: Path, v1: Vserver, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kept]:
    clock = Clock()
    monkeypatch.setattr(guard, "boot_time", clock.now)
    monkeypatch.setattr(fence, "apply", lambda text, timeout_s: None)
    return lambda kill_after_s=AFTER_S: Kept(tmp_path, v1, clock, kill_after_s)


def test_it_is_killed_after_so_long(keep: Callable[..., Kept], v1: Vserver) -> None:
    kept = keep()
    kept.look_on(AFTER_S - 4)
    assert is_there(v1) and v1.frozen
    kept.look_on(8)
    assert eventually(lambda: not is_there(v1))


def test_time_in_which_nobody_looked_on_does_not_count(keep: Callable[..., Kept], v1: Vserver) -> None:
    kept = keep()
    kept.look_on(AFTER_S - 4)
    kept.pass_unseen(3600.0)
    kept.look_on(AFTER_S - 4)
    assert is_there(v1) and v1.frozen
    kept.look_on(8)
    assert eventually(lambda: not is_there(v1))


def test_it_is_never_killed_if_it_is_told_so(keep: Callable[..., Kept], v1: Vserver) -> None:
    kept = keep(0)
    kept.look_on(2 * AFTER_S)
    assert is_there(v1) and v1.frozen


def test_a_word_ends_the_count(keep: Callable[..., Kept], v1: Vserver) -> None:
    kept = keep()
    kept.look_on(AFTER_S - 4)
    kept.keeper.obey(Word(guard.boot_time() + 10, {v1.name: kept.mac}, DEVICE))
    assert v1.goes_on()
    kept.look_on(12)
    assert v1.frozen
    kept.look_on(AFTER_S - 8)
    assert is_there(v1) and v1.frozen


def test_what_is_released_is_not_killed(keep: Callable[..., Kept], v1: Vserver) -> None:
    kept = keep()
    kept.keeper.obey(Word(guard.boot_time() + 10, {}, DEVICE, (v1.name,)))
    kept.look_on(2 * AFTER_S)
    assert is_there(v1)


def test_what_only_extends_does_not_end_the_count(keep: Callable[..., Kept], v1: Vserver) -> None:
    """It rests on promises, and they count for what has not come to its end."""
    kept = keep()
    kept.look_on(AFTER_S - 4)
    kept.keeper.obey(Word(guard.boot_time() + 30, {v1.name: kept.mac}, DEVICE, extends=True))
    kept.look_on(8)
    assert eventually(lambda: not is_there(v1))


def test_what_is_gone_stays_fenced_in_while_its_network_is_there(
    keep: Callable[..., Kept], v1: Vserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host comes back after a takeover, and the agent here has yet to take its network away."""
    changes: list[str] = []
    monkeypatch.setattr(fence, "apply", lambda text, timeout_s: changes.append(text))
    monkeypatch.setattr(guard.record, "RUN", tmp_path)
    network_of_v1 = tmp_path / v1.name / "netns"
    network_of_v1.parent.mkdir()
    network_of_v1.touch()
    kept = keep()
    kept.look_on(AFTER_S + 8)
    assert eventually(lambda: not is_there(v1))
    kept.look_on(2 * guard.FORGET_S)
    kept.keeper.obey(Word(guard.boot_time() + 10, {"v2": "02:fa:10:00:00:02"}, DEVICE))
    assert (
        f"add element netdev failover fenced {{ {', '.join(sorted((kept.mac, '02:fa:10:00:00:02')))} }}" in changes[-1]
    )
    network_of_v1.unlink()
    kept.look_on(4)
    kept.keeper.obey(Word(guard.boot_time() + 10, {"v2": "02:fa:10:00:00:02"}, DEVICE))
    assert "add element netdev failover fenced { 02:fa:10:00:00:02 }" in changes[-1]


def test_a_keeper_says_what_may_still_run(keep: Callable[..., Kept], v1: Vserver) -> None:
    kept = keep()
    assert kept.keeper.late() == []
    cgroup.thaw(v1.group)
    assert kept.keeper.late() == [v1.name]
    kept.keeper.enforce()
    assert kept.keeper.late() == []
