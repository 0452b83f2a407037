"""The agent without its store: whom it asks, what it tells the guard, what it freezes, what it reports when."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from agents.agent import Agent
from agents.lease import NOTHING, Granted
from agents.promise import Answer, Message, Question
from agents.steps import Bond, Seen, SeenVserver, Step
from failover.grants.protocol import Footing
from failover.model import Told
from failover.simulate.line import Direct
from failover.simulate.memory import MemoryStore
from failover.simulate.znodes import World
from failover.store import Change
from failover.timing import PROFILES
from tests.seen import COPY, NEVER, RUNS, SHIPPED
from tests.views import HOSTS, NOW, cluster, owned

TIMING = PROFILES["normal"]
START = 500.0
FOREVER_RUNS = replace(RUNS, shipped=SHIPPED)


class Nowhere(Direct):
    """The store cannot be reached."""

    def there(self) -> bool:
        return False


class Bench:
    """Alpha's machine, which shows what it is given; and alpha's store, which can be cut off."""

    def __init__(self, seen: SeenVserver, *, owner: str = "alpha", hosts: tuple[str, ...] = HOSTS) -> None:
        self.time, self.seen, self.bonds = START, seen, dict[str, Bond]()
        self.guarded = self.writes = True
        self.words: list[tuple[float, dict[str, float]]] = []  # what the guard was told: end of the lease, later ends
        self.begun: list[str] = []
        self.asked: list[tuple[str, Question]] = []
        self.answered: list[tuple[str, Answer]] = []
        self.mail: list[tuple[str, Message]] = []
        self.kept: Told | None = None
        self.world = World(lambda: NOW + self.time)
        vserver = replace(NEVER, primary=hosts[0], backups=hosts[1:])
        MemoryStore(self.world, role="operator").apply(cluster(vserver), "")
        self.leader = MemoryStore(self.world, role="leader")
        self.leader.lead()
        self.say(epoch=1, owner=owner, hosts=hosts)
        self.start()

    def start(self, line: Direct | None = None) -> None:
        """Another agent's process."""
        self.store = MemoryStore(self.world, role="agent", host="alpha", timing=TIMING, clock=self.now, line=line)
        self.agent = Agent(self.store, self, TIMING)

    def say(self, **changes: object) -> None:
        assert self.leader.commit(Change(assignments=(owned(**changes),)))

    def turn(self, after_s: float = 0.0) -> float:
        self.time += after_s
        self.begun.clear()
        return self.agent.turn()

    def ends(self) -> dict[str, float]:
        """How long from now the guard was last told that each may run by promises."""
        return {name: end - self.time for name, end in self.words[-1][1].items()}

    def promised(self, *hosts: str) -> None:
        """These have promised whatever they were asked."""
        self.mail = [(host, Answer(q.number, q.length_s, tuple(q.epochs))) for host, q in self.asked if host in hosts]
        self.asked.clear()

    # --- the machine ---

    @property
    def granted(self) -> Granted:
        return NOTHING

    def now(self) -> float:
        return self.time

    def observe(self, names: Collection[str]) -> Seen:
        return Seen({name: replace(self.seen, bond=self.bonds.get(name)) for name in names})

    def begin(self, step: Step) -> None:
        self.begun.append(step.name)

    def hold(self, until: float, told: Told, promised: Mapping[str, float], footing: Footing | None) -> bool:
        self.words.append((until, dict(promised)))
        return self.guarded

    def live(self) -> None:
        return

    def takes_words(self, told: Told) -> bool:
        return self.guarded

    def publish(self, told: Told) -> None:
        self.kept = told

    def recall(self) -> Told | None:
        return self.kept

    def ask(self, host: str, question: Question) -> None:
        self.asked.append((host, question))

    def answer(self, host: str, answer: Answer) -> None:
        self.answered.append((host, answer))

    def heard(self) -> tuple[tuple[str, Message], ...]:
        found, self.mail = tuple(self.mail), []
        return found

    def promise(self, name: str, bond: Bond) -> bool:
        if self.writes:
            self.bonds[name] = bond
        return self.writes


def report_of(bench: Bench) -> int | None:
    """The epoch that alpha has reported of v1."""
    view = MemoryStore(bench.world, role="operator").view()
    return view.reports["alpha"].vservers["v1"].epoch if "alpha" in view.reports else None


# --- as the holder ----------------------------------------------------------------------------------------------------


def test_nobody_is_asked_while_renewals_are_answered() -> None:
    bench, pause_s = Bench(FOREVER_RUNS), 0.0
    for _ in range(16):
        pause_s = bench.turn(min(pause_s, TIMING.renew_s))
    assert bench.asked == []


def test_without_the_store_the_others_are_asked_at_once_and_again_after_a_pause() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.store.cut()
    assert bench.turn(0.1) <= TIMING.ask_s + 1e-9
    assert [host for host, _ in bench.asked] == ["beta", "gamma"]
    bench.turn(TIMING.ask_s / 2 + 1e-9)
    assert len(bench.asked) == 2
    bench.turn(TIMING.ask_s / 2 + 1e-9)
    assert len(bench.asked) == 4


def test_what_does_not_run_is_not_asked_for() -> None:
    bench = Bench(COPY)
    bench.turn()
    bench.store.cut()
    bench.turn(0.1)
    assert bench.asked == []


