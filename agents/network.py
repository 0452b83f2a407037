"""The vservers' network: a namespace for each, an `eth0` in it, and the announcements that move an address.

    prepare   namespace, lo, eth0 (macvlan, or veth on a bridge) with MAC and addresses   link DOWN: silent
    up        link up, default route, and at once: gratuitous ARP, unsolicited neighbour advertisements
    announce  the same once more
    down      link down: the addresses are silent, also while the vserver is frozen
    remove    nothing is left

Rule 1: the MAC address comes from the vserver's name, so it moves with it. It is a hash of 24 bits: among 100 vservers
        two share one in 3 of 10 000 clusters; one of them must then be renamed.
Rule 2: never a fork: a short-lived thread enters the namespace, opens a socket there and ends; the socket keeps the
        namespace, the thread is never used again. So nothing here may be called from within an event loop.
Rule 3: every step is idempotent; what an interrupted one left is replaced by the next.
Rule 4: the socket that announces stays open from `prepare` to `remove`, since opening and closing one takes longer than
        everything else here; `remove` waits for the kernel, so it belongs off the path of a takeover.
Rule 5: no address waits for duplicate detection: the leader's word is what makes it unique.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, NetlinkError

from agents.fence import PORTS, PREFIX
from agents.isolation import syscalls
from failover.errors import BadInput, FailoverError, Refused
from failover.model import Network

__all__ = ["PREFIX", "announce", "down", "frames", "inside", "mac_of", "prepare", "prepared", "remove", "up"]

RUN = Path("/run/vserver")
LINK = "eth0"
SETTLE_S = 0.2  # at most; a bridge with spanning tree takes longer than anybody could wait

_NODAD = 0x02
_NO_LINK_LOCAL = 1  # of addr_gen_mode
_FORWARDING = 3  # BR_STATE_FORWARDING
_LOCAL = 255  # RT_TABLE_LOCAL
_SYSCTL = Path("/proc/sys/net/ipv6/conf")
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Record:
    """What was prepared, in run/NAME/network.json."""

    device: str | None
    bridge: str | None
    addresses: tuple[str, ...]
    gateway: str | None


_announcers: dict[Path, tuple[int, socket.socket]] = {}  # netns -> its inode, and the socket in it
_lock = threading.Lock()


def mac_of(name: str) -> str:
    digest = hashlib.sha256(name.encode()).digest()
    return PREFIX + ":".join(f"{byte:02x}" for byte in digest[:3])


def port_of(name: str) -> str:
    """The vserver's port on the host's bridge."""
    return PORTS + hashlib.sha256(name.encode()).hexdigest()[:10]


def prepare(name: str, network: Network, addresses: Sequence[str], gateway: str | None, *, run: Path = RUN) -> Path:
    """Make the vserver's network, with the link down; returns the namespace's path.

    Raises BadInput for an address that is none, Refused for a device or bridge that the host does not have.
    """
    record = _Record(network.device, network.bridge, _checked(name, addresses, gateway), gateway)
    netns = run / name / "netns"
    with _telling(name), IPRoute() as host:
        carrier = _carrier(host, name, network)
        if _record(name, run) == record and _has_link(netns):
            down(name, run=run)
            return netns
        remove(name, run=run)
        _make_netns(netns)
        try:
            _make_link(host, carrier, name, network, netns)
            _add_addresses(netns, record)
            _write(netns.parent / "network.json", json.dumps(asdict(record)))
            _announcer(netns)
        except BaseException:
            remove(name, run=run)
            raise
    return netns


def up(name: str, *, run: Path = RUN) -> None:
    """The link up with its addresses and default route, announced at once."""
    netns, record = run / name / "netns", _prepared_record(name, run)
    with _telling(name), _routing(netns) as route:
        index = _index(route, LINK)
        assert index is not None
        _raise(route, index, name)
        _address(route, index, record)  # a link that goes down loses its IPv6 addresses
        if record.gateway:
            family = socket.AF_INET6 if ":" in record.gateway else socket.AF_INET
            with _already(errno.EEXIST):
                route.route("add", family=family, dst="default", gateway=record.gateway, oif=index, flags=["onlink"])
        announce(name, run=run)  # what is ready by now
        _wait_until(lambda: _answered(route, record))
    if record.bridge:
        with _telling(name), IPRoute() as host:
            port = _index(host, port_of(name))
            _wait_until(lambda: _forwards(host, port))
    announce(name, run=run)


def announce(name: str, *, run: Path = RUN) -> None:
    """Tell every neighbour where the addresses are now. Nothing but sending: fit to be repeated."""
    netns, record = run / name / "netns", _prepared_record(name, run)
    announcer = _announcer(netns)
    for frame in frames(mac_of(name), record.addresses):
        with suppress(OSError):  # the queue is full or the link is down: the next one may pass
            announcer.sendto(frame, (LINK, 0))


def down(name: str, *, run: Path = RUN) -> None:
    """The link down: nothing answers for the addresses any more."""
    netns = run / name / "netns"
    if not _mounted(netns):
        return
    with _telling(name), _unless_gone(netns), _routing(netns) as route:
        index = _index(route, LINK)
        if index is not None:
            route.link("set", index=index, state="down")


def remove(name: str, *, run: Path = RUN) -> None:
    """Everything away that `prepare` made, also the half of it; nothing there is nothing to do."""
    netns = run / name / "netns"
    down(name, run=run)
    with _lock:
        _, announcer = _announcers.pop(netns, (0, None))
    if announcer is not None:
        announcer.close()
    with _telling(name):
        if _mounted(netns):
            with _unless_gone(netns):
                with _routing(netns) as route:
                    _delete(route, LINK)
                syscalls.umount(netns, syscalls.MNT_DETACH)
        with IPRoute() as host:
            _delete(host, port_of(name))
    (netns.parent / "network.json").unlink(missing_ok=True)
    netns.unlink(missing_ok=True)


def prepared(*, run: Path = RUN) -> tuple[str, ...]:
    """The names of the vservers whose namespace exists."""
    return tuple(sorted(netns.parent.name for netns in run.glob("*/netns") if _mounted(netns)))


# --- the frames of an announcement, pure ------------------------------------------------------------------------------


def frames(mac: str, addresses: Sequence[str]) -> Iterator[bytes]:
    """Per IPv4 address a gratuitous ARP request and reply (neighbours differ in which they believe), per IPv6 address
    an unsolicited neighbour advertisement with the override flag."""
    source = bytes.fromhex(mac.replace(":", ""))
    for address in map(ip_interface, addresses):
        if isinstance(address, IPv4Interface):
            for operation in (1, 2):
                yield _arp(source, address.ip.packed, operation)
        else:
            yield _advertisement(source, address.ip)


def _arp(source: bytes, address: bytes, operation: int) -> bytes:
    ethernet = b"\xff" * 6 + source + b"\x08\x06"
    target = b"\xff" * 6 if operation == 2 else b"\x00" * 6
    return ethernet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + source + address + target + address


def _advertisement(source: bytes, address: IPv6Address) -> bytes:
    everyone = IPv6Address("ff02::1").packed
    option = b"\x02\x01" + source
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address.packed + option
    checksum = _checksum(address.packed + everyone + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + address.packed + everyone
    return b"\x33\x33\x00\x00\x00\x01" + source + b"\x86\xdd" + header + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


# --- namespaces -------------------------------------------------------------------------------------------------------


def _aside(work: Callable[[], _T]) -> _T:
    """Do it in a thread of its own, which may change its namespace since it ends afterwards."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def inside(netns: Path, work: Callable[[], _T]) -> _T:
    """Do it in a thread of its own in this namespace, and wait for it."""

    def body() -> _T:
        with _opened(netns) as number:
            syscalls.setns(number, syscalls.CLONE_NEWNET)
        return work()

    return _aside(body)


