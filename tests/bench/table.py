"""Figures of several runs as a table, and the same as one JSON object for a program."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

Row = Mapping[str, float]  # what was measured in one run -> seconds


def line(row: Row) -> str:
    return "  ".join(f"{name} {seconds:.3f}" for name, seconds in row.items())


def heading(title: str) -> str:
    return f"\n{title}\n{'':18} {'median':>8} {'maximum':>8}"


def summary(name: str, values: Sequence[float]) -> str:
    return f"{name:18} {statistics.median(values):8.3f} {max(values):8.3f}"


def show(title: str, rows: Sequence[Row]) -> None:
    print(heading(f"{title}, {len(rows)} runs, seconds"))
    result: dict[str, object] = {"bench": title, "runs": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(summary(name, values))
        key = name.replace(" ", "_")
        result |= {f"{key}_median_s": round(statistics.median(values), 3), f"{key}_max_s": round(max(values), 3)}
    print(json.dumps(result), flush=True)