def test_with_all_promises_it_runs_on_after_the_lease_and_without_new_ones_it_is_frozen() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.store.cut()
    asked_at = 1.0
    bench.turn(asked_at)
    bench.promised("beta", "gamma")
    bench.turn(0.01)
    right_s = TIMING.promised_s(TIMING.promise_s)
    assert bench.words[-1] == (float("-inf"), {"v1": pytest.approx(START + asked_at + right_s)})
    bench.turn(TIMING.lease_s - 1.0)
    assert bench.begun == []
    bench.turn(START + asked_at + right_s - bench.time)
    assert bench.begun == ["freeze"]


@pytest.mark.parametrize("who", [("beta",), ("gamma",), ()], ids=["gamma is silent", "beta is silent", "both are"])
def test_without_one_of_them_it_is_frozen_at_the_end_of_the_lease(who: tuple[str, ...]) -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.store.cut()
    bench.turn(1.0)
    bench.promised(*who)
    bench.turn(TIMING.lease_s - 1.01)
    assert bench.begun == []
    bench.turn(0.011)
    assert bench.begun == ["freeze"]


def test_what_no_other_host_may_run_goes_on_for_as_long_as_it_takes() -> None:
    bench = Bench(FOREVER_RUNS, hosts=("alpha",))
    bench.turn()
    bench.store.cut()
    for _ in range(20):
        bench.turn(TIMING.ask_s)
        assert bench.begun == []
        assert bench.ends() == {"v1": pytest.approx(TIMING.promise_s)}
    assert bench.asked == []


def test_promises_alone_start_and_thaw_nothing() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.store.cut()
    bench.turn(1.0)
    bench.promised("beta", "gamma")
    bench.seen = COPY
    bench.turn(0.01)
    assert bench.begun == []


def test_an_agent_that_was_restarted_without_the_store_goes_on_asking() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.store.cut()
    bench.turn(1.0)
    before = list(bench.asked)
    bench.start(Nowhere())
    bench.turn(0.1)
    assert [host for host, _ in bench.asked[len(before) :]] == ["beta", "gamma"]
    assert bench.begun == [], "it does not know until when it may run: the guard does"
    bench.promised("beta", "gamma")
    bench.turn(0.01)
    assert bench.ends()["v1"] > TIMING.promise_s / 2


def test_what_was_never_told_since_the_boot_is_nobodys_right() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.kept = None
    bench.start(Nowhere())
    bench.turn(0.1)
    assert bench.asked == []


# --- as the giver -----------------------------------------------------------------------------------------------------


def ask_alpha(bench: Bench, epoch: int = 1, length_s: float = 2.0) -> Answer:
    bench.mail.append(("beta", Question(9, length_s, {"v1": epoch})))
    bench.turn()
    return bench.answered[-1][1]


def test_it_promises_and_is_bound_from_after_the_hearing() -> None:
    bench = Bench(COPY, owner="beta")
    assert ask_alpha(bench) == Answer(9, 2.0, ("v1",), {})
    assert bench.bonds == {"v1": Bond("beta", 1, bench.time + 2.0)}


def test_it_promises_no_longer_than_its_own_terms_say() -> None:
    bench = Bench(COPY, owner="beta")
    assert ask_alpha(bench, length_s=1000.0).length_s == TIMING.promise_s
    assert bench.bonds["v1"].until == bench.time + TIMING.promise_s


def test_it_promises_without_the_store_as_well() -> None:
    bench = Bench(COPY, owner="beta")
    bench.turn()
    bench.store.cut()
    bench.turn(10 * TIMING.lease_s)
    assert ask_alpha(bench).promised == ("v1",)


def test_what_cannot_be_written_down_is_not_promised() -> None:
    bench = Bench(COPY, owner="beta")
    bench.writes = False
    assert ask_alpha(bench).promised == ()


def test_s11_a_promise_binds_against_the_leaders_word() -> None:
    bench = Bench(COPY, owner="beta")
    assert ask_alpha(bench).promised == ("v1",)
    bench.say(epoch=2)
    bench.turn(0.1)
    assert (bench.begun, report_of(bench)) == ([], 1)
    assert bench.turn(1.0) <= 0.9
    assert (bench.begun, report_of(bench)) == ([], 1)
    bench.turn(0.9)
    assert (bench.begun, report_of(bench)) == (["start"], 2)


def test_who_has_just_got_the_word_gives_no_promise() -> None:
    bench = Bench(COPY, owner="beta")
    bench.turn()
    bench.say(epoch=2)
    assert ask_alpha(bench).refused == {"v1": "alpha owns it under epoch 2"}


# --- what may be reported ---------------------------------------------------------------------------------------------


def test_s12_new_words_count_as_obeyed_only_when_the_guard_goes_by_them() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    assert report_of(bench) == 1
    bench.guarded = False
    bench.say(epoch=2, hosts=(*HOSTS, "delta"))
    bench.turn(0.1)
    assert report_of(bench) == 1
    bench.guarded = True
    bench.turn(0.1)
    assert report_of(bench) == 2


def test_a_promise_of_the_hosts_of_an_older_word_is_none_of_the_new_one() -> None:
    bench = Bench(FOREVER_RUNS)
    bench.turn()
    bench.store.cut()
    bench.turn(1.0)
    bench.promised("beta", "gamma")
    bench.turn(0.01)
    assert bench.ends()
    bench.say(epoch=2, hosts=(*HOSTS, "delta"))
    bench.store.mend()
    bench.turn(0.01)
    assert bench.words[-1][1] == {}
