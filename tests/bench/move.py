"""A planned move of the lab's Debian vserver: for how long had the client outside no answer?"""

from __future__ import annotations

from argparse import Namespace

from failover.lab import drill, sample
from failover.lab.lab import Lab
from failover.lab.probe import Probe
from tests.bench import ours, table


def run(options: Namespace) -> None:
    rows = []
    with ours.cluster("bench-move") as lab, Probe(lab, sample.URL) as probe:
        for number in range(1, options.runs + 1):
            rows.append({"outage": _move(lab, probe)})
            print(f"run {number}: {table.line(rows[-1])}", flush=True)
    table.show("move", rows)


def _move(lab: Lab, probe: Probe) -> float:
    source = ours.running(lab)
    target = next(name for name in lab.real_hosts if name != source)
    return drill.move(lab, probe, target, source)
