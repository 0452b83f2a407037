"""The power of the host that has the address is cut: until when does the address answer a third host again?

failover          our own cluster, timing `fast`; the address comes with a vserver that is started anew
failover-normal   the same, timing `normal`
failover-debian   timing `fast`; the vserver is a Debian with systemd and nginx
keepalived        advert_int 1, the default
keepalived-tuned  advert_int 0.1
pacemaker         with corosync, the defaults, nothing to fence with
pacemaker-tuned   the same with a short token

All run in namespaces of the same kind, three hosts and a client each, one run of each kind of cut in turn:

plain             the host has no other part
leader            it leads, too (Pacemaker: it is the DC), so that another one must be elected first
zookeeper         it has ZooKeeper's leader, so that another one must be elected before anything is written
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from failover.errors import BadInput
from failover.lab.lab import Lab
from tests.bench import keepalived, ours, pacemaker, table
from tests.bench.contender import KINDS, Contender, power_off

CONTENDERS = {contender.name: contender for contender in (*ours.ALL, *keepalived.BOTH, *pacemaker.BOTH)}
BEYOND = "beyond detection"
Runs = dict[tuple[str, str], list[table.Row]]  # of a contender, with a kind of cut


def run(options: Namespace) -> None:
    chosen, kinds = [CONTENDERS[name] for name in options.only or CONTENDERS], options.cut or list(KINDS)
    cuts = [(contender, kind) for contender in chosen for kind in kinds if kind in contender.kinds]
    if not cuts:
        raise BadInput("none of these contenders has such a host", hint="leave out --cut")
    runs = _measure(cuts, options.runs)
    for (name, kind), own in runs.items():
        table.show(f"{name}, {KINDS[kind]}", own)
    print("\n" + "\n".join(summary(runs)))


def _measure(cuts: Sequence[tuple[Contender, str]], count: int) -> Runs:
    runs: Runs = {(contender.name, kind): [] for contender, kind in cuts}
    with ExitStack() as stack:
        labs: dict[str, Lab] = {}
        for contender, _ in cuts:
            if contender.lab not in labs:
                labs[contender.lab] = stack.enter_context(contender.up(contender.lab))
                power_off(labs[contender.lab])
        for number in range(1, count + 1):
            for contender, kind in cuts:
                row = contender.take_over(labs[contender.lab], kind)
                runs[contender.name, kind].append(row)
                print(f"run {number}: {contender.name:17} {kind:10} {table.line(row)}", flush=True)
    return runs


def summary(runs: Runs) -> list[str]:
    """A line for each contender and kind of cut. `of which`: from the leader's decision until the answer."""
    lines = [
        f"{'power cut until the address answers, seconds':48}     of which beyond detection",
        f"{'':42}{'runs':>5}{'median':>9}{'maximum':>9}{'median':>9}{'maximum':>9}",
    ]
    for (name, kind), own in runs.items():
        figures = [[row[key] for row in own if key in row] for key in ("answered", BEYOND)]
        cells = "".join(f"{median(values):9.3f}{max(values):9.3f}" for values in figures if values)
        lines.append(f"{name:18}{KINDS[kind]:24}{len(own):5}{cells}")
    return lines
