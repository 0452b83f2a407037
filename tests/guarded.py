"""A guard on a host of its own, and vservers for it: what the tests of guard, fence and supervisor share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents import lease, network
from agents.isolation import cgroup
from agents.lease import Asks, Granted
from failover.boot import boot_time
from failover.model import Network
from tests.wires import Wires, eventually, inside

DEVICE, BRIDGE = Network(device="eth0"), Network(bridge="br0")


class Vserver:
    """A cgroup as a vserver has it, with a process in it that writes the time for as long as it runs."""

    def __init__(self, directory: Path, name: str, *, late: bool = False) -> None:
        self.name = f"{directory.name}-{name}"
        self.group = cgroup.of(self.name)
        self._beats = directory / f"{name}.beats"
        cgroup.create(self.name)
        program = (
            "import os, time\n"
            f"open({str(cgroup.payload(self.name) / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            f"file = open({str(self._beats)!r}, 'w', 1)\n"
            "while True:\n"
            "    file.write(f'{time.clock_gettime(time.CLOCK_BOOTTIME)}\\n')\n"
            "    time.sleep(0.002)\n"
        )
        self._process = subprocess.Popen([sys.executable, "-I", "-S", "-c", program])
        assert late or eventually(self.beats)

    def beats(self) -> list[float]:
        return [float(line) for line in self._beats.read_text().split("\n")[:-1]] if self._beats.exists() else []

    @property
    def frozen(self) -> bool:
        return cgroup.frozen(self.group)

    def goes_on(self) -> bool:
        before = len(self.beats())
        return eventually(lambda: len(self.beats()) > before)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        cgroup.remove(self.name)


class Stuck:
    """A process of a vserver in a call that no signal but a kill interrupts, so it cannot be frozen: it asks for a file
    of a file system whose server does not answer, and sees that in a mount namespace of its own."""

    def __init__(self, vserver: Vserver) -> None:
        self._server: int | None = os.open("/dev/fuse", os.O_RDWR)
        program = (
            "import os\n"
            "from agents.isolation import syscalls\n"
            f"open({str(cgroup.payload(vserver.name) / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            f"data = 'fd={self._server},rootmode=40000,user_id=0,group_id=0'\n"
            "syscalls.mount('stuck', '/mnt', 'fuse', 0, data)\n"
            f"os.close({self._server})\n"
            "print(flush=True)\n"
            "try:\n"
            "    os.stat('/mnt/file')\n"
            "except OSError:\n"
            "    import time\n"
            "    time.sleep(1000)\n"
        )
        argv = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", program]
        self._process = subprocess.Popen(argv, pass_fds=[self._server], stdout=subprocess.PIPE)
        assert self._process.stdout is not None and self._process.stdout.readline() == b"\n"
        assert eventually(lambda: "\nState:\tD" in Path(f"/proc/{self._process.pid}/status").read_text())

    def answer(self) -> None:
        """The call ends, with an error."""
        if self._server is not None:
            os.close(self._server)
            self._server = None

    def __enter__(self) -> Stuck:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.answer()
        self._process.wait()


class Guard:
    """Its host is one end of the wires; its directory is short, as the path of a socket must be."""

    def __init__(self, wires: Wires, directory: Path, *addresses: str, bridge: bool = False) -> None:
        self.wires, self.directory = wires, directory
        self.netns = wires.host("alpha", *addresses, bridge=bridge)
        self.socket = directory / "guard.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "guard.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *arguments: str, without: str = "", module: str = "agents.guard") -> None:
        """`without`: a capability that it does not have."""
        self.socket.unlink(missing_ok=True)
        argv = ["/usr/bin/nsenter", f"--net={self.netns}"]
        argv += ["setpriv", f"--bounding-set=-{without}"] if without else []
        argv += [sys.executable, "-m", module, "--directory", str(self.directory), *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stderr=log)
        assert eventually(self.socket.exists), self.log.read_text()

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        return self._process.wait(timeout=30)

    def hold(self, seconds: float, *vservers: Vserver | str, form: Network = DEVICE) -> float:
        """Until when, boot time."""
        names = [vserver if isinstance(vserver, str) else vserver.name for vserver in vservers]
        until = boot_time() + seconds
        assert self.says(until, {name: network.mac_of(name) for name in names}, form), self.log.read_text()
        return until

    def says(
        self,
        until: float,
        macs: dict[str, str],
        form: Network = DEVICE,
        released: tuple[str, ...] = (),
        asks: Asks | None = None,
    ) -> Granted | None:
        def say() -> Granted | None:
            return lease.hold(until, macs, form, released=released, asks=asks, socket=self.socket, timeout_s=10)

        return inside(self.netns, say)

    def extends(self, until: float, *vservers: Vserver) -> Granted | None:
        """On promises of others."""
        macs = {vserver.name: network.mac_of(vserver.name) for vserver in vservers}
        return inside(
            self.netns, lambda: lease.hold(until, macs, DEVICE, extends=True, socket=self.socket, timeout_s=10)
        )

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)


@contextmanager
def guarded(*addresses: str, bridge: bool = False) -> Iterator[Guard]:
    """A guard that is yet to be started."""
    wires, directory = Wires(), Path(tempfile.mkdtemp(prefix="guard-"))
    guard = Guard(wires, directory, *addresses, bridge=bridge)
    try:
        yield guard
    finally:
        guard.close()
        wires.close()
        shutil.rmtree(directory)
