"""The walls of docs/architecture.md, enforced: who may import whom, one dangerous library in one file, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = sorted([*(ROOT / "failover").rglob("*.py"), *(ROOT / "agents").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SIMULATED = [path for path in CODE if path.parent.name in ("simulate", "stories")]

FILE_LINES = 500
FUNCTION_LINES = 60

PURE = {
    "failover.model", "failover.errors", "failover.timing", "failover.plan", "failover.wire", "failover.store",
    "failover.grants.protocol", "failover.records", "failover.timeline", "failover.touches", "failover.writes",
    "failover.orders",
    "agents.steps", "agents.reconcile", "agents.promise",
}  # fmt: skip
PURE_STDLIB = {
    "__future__", "abc", "base64", "collections", "dataclasses", "datetime", "difflib", "enum", "functools", "hashlib",
    "heapq", "ipaddress", "itertools", "json", "math", "re", "textwrap", "types", "typing",
}  # fmt: skip

# A dangerous library lives in one place.
LIBRARIES = {
    "yaml": ("failover/config",),
    "kazoo": ("failover/zookeeper",),
    "pyroute2": ("agents/network",),
    "prctl": ("agents/isolation/capabilities.py",),
    "pyseccomp": ("agents/isolation/seccomp.py",),
    "ctypes": ("agents/isolation/syscalls.py", "agents/nftables.py"),
    "sysrsync": ("agents/replication/rsync.py",),
    "subprocess": ("agents/command.py", "agents/isolation/",
                   "agents/replication/", "failover/fencing/", "failover/lab/", "failover/cli/"),
}  # fmt: skip

# What may not be imported by whom (prefix -> forbidden prefixes).
FLOORS = {
    "agents": (
        "failover.leader",
        "failover.plan",
        "failover.cli",
        "failover.lab",
        "failover.web",
        "failover.simulate",
        "failover.stories",
    ),
    "agents.guard": ("kazoo", "pyroute2", "yaml", "paramiko", "prctl", "failover.zookeeper", "failover.config"),
    "agents.supervisor": ("kazoo", "pyroute2", "yaml", "paramiko", "prctl", "failover.zookeeper", "failover.config"),
    "agents.overdue": ("kazoo", "pyroute2", "yaml", "paramiko", "prctl", "failover.zookeeper", "failover.config"),
    "agents.watchdog": ("kazoo", "pyroute2", "yaml", "paramiko", "prctl", "failover.zookeeper", "failover.config"),
    "failover.lab": ("failover.cli",),
    "failover.simulate": ("failover.cli", "failover.lab", "failover.zookeeper"),
    "failover.stories": ("failover.cli", "failover.lab", "failover.zookeeper", "failover.simulate", "failover.leader"),
}
# What is simulated has no clock, thread, socket, file system or chance but those that it is handed (random.Random).
NOT_SIMULATED = ("time", "threading", "random", "secrets", "socket", "os", "subprocess", "asyncio", "multiprocessing")

MAY_IMPORT_AGENTS = ("failover.simulate", "failover.lab", "failover.cli")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_imports_respect_the_floors(path: Path) -> None:
    name, found = name_of(path), imports(path)
    if inside(name, "failover") and not any(inside(name, allowed) for allowed in MAY_IMPORT_AGENTS):
        assert not [module for module in found if inside(module, "agents")], f"{name} may not import agents"
    for floor, forbidden in FLOORS.items():
        if inside(name, floor):
            assert not [m for m in found for prefix in forbidden if inside(m, prefix)], f"{name} imports upward"


PURE_FILES = [path for path in CODE if any(inside(name_of(path), pure) for pure in PURE)]


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_is_said_to_be_pure_is_there(name: str) -> None:
    assert any(inside(name_of(path), name) for path in CODE)


@pytest.mark.parametrize("path", PURE_FILES, ids=name_of)
def test_pure_files_import_only_pure_files(path: Path) -> None:
    name = name_of(path)
    for module in imports(path):
        pure = (
            module == "failover" or any(inside(module, other) for other in PURE) or module.split(".")[0] in PURE_STDLIB
        )
        assert pure, f"{name} imports {module}"


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_a_dangerous_library_lives_in_one_place(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    for library, homes in LIBRARIES.items():
        used = any(inside(module, library) for module in imports(path))
        assert not used or any(where.startswith(home) for home in homes), f"{where} imports {library}"


@pytest.mark.parametrize("path", SIMULATED, ids=name_of)
def test_what_is_simulated_has_no_real_clock_thread_or_chance(path: Path) -> None:
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
    }
    given = {"random", "random.Random"} if used <= {"Random"} else set[str]()
    found = [module for module in imports(path) - given if any(inside(module, other) for other in NOT_SIMULATED)]
    assert not found, f"{name_of(path)} imports {found}"


@pytest.mark.parametrize("path", CODE + TESTS, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= FILE_LINES, f"{path} has {lines} lines"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES, f"{path}:{node.lineno} {node.name} is too long"


@pytest.mark.parametrize("argv", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join)
def test_the_linters_are_content(argv: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
