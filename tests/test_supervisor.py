"""The agent under its guard: started again when it dies or hangs, adopted by the next guard, never two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarded import Guard, guarded
from tests.wires import eventually

TALKS = "while True: alive(socket=Path(sys.argv[1]) / 'guard.sock'); time.sleep(0.05)"
DIES = "alive(socket=Path(sys.argv[1]) / 'guard.sock'); sys.exit(3)"
FALLS_SILENT = "alive(socket=Path(sys.argv[1]) / 'guard.sock'); time.sleep(1000)"
NEVER_SPEAKS = "time.sleep(1000)"
WILL_NOT_END = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{TALKS}"


class Agents:
    """The agents that a guard has started so far; each writes its number down."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._numbers = guard, guard.directory / "agents"

    def command(self, life: str) -> str:
        program = self._guard.directory / "agent.py"
        program.write_text(
            "import os, signal, sys, time\nfrom pathlib import Path\nfrom agents.lease import alive\n"
            f"with open({str(self._numbers)!r}, 'a') as file: file.write(f'{{os.getpid()}}\\n')\n{life}\n"
        )
        return f"env PYTHONPATH={Path.cwd()} {sys.executable} {program} {self._guard.directory}"

    def started(self) -> list[int]:
        return [int(line) for line in self._numbers.read_text().split()] if self._numbers.exists() else []

    def living(self) -> list[int]:
        return [pid for pid in self.started() if _lives(pid)]

    def close(self) -> None:
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def guard() -> Iterator[Guard]:
    with guarded() as made:
        yield made


@pytest.fixture
def agents(guard: Guard) -> Iterator[Agents]:
    made = Agents(guard)
    yield made
    guard.close()
    made.close()


@pytest.mark.needs("root")
def test_an_agent_that_is_killed_is_started_again(guard: Guard, agents: Agents) -> None:
    guard.start("--agent", agents.command(TALKS))
    assert eventually(agents.living)
    os.kill(agents.living()[0], signal.SIGKILL)
    assert eventually(lambda: len(agents.started()) == 2 and len(agents.living()) == 1)


@pytest.mark.needs("root")
def test_an_agent_that_keeps_dying_is_started_more_and_more_slowly(guard: Guard, agents: Agents) -> None:
    guard.start("--agent", agents.command(DIES))
    assert eventually(lambda: len(agents.started()) >= 4)
    assert guard.log.read_text().count("exit code 3") >= 3


@pytest.mark.needs("root")
@pytest.mark.parametrize("life", [FALLS_SILENT, NEVER_SPEAKS], ids=["later", "from the start"])
def test_an_agent_that_is_silent_is_killed_and_started_again(guard: Guard, agents: Agents, life: str) -> None:
    guard.start("--agent", agents.command(life), "--agent-silence", "0.5")
    assert eventually(lambda: len(agents.started()) >= 2)
    assert len(agents.living()) <= 1
    assert "silent" in guard.log.read_text()


@pytest.mark.needs("root")
def test_an_agent_that_talks_is_left_alone_also_when_the_guard_did_not_run(guard: Guard, agents: Agents) -> None:
    guard.start("--agent", agents.command(TALKS), "--agent-silence", "1")
    assert eventually(agents.living)
    time.sleep(0.5)
    os.kill(guard.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(guard.pid, signal.SIGCONT)
    time.sleep(1.5)
    assert len(agents.started()) == 1 and agents.living() == agents.started()


@pytest.mark.needs("root")
def test_the_next_guard_adopts_the_agent_and_never_starts_a_second(guard: Guard, agents: Agents) -> None:
    command = agents.command(TALKS)
    guard.start("--agent", command, "--agent-silence", "1")
    assert eventually(agents.living)
    for _ in range(2):
        guard.end(signal.SIGKILL)
        guard.start("--agent", command, "--agent-silence", "1")
    time.sleep(1.5)
    assert len(agents.started()) == 1 and agents.living() == agents.started()
    os.kill(agents.living()[0], signal.SIGKILL)
    assert eventually(lambda: len(agents.started()) == 2 and len(agents.living()) == 1)


@pytest.mark.needs("root")
def test_a_number_that_another_process_has_now_is_not_adopted(guard: Guard, agents: Agents) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        (guard.directory / "agent.json").write_text(json.dumps({"pid": other.pid, "started": 1}))
        guard.start("--agent", agents.command(TALKS), "--agent-silence", "1")
        assert eventually(agents.living)
        assert other.poll() is None
        other.kill()


@pytest.mark.needs("root")
@pytest.mark.parametrize("life", [TALKS, WILL_NOT_END], ids=["willingly", "or is killed"])
def test_a_guard_that_is_told_to_end_ends_its_agent(guard: Guard, agents: Agents, life: str) -> None:
    guard.start("--agent", agents.command(life), "--agent-silence", "1")
    assert eventually(agents.living)
    time.sleep(0.3)
    assert guard.end(signal.SIGTERM) == 0
    assert agents.living() == [] and len(agents.started()) == 1
