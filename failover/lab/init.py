"""A host's first process: boots the host in its new namespaces, then keeps its services running.

      power-on                    this process (pid 1 of the host)
      join the cgroups,
      unshare, start ───────────▶ link to the switch · mount the host's files · leave the machine's
      "booted" ◀───────────────── (or one line that says what failed)
                                  start services, reap, start again what ended, until SIGTERM (`shutdown`)

Rule 1: nothing of the machine is reachable once the root has changed; the directory of the lab is hidden before.
Rule 2: a power cut is a SIGKILL: nothing here may be needed to take a host away.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover.lab.place import LOGS

_STOP_S = 10.0  # between asking and killing, in an orderly shutdown


@dataclass
class Running:
    argv: list[str]
    rest_s: float
    pid: int = 0
    again_at: float = 0.0


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    try:
        boot(plan)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(" | ".join(str(said).strip().splitlines()), flush=True)
        sys.exit(1)
    print("booted", flush=True)
    log = os.open(LOGS / "init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    supervise({name: Running(**service) for name, service in plan["services"].items()}, plan["environment"])


def boot(plan: dict[str, Any]) -> None:
    """`plan`: see failover/lab/host.py, which writes it."""
    socket.sethostname(plan["host"])
    for argv in plan["link"]:
        _run(argv)
    root = Path(plan["root"])
    _run(["mount", "--all", "--fstab", plan["fstab"]])
    old = root / "run/machine"
    for directory in (old, root / "run/sshd", root / "run/lock"):
        directory.mkdir(mode=0o755)
    os.chdir(root)
    _run(["pivot_root", ".", "run/machine"])
    os.chdir("/")
    _run(["umount", "--lazy", "/run/machine"])
    Path("/run/machine").rmdir()
    if plan["rules"]:
        _run(["nft", "-f", "-"], stdin=plan["rules"])
    door = Path(plan["door"])
    door.parent.mkdir(exist_ok=True)
    door.write_text("0")


def supervise(services: dict[str, Running], environment: dict[str, str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    while True:
        _start_due(services, environment)
        told = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, 0.2)
        if told and told.si_signo == signal.SIGTERM:
            return _stop_all(services)
        _reap(services)


def _start_due(services: dict[str, Running], environment: dict[str, str]) -> None:
    for name, service in services.items():
        if service.pid == 0 and time.monotonic() >= service.again_at:
            log = (os.POSIX_SPAWN_OPEN, 1, str(LOGS / f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
            service.pid = os.posix_spawnp(
                service.argv[0],
                service.argv,
                environment,
                file_actions=[nothing, log, (os.POSIX_SPAWN_DUP2, 1, 2)],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT],
            )
            _say(f"{name} started as {service.pid}")


def _reap(services: dict[str, Running]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            for name, service in services.items():
                if service.pid == ended[0]:
                    service.pid, service.again_at = 0, time.monotonic() + service.rest_s
                    _say(f"{name} ended with {os.waitstatus_to_exitcode(ended[1])}")


def _stop_all(services: dict[str, Running]) -> None:
    """In reverse order, then everybody else who is left; what does not heed is killed with this process."""
    deadline = time.monotonic() + _STOP_S
    for name, service in reversed(services.items()):
        if service.pid:
            _say(f"{name} is asked to stop")
            os.kill(service.pid, signal.SIGTERM)
            while service.pid and time.monotonic() < deadline:
                signal.sigtimedwait({signal.SIGCHLD}, 0.1)
                _reap(services)
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGTERM)
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
            continue
        return


def _run(argv: list[str], stdin: str = "") -> None:
    subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, timeout=30)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