@contextmanager
def _routing(netns: Path) -> Iterator[IPRoute]:
    """A netlink socket in the namespace."""
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    number = inside(netns, lambda: socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE).detach())
    with IPRoute(fileno=number) as route:
        yield route


def _make_netns(netns: Path) -> None:
    netns.parent.mkdir(parents=True, exist_ok=True)
    netns.touch(mode=0o600)

    def body() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        # What eth0 will inherit. Addresses are those of cluster.yaml only; rule 5 also for the link-local one.
        for key in ("accept_dad", "autoconf"):
            _set(_SYSCTL / "default" / key, 0)
        syscalls.mount("/proc/thread-self/ns/net", netns, None, syscalls.MS_BIND)

    _aside(body)
    with _routing(netns) as route:
        route.link("set", index=1, state="up")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def _mounted(netns: Path) -> bool:
    try:
        return netns.stat().st_dev != netns.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _set(key: Path, value: int) -> None:
    with suppress(FileNotFoundError):  # a kernel without IPv6
        key.write_text(str(value))


# --- links and addresses ----------------------------------------------------------------------------------------------


def _carrier(host: IPRoute, name: str, network: Network) -> int:
    """The index of the host's device or bridge."""
    wanted, kind = (network.device, "device") if network.device else (network.bridge, "bridge")
    index = _index(host, wanted) if wanted else None
    if index is not None:
        if network.bridge and host.get_links(index)[0].get(("linkinfo", "kind")) != "bridge":
            raise Refused(f"{name}: {wanted} is no bridge", hint=f"write `network: {{device: {wanted}}}` for a macvlan")
        return index
    there = sorted({link.get("ifname") for link in host.get_links()} - {"lo"})
    there = [link for link in there if not link.startswith(PORTS)]
    raise Refused(
        f"{name}: this host has no {kind} {wanted}",
        hint=f"set `network` of this host in cluster.yaml; it has {', '.join(there) or 'no device at all'}",
    )


