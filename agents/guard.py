"""The guard of one host: what may run ends when its lease ends, whatever has become of the agent.

    agent ── word (agents/lease.py) ──▶ guard ── fence: an element with the time left; the kernel ends it ──▶ answer
                                          ├── just before an end: cgroup frozen, fence closed
                                          ├── a word after the end: fence opened, cgroup thawed
                                          ├── as the newest word says: questions to the leader, whose grants are words
                                          ├── no word for long: killed (agents/overdue.py)
                                          ├── the watchdog, if there is one (agents/watchdog.py)
                                          └── the agent: started, adopted, started again when it dies or is silent

Rule 1: a vserver that was ever named is frozen at the end that the last word naming it gave, and stays frozen until
        another word names it; a grant is a later end for what the newest word names. Nothing else moves an end: no
        silence, no error, no other vserver's word.
Rule 2: a word counts when the fence has it and the state is written; else it is refused and the old ends stand.
Rule 3: all that it must know is in guard.json; killed at any moment, the next one freezes first what is overdue.
Rule 4: told to end (SIGTERM) it ends the agent, and stays until every end has come and all is frozen: nobody else would
        see to it. So stopping it for good freezes what runs here. Only when a successor follows at once (SIGUSR1, an
        upgrade) it leaves as soon as the agent has ended, and the vservers, the state and the fence as they are.
Rule 5: it thaws only at a word. A word that only extends thaws nothing: it counts for what is under the lease now and
        has not come to its end.
Rule 6: only the standard library and a few small files of ours: what breaks the agent's libraries does not break this.
Rule 7: no other program and no cgroup holds up an end: all are frozen before one is waited for, and nft ends in time.
Rule 8: what has had no word for long since its end is killed (agents/overdue.py); only what has neither processes nor
        a network here any more is forgotten.

What it does not promise: a process in an uninterruptible call is frozen when that call ends; the fence holds meanwhile,
and a watchdog bounds it.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import logging
import os
import select
import shlex
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agents import fence
from agents.asking import Asking
from agents.envelopes import Envelopes
from agents.isolation import cgroup, record, syscalls
from agents.lease import AGENT, SOCKET, Asks, Word, answer, decode, encode_news
from agents.overdue import AFTER_S, Overdue
from agents.supervisor import Supervisor, replace_file
from agents.watchdog import TIMEOUT_S, Watchdog
from failover import wire
from failover.boot import boot_time
from failover.errors import FailoverError, Refused
from failover.model import Network

LEAD_S = 0.02  # freezing begins so long before the end
LONGEST_S = 60.0  # a word for longer is an error: no lease is as long
FENCE_S = 0.5  # at most, for one change of the fence
LOOK_AGAIN_S = 0.05  # a start that was under way at the end may appear after it
LATE_S = 1.0  # but not so long after it
CONFIRM_S = 0.01  # for the kernel's word that one is frozen; without it, later again
FORGET_S = 60.0  # after the end, when nothing runs any more
NETNS = "netns"  # where a vserver's network is, below record.RUN (agents/network.py)
TURN_S = 0.25  # at most, between two turns

SIGNALS = (
    "SIGTERM: end the agent, and leave when every lease is over and all is frozen. "
    "SIGUSR1: leave all as it is, for a guard that follows at once."
)

log = logging.getLogger("failover.guard")


@dataclass(frozen=True)
class End:
    """Until when one vserver may run, boot time, and the MAC address that the fence knows it by."""

    until: float
    mac: str

    def due(self, now: float) -> bool:
        return now >= self.until - LEAD_S


class Keeper:
    """The ends, and what is done at them."""

    def __init__(self, directory: Path, overdue: Overdue, asking: Asking) -> None:
        self._file, self._overdue, self._asking = directory / "guard.json", overdue, asking
        self._network: Network | None = None
        self._ends: dict[str, End] = {}
        self._kept: Word | None = None  # the last one that counted
        self._leased: Mapping[str, str] = {}  # name to MAC address: what the newest word names, so what a grant is for
        self._laid: set[str] | None = None  # under the lease when the fence was last laid as a whole
        self._closed: set[str] = set()  # of those whose end has passed
        self._trouble = ""
        self._load()

    def obey(self, word: Word) -> None:
        """Raises FailoverError when the word cannot be kept; then nothing has changed."""
        now, until = boot_time(), word.until
        if until is None:
            return
        if until > now + LONGEST_S:
            raise Refused(f"no lease is longer than {LONGEST_S:g} s")
        if word.asks is not None and word.asks == self._asking.asks:
            until = max(until, self._asking.granted(now).until)
        if until - LEAD_S <= now and word.asks is None:
            raise Refused("the word came after the end that it gives")
        if word.extends:
            running = {n: mac for n, mac in word.vservers.items() if n in self._ends and not self._ends[n].due(now)}
            word = replace(word, vservers=running)
        if word == self._kept or (word.extends and not word.vservers):
            return
        leased, asks = (self._leased, self._asking.asks) if word.extends else (word.vservers, word.asks)
        kept = {name: end for name, end in self._ends.items() if name not in word.released}
        self._put(word.network, until, word.vservers, kept, leased, asks)
        self._kept = word

    def hear_grant(self) -> None:
        """What the newest word names may run until what is granted by now."""
        now = boot_time()
        until = min(self._asking.granted(now).until, now + LONGEST_S)
        later = {name: mac for name, mac in self._leased.items() if self._ends[name].until < until}
        if later and self._network is not None and until - LEAD_S > now:
            self._put(self._network, until, later, self._ends, self._leased, self._asking.asks)

    def _put(
        self,
        network: Network,
        until: float,
        vservers: Mapping[str, str],
        kept: Mapping[str, End],
        leased: Mapping[str, str],
        asks: Asks | None,
    ) -> None:
        """These get this end; one that is past already is no end to thaw or to open the fence for."""
        now = boot_time()
        ends = {**kept, **{name: End(until, mac) for name, mac in vservers.items()}}
        opened = {} if until - LEAD_S <= now else vservers
        try:
            self._open(network, opened, ends)
            for name in opened:
                if name in self._ends and self._ends[name].due(now):
                    self._thaw(name)
            self._save(network, ends, leased, asks)  # after the thaw: killed in between, the next guard freezes again
        except OSError as error:
            raise FailoverError(f"the word cannot be kept: {error}") from error
        self._network, self._ends, self._leased = network, ends, leased
        self._closed = (self._closed & ends.keys()) - opened.keys()
        self._overdue.heard(opened)
        self._asking.obey(asks, now)

    def enforce(self) -> None:
        """Freeze what is due, all of it before anything is waited for; then close the fence and forget what is gone."""
        now = boot_time()
        due = [name for name, end in self._ends.items() if end.due(now)]
        running = [name for name in due if self._begin_freeze(name)]
        frozen = [name for name in running if self._frozen(name)]
        if frozen:
            log.warning("frozen at the end of the lease: %s", ", ".join(sorted(frozen)))
        self._close(set(due) - self._closed)
        for name in self._overdue.look(due, now):
            with self._reporting(name, "killed"):
                self._overdue.kill(name)
        self._forget([name for name in due if self._ends[name].until + FORGET_S < now])

    def late(self) -> list[str]:
        """What may still run though its end is past: not frozen as the kernel says, nor gone."""
        now = boot_time()
        return sorted(name for name, end in self._ends.items() if end.due(now) and self._runs(name))

    def over(self) -> bool:
        """Whether every end is past, also for a start that was under way, and nothing of what was named runs."""
        now = boot_time()
        return all(now > end.until + LATE_S and not self._runs(name) for name, end in self._ends.items())

    def _runs(self, name: str) -> bool:
        with self._reporting(name):
            group = cgroup.of(name)
            return cgroup.populated(group) and not cgroup.frozen(group)
        return True

    def wait_s(self) -> float:
        """Until `enforce` has something to do."""
        now = boot_time()
        waits = [LOOK_AGAIN_S if end.due(now) else end.until - LEAD_S - now for end in self._ends.values()]
        return min(waits, default=TURN_S)

    def _open(self, network: Network, names: Mapping[str, str], ends: Mapping[str, End]) -> None:
        """The fence opened for those named; laid as a whole when others are named, or when it is not as it was.

        The time of an element runs from when the kernel has it: a change that took too long is made once more.
        """
        whole = network != self._network or set(ends) != self._laid
        for _ in range(2):
            now = boot_time()
            times = {end.mac: end.until - now for name, end in ends.items() if whole or name in names}
            if whole:
                fenced = [end.mac for end in ends.values()]
                self._apply(fence.laid(network, times, fenced=fenced, before=self._network))
                self._laid = set(ends)
            elif not self._refresh(network, times):
                whole = True
                continue
            if boot_time() - now <= fence.SLACK_S:
                return
        raise Refused(f"the fence could not be changed within {fence.SLACK_S:g} s")

    def _refresh(self, network: Network, times: Mapping[str, float]) -> bool:
        try:
            self._apply(fence.refreshed(network, times))
        except FailoverError as error:
            log.warning("the fence is laid anew: %s", error)
            return False
        return True

    def _close(self, names: set[str]) -> None:
        """At once, for the case that the elements outlive the end: the machine slept."""
        if self._network is None or not names:
            return
        try:
            self._apply(fence.closed(self._network, {self._ends[name].mac for name in names}))
            self._closed |= names
        except FailoverError as error:
            self._say(f"the fence is left to lapse by itself: {error}")

    def _apply(self, change: str) -> None:
        """Never past the next end."""
        now = boot_time()
        left_s = [end.until - LEAD_S - now for end in self._ends.values() if not end.due(now)]
        fence.apply(change, timeout_s=min([FENCE_S, *left_s]))

    def _forget(self, names: list[str]) -> None:
        """Not what has a network here yet: the kernel answers for its addresses, and only the fence keeps that in."""
        for name in names:
            with self._reporting(name):
                there = cgroup.populated(cgroup.of(name)) or (record.RUN / name / NETNS).exists()
                if name not in self._leased and not there:
                    del self._ends[name]
                    self._closed.discard(name)

    def _begin_freeze(self, name: str) -> bool:
        """Whether there was something to freeze."""
        with self._reporting(name):
            group = cgroup.of(name)
            if group.exists() and not cgroup.frozen(group):
                with suppress(TimeoutError):
                    cgroup.freeze(group, timeout_s=0)
                return True
        return False

    def _frozen(self, name: str) -> bool:
        with self._reporting(name):
            cgroup.freeze(cgroup.of(name), timeout_s=CONFIRM_S)
            return True
        return False

    def _thaw(self, name: str) -> None:
        group = cgroup.of(name)
        if group.exists():
            with suppress(TimeoutError):
                cgroup.thaw(group, timeout_s=CONFIRM_S)
            log.info("thawed: %s", name)

    @contextmanager
    def _reporting(self, name: str, wanted: str = "frozen") -> Iterator[None]:
        """One that cannot be frozen does not keep the others from it; it is tried again soon, and reported once."""
        try:
            yield
        except OSError as error:
            self._say(f"{name} is not {wanted} yet: {error}")

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("%s", trouble)

    def _save(self, network: Network, ends: Mapping[str, End], leased: Mapping[str, str], asks: Asks | None) -> None:
        state = {"network": asdict(network), "ends": {name: asdict(end) for name, end in ends.items()}}
        granted: dict[str, object] = {"leased": dict(leased), "asks": wire.encode(asks).decode() if asks else None}
        until = self._asking.granted(boot_time()).until
        if asks is not None and asks == self._asking.asks and until > float("-inf"):
            granted["granted"] = until
        replace_file(self._file, json.dumps(state | granted))

    def _load(self) -> None:
        try:
            state = json.loads(self._file.read_text())
            ends = {name: End(**end) for name, end in state["ends"].items()}
            leased = {name: mac for name, mac in state.get("leased", {}).items() if name in ends}
            asks = wire.decode(Asks, state["asks"]) if state.get("asks") else None
            granted = float(state.get("granted", "-inf"))
            self._network = Network(**state["network"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError, FailoverError) as error:
            log.error("%s cannot be read, so only what is named again is guarded: %s", self._file, error)
            return
        now = boot_time()  # an end beyond reason is from another boot, and past
        self._ends = {n: e if e.until <= now + LONGEST_S else End(now, e.mac) for n, e in ends.items()}
        self._leased = leased
        if asks is not None:
            self._asking.resume(asks, granted if granted <= now + LONGEST_S else float("-inf"), now)


@dataclass(frozen=True)
class Helpers:
    """What serves beside the keeper."""

    supervisor: Supervisor
    asking: Asking
    envelopes: Envelopes
    watchdog: Watchdog


def serve(directory: Path, keeper: Keeper, helpers: Helpers) -> None:
    """Turn after turn until it may end (rule 4); every turn, and every word, begins with what is due."""
    supervisor, asking, envelopes, watchdog = helpers.supervisor, helpers.asking, helpers.envelopes, helpers.watchdog
    ours = _listen(directory / SOCKET.name)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda received, _: stopping.append(received))
    while not (stopping and supervisor.done and (signal.SIGUSR1 in stopping or keeper.over())):
        keeper.enforce()
        while (heard := _receive(ours)) is not None:
            keeper.enforce()
            supervisor.heard()
            _reply(ours, heard, keeper, asking)
        for letter in envelopes.heard():
            keeper.enforce()
            asking.hear(letter)
            _hear_grant(keeper)
        if stopping:
            supervisor.stop()
        if signal.SIGUSR1 not in stopping and stopping and supervisor.done:
            asking.obey(None, boot_time())
        asking.turn(boot_time())
        _tell(ours, directory / AGENT.name, asking)
        supervisor.tend()  # after the words: they may have waited while this process did not run
        watchdog.tend(keeper.late)
        poll = select.poll()
        for socket_ in (ours, *envelopes.sockets):
            poll.register(socket_, select.POLLIN)
        if supervisor.pidfd is not None:
            poll.register(supervisor.pidfd, select.POLLIN)
        waits = (TURN_S, keeper.wait_s(), supervisor.wait_s(), watchdog.wait_s(), asking.wait_s(boot_time()))
        poll.poll(1000 * max(0.0, min(waits)))
    watchdog.leave(followed=signal.SIGUSR1 in stopping)


def _receive(ours: socket.socket) -> tuple[bytes, str] | None:
    with suppress(BlockingIOError):
        return ours.recvfrom(1 << 18)
    return None


def _hear_grant(keeper: Keeper) -> None:
    try:
        keeper.hear_grant()
    except FailoverError as error:
        log.warning("a grant is not kept: %s", error)


def _tell(ours: socket.socket, agent: Path, asking: Asking) -> None:
    """What is new with the grants, to an agent that listens."""
    if (news := asking.news(boot_time())) is not None:
        with suppress(OSError):
            ours.sendto(encode_news(*news), str(agent))


def _reply(ours: socket.socket, heard: tuple[bytes, str], keeper: Keeper, asking: Asking) -> None:
    data, sender = heard
    try:
        keeper.obey(decode(data))
        said = answer(asking.granted(boot_time()))
    except FailoverError as error:
        log.warning("a word is refused: %s", error)
        said = answer(asking.granted(boot_time()), refused=str(error))
    if sender:
        with suppress(OSError):  # it did not wait so long
            ours.sendto(said, sender)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    ours.bind(str(path))
    return ours


def _harden() -> None:
    """Ahead of what the vservers do, never paged out, and without pauses of our own; children run as usual."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    with suppress(OSError):
        syscalls.lock_memory()
    gc.collect()
    gc.freeze()
    gc.disable()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="failover-guard", description="end what runs here when its lease ends", epilog=SIGNALS
    )
    parser.add_argument("--agent", default="", help="the agent's command line, which is started and kept running")
    parser.add_argument("--agent-silence", type=float, default=5.0, metavar="SECONDS", help="then it is killed (5)")
    after = "what has had no word for so long since its end is killed (%(default)g); 0: never"
    parser.add_argument("--kill-after", type=float, default=AFTER_S, metavar="SECONDS", help=after)
    device = "fed while all that is over stands still, as in /dev/watchdog; none if left out"
    parser.add_argument("--watchdog", type=Path, metavar="DEVICE", help=device)
    reset = "its timeout (%(default)d)"
    parser.add_argument("--watchdog-seconds", type=int, default=TIMEOUT_S, metavar="SECONDS", help=reset)
    parser.add_argument("--directory", type=Path, default=SOCKET.parent, help="socket and state (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (options.directory / "guard.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another guard is at work in {options.directory}", file=sys.stderr)
        return Refused.exit_code
    except OSError as error:
        print(f"{options.directory} cannot be used: {error}: run failover-guard as root", file=sys.stderr)
        return FailoverError.exit_code
    _harden()
    envelopes = Envelopes()
    asking = Asking(envelopes.send)
    keeper = Keeper(options.directory, Overdue(options.kill_after), asking)
    keeper.enforce()
    try:
        watchdog = Watchdog(options.watchdog, options.watchdog_seconds, options.directory)
    except FailoverError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    supervisor = Supervisor(shlex.split(options.agent), options.agent_silence, options.directory)
    serve(options.directory, keeper, Helpers(supervisor, asking, envelopes, watchdog))
    lock.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
