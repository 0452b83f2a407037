"""Whole clusters under random faults, hours of them: no invariant breaks, and all is well again once all is healed.

Each seed is one virtual hour with about ten faults; in all some five minutes on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLUSTERS = Path(__file__).parent / "clusters"
SEEDS = {"pair": 80, "rules": 40, "careful": 30, "five": 30}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SEEDS)
def test_no_invariant_breaks_under_random_faults(name: str) -> None:
    file = CLUSTERS / f"{name}.yaml"
    argv = [sys.executable, "-m", "failover", "simulate", "--json", "--seeds", str(SEEDS[name]), str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    (told,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert told["violations"] == []
    assert told["agreed"] is True
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_cluster_has_its_seeds() -> None:
    assert {file.stem for file in CLUSTERS.glob("*.yaml")} == set(SEEDS)
