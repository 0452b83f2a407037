"""Every safety rule bites: each is broken once, in a copy of the code, and a table or a story must notice.

A row: what is broken, the file, the line as it is, the line as it must not be, and who notices.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("failover", "agents", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Breach:
    file: str
    rule: str
    broken: str
    noticed_by: str  # a test file, or a part of it


PLAN, LIFE, RULES = "tests/test_plan.py", "tests/test_plan_life.py", "tests/test_plan_rules.py"
TROUBLE, RECONCILE = "tests/test_reconcile_trouble.py", "tests/test_reconcile.py"

BREACHES: dict[str, Breach] = {
    "an owner that lives is taken over": Breach(
        "failover/plan/decide.py", "if not alive(view, word.owner):", "if True:", PLAN
    ),
    "a takeover does not check that the lease is still what it was": Breach(
        "failover/plan/words.py", "leases=() if by_word else gone", "leases=()", PLAN
    ),
    "a commit forgets the lease": Breach(
        "failover/writes.py", "for host, version in change.leases:", "for host, version in ():", "tests/test_store_contract.py -k memory"
    ),
    "a commit forgets that the session must be gone": Breach(
        "failover/writes.py",
        'writes += [Check(f"leases/{host}", version), Create(alive), Delete(alive)]',
        'writes += [Check(f"leases/{host}", version)]',
        "tests/test_store_contract.py -k memory",
    ),
    "a deposed leader may write": Breach(
        "failover/writes.py",
        'writes: list[Write] = [Check("leader/epoch", epoch)]',
        "writes: list[Write] = []",
        "tests/test_store_contract.py -k memory",
    ),
    "an epoch is not checked": Breach(
        "failover/writes.py", "Set(path, data, word.epoch - 2)", "Set(path, data)", "tests/test_store_contract.py -k memory"
    ),
    "an agent claims its place without a new version of its lease": Breach(
        "failover/writes.py",
        "return (lease, *stale, Create(alive, ephemeral=True))",
        "return (*stale, Create(alive, ephemeral=True))",
        "tests/test_store_contract.py -k memory",
    ),
    "a lease is longer than the session allows": Breach(
        "failover/timing.py", "- 2 * self.tick_s - self.freeze_s", "- self.freeze_s", "tests/test_timing.py"
    ),
    "a wish of an older epoch is obeyed": Breach(
        "failover/plan/decide.py",
        "wish = intent.move if intent.move is not None and intent.move.epoch == word.epoch else None",
        "wish = intent.move",
        PLAN,
    ),
    "a drain is ignored by a takeover": Breach("failover/plan/verdicts.py", "if board.drained(host):", "if False:", PLAN),
    "a drain moves nothing": Breach("failover/plan/decide.py", "if board.drained(owner):", "if False:", PLAN),
    "a torn tree is started": Breach("failover/plan/verdicts.py", "if replica is None:", "if False:", PLAN),
    "the tree of a former owner is started": Breach(
        "failover/plan/verdicts.py", "if replica.diverged:", "if False:", PLAN
    ),
    "a replica that is too old is started": Breach(
        "failover/plan/verdicts.py", "if age > vserver.max_data_loss_s:", "if False:", PLAN
    ),
    "a replica of unknown age is started": Breach("failover/plan/verdicts.py", "if age is None:\n        return Verdict(host, False", "if age is None:\n        return Verdict(host, True", PLAN),
    "what is in error is taken over": Breach(
        "failover/plan/lost.py", "if in_error and last is not None", "if False and last is not None", PLAN
    ),
    "an unshipped hand-over is given as if it were whole": Breach(
        "failover/plan/moves.py", "if report.handed is not None:", "if True:", PLAN
    ),
    "two copies that nobody knows are both left": Breach(
        "failover/plan/found.py", "if not copies:", "if True:", LIFE
    ),
    "what is wanted stopped is adopted": Breach(
        "failover/plan/found.py", "if lives(owns) or word.want is not Want.STARTED:", "if lives(owns):", LIFE
    ),
    "what was ignored is started though it may still run on a lost host": Breach(
        "failover/plan/found.py", "    if gone:\n", "    if False:\n", LIFE
    ),
    "an operator's move is undone by a failback": Breach(
        "failover/plan/moves.py", "or word.pinned or report.state", "or report.state", LIFE
    ),
    "a host on which it failed is tried again at once": Breach(
        "failover/plan/verdicts.py",
        "if word is not None and host in board.kept_off(word):\n        return Verdict",
        "if False:\n        return Verdict",
        PLAN,
    ),
    "failures move it for ever": Breach(
        "failover/plan/moves.py", "and len(recent) < vserver.restart.moves:", "and True:", LIFE
    ),
    "a disarmed cluster takes over": Breach(
        "failover/plan/disarm.py", "if mode is Mode.ARMED or", "if True or", RULES
    ),
    "room is not asked for": Breach(
        "failover/plan/verdicts.py", "return _no_room(board, vserver, host) or broken_rule", "return broken_rule", RULES
    ),
    "two that must be apart meet": Breach(
        "failover/plan/verdicts.py", "if board.wanted(other) and board.place(other) == host:", "if False:", RULES
    ),
    "a set is torn": Breach("failover/plan/moves.py", "return joined(changes)", "return changes[0]", RULES),
    "what runs is not frozen at the lease's end": Breach(
        "agents/reconcile.py", "return (Freeze(case.vserver.name),) if case.seen.state is State.RUNNING else ()", "return ()", RECONCILE
    ),
    "things are started after the lease's end": Breach("agents/reconcile.py", "    if not leased:\n", "    if False:\n", RECONCILE),
    "what another host owns is thawed": Breach("agents/reconcile.py", "    if not case.mine:\n        return _not_mine", "    if False:\n        return _not_mine", RECONCILE),
    "what another host owns goes on": Breach(
        "agents/reconcile.py", "return (Kill(case.vserver.name, word.epoch),)", "return ()", RECONCILE
    ),
    "what is ignored is touched": Breach(
        "agents/reconcile.py", "if case.word.want is Want.IGNORED or not case.concerned:", "if not case.concerned:", RECONCILE
    ),
    "a hand-over is reported while its addresses may answer": Breach(
        "agents/reconcile.py",
        "return self.seen.state is State.STOPPED and not self.seen.networked",
        "return self.seen.state is State.STOPPED",
        RECONCILE,
    ),
    "a copy that a person started is killed before the leader has spoken": Breach(
        "agents/reconcile.py", "and (adopted or word.epoch <= seen.by_hand_epoch):", "and adopted:", TROUBLE
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code and its tests, to be broken."""
    there = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, there / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, there / name)
    return there


def failures(copy: Path, noticed_by: str) -> tuple[int, str]:
    argv = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *noticed_by.split()]
    done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, done.stdout[-3000:]


def test_the_code_as_it_is_breaks_no_rule(copy: Path) -> None:
    for noticed_by in sorted({breach.noticed_by for breach in BREACHES.values()}):
        code, said = failures(copy, noticed_by)
        assert code == 0, said


@pytest.mark.parametrize("name", BREACHES)
def test_a_broken_rule_is_noticed(name: str, copy: Path) -> None:
    breach = BREACHES[name]
    file = copy / breach.file
    whole = file.read_text()
    assert whole.count(breach.rule) == 1, f"{breach.file} has {breach.rule!r} {whole.count(breach.rule)} times"
    file.write_text(whole.replace(breach.rule, breach.broken))
    try:
        code, said = failures(copy, breach.noticed_by)
    finally:
        file.write_text(whole)
    assert code == 1, f"nobody noticed: {name}\n{said}"
