"""Tiny trees for quick tests: busybox alone, with an init of the test's own making; and a spawner to start them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from agents.isolation import cgroup, record, vserver

BUSYBOX = Path("/bin/busybox")
IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


def busybox_tree(path: Path, init: str = IDLE) -> Path:
    """A tree of some kilobytes whose /sbin/init is a shell script; by default one that idles and stops on SIGTERM.

    init="busybox" makes it busybox's own init, which reads /etc/inittab.
    """
    for directory in ("bin", "sbin", "etc", "root", "proc", "sys", "dev", "run", "tmp", "var"):
        (path / directory).mkdir(parents=True, exist_ok=True)
    shutil.copy2(BUSYBOX, path / "bin/busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet not in ("busybox", "init"):
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\ntty:x:5:\nwww:x:33:\nmail:x:8:www\n")
    if init == "busybox":
        (path / "sbin/init").symlink_to("/bin/busybox")
    else:
        script(path / "sbin/init", init)
    return path


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def unique(name: str = "t") -> str:
    """A vserver name that no other test on this machine uses: cgroups are shared by all."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def start_spawner(run: Path, *words: str) -> subprocess.Popen[bytes]:
    """Returns when it answers; its log is run/spawner.log."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [sys.executable, "-I", "-m", "agents.isolation.spawner", "--socket", str(run / record.SOCKET), *words]
    with (run / "spawner.log").open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
    wait_until(lambda: vserver.spawner_answers(run), "the spawner answers")
    return process


@contextlib.contextmanager
def spawner(run: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A spawner on a directory of its own; at the end it and every vserver in that directory are gone."""
    process = start_spawner(run, *words)
    try:
        yield process
    finally:
        clear(run)
        process.kill()
        process.wait()


def clear(run: Path) -> None:
    """End every vserver that was started through this directory."""
    for name in record.names(run):
        vserver.kill(name, run=run)
        with contextlib.suppress(OSError):
            cgroup.remove(name)


def wait_until(condition: object, what: str, timeout_s: float = 20) -> None:
    """Patience is generous: the machine may be busy."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
