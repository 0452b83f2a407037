"""A real ZooKeeper for the tests: one server or an ensemble, on free ports of 127.0.0.1, in a directory of its own; and
a cable to it that can be pulled.

Every server is a child of the test process, is ended by its pid, and dies with us even if we are killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from failover import ensemble


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class ZooKeeperServers:
    """An ensemble of `count` servers, each of which can be killed, stopped and started again."""

    def __init__(self, directory: Path, count: int = 1) -> None:
        ports = free_ports(3 * count)
        self.servers = [ensemble.Server(n + 1, "127.0.0.1", *ports[3 * n : 3 * n + 3]) for n in range(count)]
        self._directories = {server.number: directory / str(server.number) for server in self.servers}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for server in self.servers:
            ensemble.prepare(self.servers, server.number, self._directories[server.number])

    @property
    def clients(self) -> list[str]:
        return [server.client for server in self.servers]

    def configure(self, keys: Mapping[str, int | None]) -> None:
        """Write these keys into each zoo.cfg; None: leave the key out."""
        for directory in self._directories.values():
            lines = (directory / "zoo.cfg").read_text().splitlines()
            lines = [line for line in lines if line.partition("=")[0] not in keys]
            lines += [f"{key}={value}" for key, value in keys.items() if value is not None]
            (directory / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def start(self, *numbers: int) -> None:
        """Start these servers, or all; return when each that runs serves clients."""
        for number in numbers or tuple(self._directories):
            directory = self._directories[number]
            argv = ["setpriv", "--pdeathsig", "KILL", *ensemble.command(directory)]
            with (directory / "log").open("ab") as log:
                self._processes[number] = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory
                )
        self.wait()

    def wait(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not all(self.mode(number) for number in self._processes):
            if time.monotonic() > deadline:
                logs = "\n".join((d / "log").read_text()[-2000:] for d in self._directories.values())
                raise TimeoutError(f"ZooKeeper does not serve:\n{logs}")
            time.sleep(0.05)

    def mode(self, number: int) -> str:
        """`leader`, `follower` or `standalone`; empty while it does not serve."""
        for line in self._ask(number, b"srvr").splitlines():
            if line.startswith("Mode: "):
                return line.removeprefix("Mode: ")
        return ""

    def kill(self, number: int) -> None:
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def signal(self, number: int, name: signal.Signals) -> None:
        os.kill(self._processes[number].pid, name)

    def close(self) -> None:
        for number in tuple(self._processes):
            self.kill(number)

    def _ask(self, number: int, word: bytes) -> str:
        server = self.servers[number - 1]
        try:
            with socket.create_connection((server.address, server.client_port), timeout=1.0) as connection:
                connection.sendall(word)
                return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return ""


class Cable:
    """A way to one server. Pulled, it swallows everything and says nothing, like a real one."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._plugged = threading.Event()
        self._plugged.set()
        self._ends: list[socket.socket] = []
        self._entry = socket.create_server(("127.0.0.1", 0))
        self.client = f"127.0.0.1:{self._entry.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        self._plugged.clear()

    def plug(self) -> None:
        """What was under way is lost."""
        self._hang_up()
        self._plugged.set()

    def close(self) -> None:
        self._entry.close()
        self._hang_up()
        self._plugged.set()

    def _hang_up(self) -> None:
        while self._ends:
            end = self._ends.pop()
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._entry.accept()
                self._plugged.wait()
                far = socket.create_connection(self._server, timeout=5)
            except OSError:
                if self._entry.fileno() < 0:
                    return
                near.close()
                continue
            far.settimeout(None)
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._plugged.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
