"""The power of the host that has the address is cut: until when does the address answer a third host again?

failover          our own cluster, timing `fast`; the address comes with a Debian vserver that is started anew
keepalived        advert_int 1, the default
keepalived-tuned  advert_int 0.1
pacemaker         with corosync, the defaults, nothing to fence with
pacemaker-tuned   the same with a short token

All run in namespaces of the same kind, three hosts and a client each, one run of each in turn. Chance decides whether
the host was also the leader (ZooKeeper's, or Pacemaker's DC): another one must then be elected first.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import ExitStack

from failover.lab.lab import Lab
from tests.bench import keepalived, ours, pacemaker, table
from tests.bench.contender import Contender, Run, power_off

CONTENDERS = {contender.name: contender for contender in (ours.OURS, *keepalived.BOTH, *pacemaker.BOTH)}


def run(options: Namespace) -> None:
    chosen = [CONTENDERS[name] for name in options.only or CONTENDERS]
    runs = _measure(chosen, options.runs)
    for name, own in runs.items():
        table.show(name, [run.row for run in own])
    print(table.heading("power cut until the address answers, seconds") + "  leader lost")
    for name, own in runs.items():
        answered = [run.row["answered"] for run in own]
        print(f"{table.summary(name, answered)}  {sum(run.led for run in own):6} of {len(own)}")


def _measure(chosen: list[Contender], count: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {contender.name: [] for contender in chosen}
    with ExitStack() as stack:
        labs: dict[str, Lab] = {}
        for contender in chosen:
            if contender.lab not in labs:
                labs[contender.lab] = stack.enter_context(contender.up(contender.lab))
                power_off(labs[contender.lab])
        for number in range(1, count + 1):
            for contender in chosen:
                run = contender.take_over(labs[contender.lab])
                runs[contender.name].append(run)
                note = "  (it was the leader, too)" if run.led else ""
                print(f"run {number}: {contender.name:18} {table.line(run.row)}{note}", flush=True)
    return runs
