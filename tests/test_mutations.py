"""Every safety rule bites: each is broken once, in a copy of the code, and a table or a story must notice.

tests/breaches.toml has them: what is broken, the file, the rule as it is and as it must not be, and who notices.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("one at a time")  # in one copy; and some of what notices builds hosts

ROOT = Path(__file__).parent.parent
COPIED = ("failover", "agents", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Breach:
    file: str
    rule: str
    broken: str
    noticed_by: str  # a test file, or a part of it


BREACHES = {name: Breach(**row) for name, row in tomllib.loads((ROOT / "tests" / "breaches.toml").read_text()).items()}


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
    compileall.compile_dir(there, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return there


def failures(copy: Path, noticed_by: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *noticed_by.split()]
    done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, done.stdout[-3000:]


def test_the_code_as_it_is_breaks_no_rule(copy: Path) -> None:
    noticing = sorted({breach.noticed_by for breach in BREACHES.values()})
    whole = dict.fromkeys(word for one in noticing if "-k" not in one for word in one.split())
    for noticed_by in (" ".join(whole), *(one for one in noticing if "-k" in one)):
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
