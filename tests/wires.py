"""A switch and hosts, each a network namespace: what the tests of the network and of the guard are plugged into.

    hostA        hostB        peer           each has an `eth0`, and a bridge `br0` if asked for
══════╪════════════╪════════════╪══════      the switch
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agents.command import run
from agents.isolation import syscalls

T = TypeVar("T")


def inside(netns: Path, work: Callable[[], T]) -> T:
    """Do it in a thread of that namespace."""
    done: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            number = os.open(netns, os.O_RDONLY)
            syscalls.setns(number, syscalls.CLONE_NEWNET)
            os.close(number)
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


class Wires:
    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wires-"))
        self._switch = self._namespace("switch")
        self.ip(self._switch, "link add br0 type bridge stp_state 0 forward_delay 0", "link set br0 up")

    def close(self) -> None:
        for netns in self.directory.iterdir():
            syscalls.umount(netns, syscalls.MNT_DETACH)
        shutil.rmtree(self.directory)

    def host(self, name: str, *addresses: str, bridge: bool = False) -> Path:
        """With a bridge, eth0 is a port of it and the addresses are the bridge's."""
        netns = self._namespace(name)
        self.ip(self._switch, f"link add {name} type veth peer name eth0 netns {netns}")
        self.ip(self._switch, f"link set {name} master br0 up")
        if bridge:
            self.ip(netns, "link add br0 type bridge stp_state 0 forward_delay 0", "link set eth0 master br0")
        self.ip(netns, "link set lo up", "link set eth0 up", *(["link set br0 up"] if bridge else []))
        for address in addresses:
            nodad = " nodad" if ":" in address else ""
            self.ip(netns, f"addr add {address} dev {'br0' if bridge else 'eth0'}{nodad}")
        return netns

    def ip(self, netns: Path, *commands: str) -> str:
        said = [run(["nsenter", f"--net={netns}", "ip", *words.split()], timeout_s=10).stdout for words in commands]
        return b"".join(said).decode()

    def _namespace(self, name: str) -> Path:
        netns = self.directory / name
        netns.touch()
        run(["unshare", f"--net={netns}", "true"], timeout_s=10)
        return netns


def answers(netns: Path, address: str, timeout_s: float = 1.0) -> bool:
    """One echo request, sent once, from that namespace."""
    return inside(netns, lambda: _answers(address, timeout_s))


def _answers(address: str, timeout_s: float) -> bool:
    six = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    number = threading.get_native_id() & 0xFFFF
    with socket.socket(family, socket.SOCK_RAW, protocol) as echo:
        request = struct.pack("!BBHHH", 128 if six else 8, 0, 0, number, 1)
        if not six:  # the kernel fills in that of ICMPv6 only
            total = sum(struct.unpack("!4H", request))
            request = request[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + request[4:]
        try:
            echo.sendto(request, (address, 0))
        except OSError:
            return False
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            echo.settimeout(left_s)
            try:
                data, sender = echo.recvfrom(2048)
            except OSError:
                return False
            data = data if six else data[20:]
            if sender[0] == address and data[0] == (129 if six else 0) and data[4:6] == struct.pack("!H", number):
                return True
    return False


def eventually(true: Callable[[], object], timeout_s: float = 20.0) -> bool:
    """A limit for the broken case only; it says nothing about how fast something is."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
