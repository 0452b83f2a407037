"""The `failover` command. Each family of commands has a file; heavy imports are made by the command that needs them.

Rule 1: only this folder prints. An error is one line on stderr, what to do is the next; its class gives the exit code.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from failover import __version__
from failover.cli import cluster, demo, explain, lab, maintain, operate, simulate, status
from failover.errors import Denied, FailoverError

EXIT_CODES = """exit codes: 0 done · 1 failed · 2 bad input · 3 refused as unsafe · 4 cannot be done now
            5 unreachable · 6 denied"""


def main() -> None:
    options = parser().parse_args()
    try:
        code = options.run(options) or 0
        sys.stdout.flush()
        sys.exit(code)
    except FailoverError as error:
        print(f"failover: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `failover history | head`: whoever reads has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        print(f"failover: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(Denied.exit_code if isinstance(error, PermissionError) else FailoverError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="failover",
        description="Fail-over for virtual servers: when a host dies, its vservers go on elsewhere.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"failover {__version__}")
    top.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("FAILOVER_CONFIG", "/etc/failover/cluster.yaml")),
        help="cluster.yaml (default: %(default)s, or $FAILOVER_CONFIG)",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for family in (cluster, status, operate, maintain, explain, simulate, lab, demo):
        family.add(commands)
    return top


if __name__ == "__main__":
    main()
