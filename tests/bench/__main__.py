"""python -m tests.bench takeover | move [--runs N] [--only NAME]: measured in a lab, probed every 10 ms from outside.

Prints each run, then the median and the maximum of each figure as a table, and one JSON line per table.
"""

from __future__ import annotations

import argparse
import signal
import sys

from failover.errors import FailoverError
from tests.bench import move, takeover


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    benches = parser.add_subparsers(dest="bench", required=True)
    for bench in (takeover, move):
        name = bench.__name__.rpartition(".")[2]
        command = benches.add_parser(name, description=bench.__doc__, formatter_class=argparse.RawTextHelpFormatter)
        command.add_argument("--runs", type=int, default=10)
        command.set_defaults(run=bench.run)
    benches.choices["takeover"].add_argument("--only", action="append", choices=takeover.CONTENDERS, metavar="NAME")
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
