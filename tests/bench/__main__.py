"""python -m tests.bench takeover | move [--runs N] [--only NAME] [--cut KIND]
python -m tests.bench busy [--minutes N] [--timing PROFILE] [--loops N]

Measured in a lab, probed every 10 ms from outside. Prints each run, then the median and the maximum of each figure as a
table, and one JSON line per table.
"""

from __future__ import annotations

import argparse
import signal
import sys

from failover.errors import FailoverError
from failover.timing import PROFILES
from tests.bench import busy, move, takeover
from tests.bench.contender import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    benches = parser.add_subparsers(dest="bench", required=True)
    for bench in (takeover, move, busy):
        name = bench.__name__.rpartition(".")[2]
        command = benches.add_parser(name, description=bench.__doc__, formatter_class=argparse.RawTextHelpFormatter)
        if bench is not busy:
            command.add_argument("--runs", type=int, default=10, help="of each kind; 10 if left out")
        command.set_defaults(run=bench.run)
    only = benches.choices["takeover"]
    only.add_argument(
        "--only", action="append", choices=takeover.CONTENDERS, metavar="NAME", help="not all; repeatable"
    )
    only.add_argument("--cut", action="append", choices=KINDS, help="only this kind of host; repeatable")
    beside = benches.choices["busy"]
    beside.add_argument("--minutes", type=int, default=30, help="30 if left out")
    beside.add_argument("--timing", choices=PROFILES, default="normal", help="normal if left out")
    beside.add_argument("--loops", type=int, default=4, help="endless loops per processor; 4 if left out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the labs are taken down, as after Ctrl-C
    try:
        options.run(options)
    except FailoverError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