def _make_link(host: IPRoute, carrier: int, name: str, network: Network, netns: Path) -> None:
    with _opened(netns) as number:
        if network.device:
            _make_macvlan(host, carrier, name, number)
        else:
            _make_port(host, carrier, name, number)


def _make_macvlan(host: IPRoute, carrier: int, name: str, netns: int) -> None:
    made = {"kind": "macvlan", "ifname": LINK, "address": mac_of(name), "net_ns_fd": netns}
    host.link("add", **made, link=carrier, macvlan_mode="bridge")


def _make_port(host: IPRoute, bridge: int, name: str, netns: int) -> None:
    port = port_of(name)
    host.link("add", kind="veth", ifname=port, peer={"ifname": LINK, "address": mac_of(name), "net_ns_fd": netns})
    _set(_SYSCTL / port / "addr_gen_mode", _NO_LINK_LOCAL)
    host.link("set", index=_index(host, port), master=bridge, state="up")


def _wait_until(true: Callable[[], bool]) -> None:
    """What the kernel does by itself, some time after the link went up; an announcement before it would be lost."""
    deadline = time.monotonic() + SETTLE_S
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)


def _answered(route: IPRoute, record: _Record) -> bool:
    """Whether the kernel answers for the IPv6 addresses: the route to one is made after its group was joined."""
    wanted = {str(ip_interface(text).ip) for text in record.addresses if ":" in text}
    return not wanted or wanted <= {r.get("dst") for r in route.get_routes(family=socket.AF_INET6, table=_LOCAL)}


def _forwards(host: IPRoute, index: int | None) -> bool:
    return index is None or host.get_links(index)[0].get(("linkinfo", "slave_data", "state")) == _FORWARDING


def _add_addresses(netns: Path, record: _Record) -> None:
    with _routing(netns) as route:
        index = _index(route, LINK)
        assert index is not None
        _address(route, index, record)


def _raise(route: IPRoute, index: int, name: str) -> None:
    try:
        route.link("set", index=index, state="up")
    except NetlinkError as error:
        if error.code != errno.EADDRINUSE:
            raise
        raise Refused(
            f"{name}: its MAC address {mac_of(name)} is up on this host already",
            hint="kill what still runs of it here; if nothing does, its name and another's have the same hash",
        ) from error


def _address(route: IPRoute, index: int, record: _Record) -> None:
    for text in record.addresses:
        interface = ip_interface(text)
        extra = {"flags": _NODAD} if isinstance(interface, IPv6Interface) else {}
        with _already(errno.EEXIST):
            route.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **extra)


def _index(route: IPRoute, link: str) -> int | None:
    found = route.link_lookup(ifname=link)
    return int(found[0]) if found else None


def _has_link(netns: Path) -> bool:
    if not _mounted(netns):
        return False
    with _routing(netns) as route:
        return _index(route, LINK) is not None


def _delete(route: IPRoute, link: str) -> None:
    index = _index(route, link)
    if index is not None:
        with _already(errno.ENODEV):
            route.link("del", index=index)


def _announcer(netns: Path) -> socket.socket:
    """The packet socket of the namespace; a new one if the namespace is not the one that it was opened in."""
    inode = netns.stat().st_ino
    with _lock:
        known, announcer = _announcers.get(netns, (0, None))
        if announcer is None or known != inode:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            announcer = inside(netns, lambda: socket.socket(socket.AF_PACKET, kind, 0))
            _announcers[netns] = inode, announcer
    return announcer


# --- words and records ------------------------------------------------------------------------------------------------


def _checked(name: str, addresses: Sequence[str], gateway: str | None) -> tuple[str, ...]:
    try:
        if gateway is not None:
            ip_address(gateway)
        return tuple(ip_interface(address).with_prefixlen for address in addresses)
    except ValueError as error:
        raise BadInput(f"{name}: {error}", hint="write addresses like 10.0.0.101/24 or fd00::101/64") from error


def _record(name: str, run: Path) -> _Record | None:
    try:
        found: Mapping[str, object] = json.loads((run / name / "network.json").read_text())
        return _Record(**{**found, "addresses": tuple(found["addresses"])})  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prepared_record(name: str, run: Path) -> _Record:
    record = _record(name, run)
    if record is None or not _mounted(run / name / "netns"):
        raise Refused(f"{name}: its network is not prepared here", hint="start it anew")
    return record


def _write(path: Path, text: str) -> None:
    young = path.with_name(path.name + ".new")
    young.write_text(text)
    young.replace(path)


@contextmanager
def _already(code: int) -> Iterator[None]:
    """What is as it should be is no error."""
    try:
        yield
    except NetlinkError as error:
        if error.code != code:
            raise


@contextmanager
def _unless_gone(netns: Path) -> Iterator[None]:
    """A namespace that another hand has removed meanwhile is no error: a start that fails cleans up beside a `stop`."""
    try:
        yield
    except (NetlinkError, OSError):
        if _mounted(netns):
            raise


@contextmanager
def _telling(name: str) -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise FailoverError(f"{name}: its network cannot be changed: {error}") from error
