"""One host of a lab: its disk, its power, and the way in.

    power-on     sh: join the host's cgroups ─▶ unshare: the namespaces ─▶ init.py, pid 1 of the host
    power-off    cgroup.kill: everything that runs in the host is dead at one moment
    a way in     sh: join the host's cgroups ─▶ nsenter: the namespaces of its pid 1 ─▶ the command

Rule 1: the host sees the machine's root file system, but whatever it writes lands on its own; /run and /tmp do not
        survive its power, /vservers (a file system in a file) and all else do.
Rule 2: whether a host has power is seen from its cgroup, never remembered.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agents.command import CommandFailed, Done, run
from failover.errors import FailoverError, Refused
from failover.lab import cgroups, network, outlet, services
from failover.lab.cgroups import Group, Hierarchy
from failover.lab.place import CACHE, CONTROL, ETC, LOGS, STATE, Place
from failover.lab.services import Runs

SOURCE = Path(__file__).resolve().parents[2]  # where the packages failover and agents lie
_LEAF = "init"  # the cgroup of the host's own processes, beside those of its vservers
_BOOT_S = 60.0
_JOIN = 'for door in $DOORS; do echo $$ > "$door" || exit 125; done; exec'
_OWN = {"etc": ETC, "log": LOGS, "state": STATE, "control": CONTROL}


@dataclass(frozen=True)
class Machine:
    """What a host has in common with all others of its lab."""

    place: Place
    python: str
    disk: str
    fs: str
    hierarchies: tuple[Hierarchy, ...]


class Host:
    """`addresses`: with their prefix lengths, "10.77.0.1/16". `runs`: the services, see services.of_host."""

    def __init__(self, machine: Machine, name: str, addresses: tuple[str, ...], runs: Runs) -> None:
        self.machine = machine
        self.name = name
        self.addresses = addresses
        self.runs = runs
        self.directory = machine.place.host(name)
        self.group = Group(machine.place.group(name), machine.hierarchies)
        self.unplugged = self.directory / "unplugged"  # exists while its cable is pulled

    # --- its disk

    def found(self) -> None:
        """Make its directories and its empty disk."""
        for part in (*_OWN, "system/upper", "system/work", "root"):
            (self.directory / part).mkdir(parents=True)
        self._format()

    def renew(self) -> None:
        """Its disk is empty again, its cable plugged in, and its daemons remember nothing; it must have no power."""
        self.unplugged.unlink(missing_ok=True)
        for entry in (self.directory / "state").iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._format()

    def _format(self) -> None:
        with (self.directory / "disk.img").open("wb") as image:
            image.truncate(_bytes(self.machine.disk))
        quiet = {"ext4": "-qF", "btrfs": "-qf", "xfs": "-qf"}[self.machine.fs]
        run([f"mkfs.{self.machine.fs}", quiet, self.directory / "disk.img"], timeout_s=60)

    # --- its power

    @property
    def powered(self) -> bool:
        return self.group.populated

    @property
    def pid(self) -> int:
        """Its first process, as the machine counts."""
        return self._process("1") or self._no_power()

    def service(self, name: str) -> int | None:
        """The process of one of its services, as the machine counts; None when it does not run."""
        record = self.directory / "control" / f"{name}.pid"
        return self._process(record.read_text().strip()) if record.exists() else None

    def vserver(self, name: str) -> int | None:
        """The first process of a vserver that runs here, as the machine counts."""
        return next((pid for pid in self.group.pids(f"vserver/{name}/payload") if _numbers(pid)[-1:] == ["1"]), None)

    def missing(self) -> list[str]:
        """Which of its services do not run."""
        return [name for name in services.processes(self.runs) if self.service(name) is None]

    def hold(self, service: str, down: bool) -> None:
        """Let a service not be started again, or be started again."""
        mark = self.directory / "control" / f"{service}.down"
        mark.touch() if down else mark.unlink(missing_ok=True)

    def power_on(self, lock: int, cuts: set[tuple[str, str]]) -> subprocess.Popen[str]:
        """Begin to boot; `booted` waits for the end. `lock`: the lab's, let go once the host is in its cgroups."""
        if self.powered:
            raise Refused(f"{self.name} has power already")
        self.group.make()
        self._forget_services()
        plan = self.directory / "boot.json"
        CACHE.mkdir(parents=True, exist_ok=True)
        device = self._attach()
        (self.directory / "fstab").write_text(self._fstab(device))
        plan.write_text(json.dumps(self._plan(cuts)))
        (self.group.unified / _LEAF).mkdir(exist_ok=True)
        namespaces = "--fork --pid --mount --net --uts --ipc --cgroup --propagation slave"
        script = f'{_JOIN} unshare {namespaces} "$@" </dev/null'
        return subprocess.Popen(
            ["sh", "-c", script, "power-on", self.machine.python, "-m", "failover.lab.init", str(plan)],
            stdin=lock,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self.environment, "DOORS": self._doors("")},
            cwd="/",
            text=True,
            start_new_session=True,
        )

    def booted(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        process.stdout.close()
        if said != "booted":
            self.power_off(network.Switch(self.machine.place.switch))
            raise FailoverError(f"{self.name} does not boot: {said or 'no word from its first process'}")
        self.group.settle(process.pid, _LEAF)
        self._detach()

    def power_off(self, switch: network.Switch) -> float:
        """Cut its power; returns the moment (CLOCK_MONOTONIC), when nothing of the host is left but its disk."""
        at = time.monotonic()
        self.group.kill()
        if switch.exists:
            switch.unplug(self.name)
        self.group.await_empty()
        self._detach()
        self.group.remove()
        return at

    # --- the way in

    @property
    def environment(self) -> dict[str, str]:
        standard = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        binaries = f"{Path(self.machine.python).parent}:{standard}:{outlet.PLACE}"
        python = {"PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}
        return {"PATH": binaries, "HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb"), **python}

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside; its exit code is that of `argv`."""
        if self.group.frozen:
            raise Refused(f"{self.name} is stalled", hint="wait until it goes on")
        environment = [f"{key}={value}" for key, value in self.environment.items()]
        enter = ["nsenter", "--target", str(self.pid), "--all", "env", "--chdir=/root", "--ignore-environment"]
        script = f'DOORS="$1"; shift; {_JOIN} "$@"'
        return ["sh", "-c", script, self.name, self._doors(_LEAF), *enter, *environment, *argv]

    def exec(self, argv: Sequence[str], *, timeout_s: float = 30.0, expect: Sequence[int] = (0,)) -> Done:
        """Run it to its end; out of time it is killed, inside too."""
        within = ["timeout", "--signal=KILL", f"{timeout_s + 1:g}", *argv]
        return run(self.command(within), timeout_s=timeout_s, expect=expect)

    # --- details

    def _process(self, inner: str) -> int | None:
        """Which of its own processes bears this id in the host itself."""
        return next((pid for pid in self.group.pids(_LEAF) if _numbers(pid)[1:] == [inner]), None)

    def _forget_services(self) -> None:
        """The numbers of the last boot are others' in this one; a store that is down stays down."""
        for record in (self.directory / "control").iterdir():
            if record.name != "zookeeper.down":
                record.unlink()

    def _no_power(self) -> NoReturn:
        raise Refused(f"{self.name} has no power", hint=f"failover lab power-on {self.name}")

    def _doors(self, leaf: str) -> str:
        return " ".join(str(door) for door in self.group.doors(leaf))

    def _plan(self, cuts: set[tuple[str, str]]) -> dict[str, object]:
        """All that init.py needs to know."""
        unified = next(hierarchy.mount for hierarchy in self.machine.hierarchies if hierarchy.unified)
        return {
            "host": self.name,
            "root": str(self.directory / "root"),
            "fstab": str(self.directory / "fstab"),
            "link": network.link_commands(
                self.name, self.machine.place.switch, self.addresses, plugged=not self.unplugged.exists()
            ),
            "rules": network.store_rules(cuts, self.name) if any(self.name in cut for cut in cuts) else "",
            "door": str(unified / _LEAF / "cgroup.procs"),
            "services": self.runs,
            "environment": self.environment,
        }

    def _fstab(self, device: str) -> str:
        own, root = self.directory, self.directory / "root"
        code = dict.fromkeys([SOURCE, Path(sys.prefix), Path(sys.base_prefix)])
        lines = [
            f"overlay {root} overlay lowerdir=/,upperdir={own}/system/upper,workdir={own}/system/work",
            f"proc {root}/proc proc nosuid,nodev,noexec",
            f"sysfs {root}/sys sysfs nosuid,nodev,noexec",
            f"devtmpfs {root}/dev devtmpfs nosuid",
            f"devpts {root}/dev/pts devpts newinstance,ptmxmode=0666,mode=620,gid=5",
            f"tmpfs {root}/dev/shm tmpfs nosuid,nodev,mode=1777,X-mount.mkdir",
            f"tmpfs {root}/run tmpfs nosuid,nodev,mode=755",
            f"tmpfs {root}/tmp tmpfs nosuid,nodev,mode=1777",
            *_cgroup_lines(root, self.machine.hierarchies),
            *(f"{part} {root}{part} none bind,ro,X-mount.mkdir" for part in code if not set(code) & set(part.parents)),
            f"{CACHE} {root}{CACHE} none bind,X-mount.mkdir",
            *(f"{own}/{part} {root}{target} none bind,X-mount.mkdir" for part, target in _OWN.items()),
            f"tmpfs {root}{self.machine.place.base} tmpfs ro,size=4k,X-mount.mkdir",
            f"{device} {root}/vservers auto X-mount.mkdir=0700",
        ]
        return "".join(f"{line} 0 0\n" for line in lines)

    def _attach(self) -> str:
        done = run(["losetup", "--find", "--show", self.directory / "disk.img"], timeout_s=30)
        return done.stdout.decode().strip()

    def _detach(self) -> None:
        """Let go of the loop device: at once, or, while it is mounted, when the last mount is gone."""
        detach(self.directory, wait=not self.powered)


def _numbers(pid: int) -> list[str]:
    """A process's number on the machine, then in the host, then in the vserver; nothing when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return status.partition("NSpid:")[2].partition("\n")[0].split()


def detach(below: Path, *, wait: bool = True, timeout_s: float = 10.0) -> None:
    """Release every loop device whose file lies below a directory."""
    deadline = time.monotonic() + timeout_s
    while devices := loop_devices(below):
        for device in devices:
            with suppress(CommandFailed):
                run(["losetup", "--detach", device], timeout_s=30)
        if not wait:
            return
        if time.monotonic() > deadline:
            raise FailoverError(f"{', '.join(devices)} of the lab cannot be released", hint="who has it mounted?")
        time.sleep(0.005)


def loop_devices(below: Path) -> list[str]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if backing.read_text().removesuffix("\n").removesuffix(" (deleted)").startswith(f"{below}/"):
                found.append(f"/dev/{backing.parts[3]}")
    return found


def _cgroup_lines(root: Path, machine: tuple[cgroups.Hierarchy, ...]) -> list[str]:
    tops = {hierarchy.mount for hierarchy in machine}
    lines = []
    if Path("/sys/fs/cgroup") not in tops:
        lines.append(f"tmpfs {root}/sys/fs/cgroup tmpfs nosuid,nodev,noexec,mode=755")
    for hierarchy in machine:
        if hierarchy.unified:
            lines.append(f"cgroup2 {root}{hierarchy.mount} cgroup2 nosuid,nodev,noexec,X-mount.mkdir")
        else:
            lines.append(f"cgroup {root}{hierarchy.mount} cgroup nosuid,nodev,noexec,{hierarchy.options},X-mount.mkdir")
    return lines


def _bytes(size: str) -> int:
    return int(size[:-1]) * {"M": 2**20, "G": 2**30, "T": 2**40}[size[-1]]
