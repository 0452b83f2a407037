"""Claim S14: the lease protocol as a model (tests/model/), searched to its end by spin.

Each rule of a model is broken once, and spin must find the shortest way to the accident; and what must happen at all
(a takeover, an escape, a return, a promise) is shown by spin's failing to rule it out.

To see such a way, in an empty directory:

    spin -DRULE=false -a …/lease.pml && gcc -DBFS -DSAFETY -w -o pan pan.c && ./pan -N never_two
    spin -DRULE=false -t -k lease.pml.trail -p …/lease.pml
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "model"
MEMORY_MB = 2000
SEARCH_S = 120  # the longest takes 15 on a core of its own

Search = Callable[[str], bool]

# Who notices that a rule is broken, where it is not the first property of its model.
NOTICED_BY = {"PROMISES_ONLY_EXTEND": "never_back"}
HOLDS = {"lease.pml": ("never_two", "never_back"), "leadership.pml": ("only_the_leader",)}


def named(pattern: str, model: str) -> list[str]:
    return re.findall(pattern, (MODELS / model).read_text(), re.MULTILINE)


def rules(model: str) -> list[str]:
    return [rule for rule in named(r"^#ifndef (\w+)$", model) if rule != "GRANT"]


def must_happen(model: str) -> list[str]:
    return [name for name in named(r"^ltl (\w+)", model) if name not in HOLDS[model]]


def built(where: Path, model: str, *defined: str) -> Search:
    """A search of this model for a way to break a property; true when there is none. It is never cut short."""
    macros = [f"-D{one}" for one in defined]
    run(where, "spin", *macros, "-a", str(MODELS / model))
    run(where, "gcc", "-O1", "-w", "-DBFS", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c")

    def search(name: str) -> bool:
        said = run(where, "./pan", "-w23", "-N", name)
        found = re.search(r"errors: (\d+)", said)
        assert found is not None, said
        assert f"ltl formula {name}" in said, said
        assert found[1] == "1" or not re.search(r"not completed|too small|out of memory|truncated", said), said
        return found[1] == "0"

    return search


def run(where: Path, *argv: str) -> str:
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True, check=False, timeout=SEARCH_S)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or argv[0] == "./pan", said
    return said


@pytest.mark.parametrize("model", HOLDS)
def test_s14_the_protocol_as_it_is_breaks_no_property(model: str, tmp_path: Path) -> None:
    search = built(tmp_path, model)
    assert {name: search(name) for name in HOLDS[model]} == dict.fromkeys(HOLDS[model], True)


@pytest.mark.parametrize(("model", "rule"), [(model, rule) for model in HOLDS for rule in rules(model)])
def test_s14_no_rule_can_be_left_out(model: str, rule: str, tmp_path: Path) -> None:
    search = built(tmp_path, model, f"{rule}=false")
    assert not search(NOTICED_BY.get(rule, HOLDS[model][0]))


@pytest.mark.parametrize("model", HOLDS)
def test_s14_what_the_protocol_is_for_does_happen(model: str, tmp_path: Path) -> None:
    search = built(tmp_path, model, "EVENTS")
    happens = must_happen(model)
    assert len(happens) >= 2
    assert {name: search(name) for name in happens} == dict.fromkeys(happens, False)


def test_the_models_have_rules() -> None:
    assert len(rules("lease.pml")) >= 25
    assert len(rules("leadership.pml")) >= 6
