"""python -m tests.bench takeover | move [--runs N]: on a lab's Debian vserver, probed every 10 ms from outside.

Prints each run, the median and the maximum as a table, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from failover.lab import drill, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe

Row = dict[str, float]


def takeover(lab: Lab, probe: Probe, source: str) -> Row:
    """The power of the owner is cut; it is brought back after that."""
    ask = next(name for name in lab.real_hosts if name != source)
    taken = drill.take_over(lab, probe, source, ask)
    drill.bring_back(lab, source, ask)
    names = {"noticed": "noticed_s", "decided": "decided_s", "started": "started_s", "answered": "takeover_s"}
    return {names[name]: seconds for name, seconds in taken.timeline() if name in names}


def move(lab: Lab, probe: Probe, source: str) -> Row:
    ask = source
    target = next(name for name in lab.real_hosts if name != source)
    return {"outage_s": drill.move(lab, probe, target, ask)}


BENCHES: dict[str, Callable[[Lab, Probe, str], Row]] = {"takeover": takeover, "move": move}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    lab = Lab(f"bench-{options.bench}")
    lab.down()
    try:
        with TemporaryDirectory() as directory:
            lab.up(config=sample.cluster_file(Path(directory), lab.place.name))
        rows = measure(lab, BENCHES[options.bench], options.runs)
    finally:
        lab.down()
    show(options.bench, rows)


def measure(lab: Lab, bench: Callable[[Lab, Probe, str], Row], runs: int) -> list[Row]:
    sample.build(lab)
    sample.failover(lab, "hostA", "apply")
    sample.await_("running v1", lambda: sample.running_on(lab, "hostA", ask="hostA"))
    rows = []
    with Probe(lab, sample.URL) as probe:
        for number in range(1, runs + 1):
            sample.await_("fresh replicas", lambda: sample.fresh(lab, ask="hostA"))
            owner = sample.status(lab, "hostA")["vservers"][sample.NAME]["owner"]
            rows.append(bench(lab, probe, owner))
            print(f"run {number}: " + "  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    return rows


def show(bench: str, rows: list[Row]) -> None:
    print(f"\n{'':12} {'median':>8} {'maximum':>8}")
    result: dict[str, object] = {"bench": bench, "runs": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        median, maximum = statistics.median(values), max(values)
        print(f"{name:12} {median:8.3f} {maximum:8.3f}")
        result |= {f"{name}_median": round(median, 3), f"{name}_max": round(maximum, 3)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
