"""The single words of cluster.yaml: names, addresses, files, numbers. Each function reads one kind or raises Misread.

Rule: what is returned is in its normal form, so that two spellings of one address are equal.
"""

from __future__ import annotations

import ipaddress
import re

from failover.config import units
from failover.config.problem import Misread, quoted
from failover.model import NAME

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_DEVICE = re.compile(r"[^\s/:]{1,15}")
_CRON_FIELD = r"[0-9A-Za-z*,/-]+"
_CRON = re.compile(rf"{_CRON_FIELD}(\s+{_CRON_FIELD}){{4}}")
_FENCE_AGENT = re.compile(r"fence_[a-z0-9][a-z0-9_-]{0,50}")
_FENCE_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}")
_NO_POWER = (  # they keep a host from its disks or its network, ask it, or do nothing
    "ack_manual", "brocade", "cisco_mds", "compute", "dummy", "evacuate", "heuristics_ping", "ifmib", "kdump", "mpath",
    "sanbox2", "scsi",
)  # fmt: skip
_URL = re.compile(r"https?://[^\s/?#]+([/?#]\S*)?")
_MAIL = re.compile(r"[^\s@]+@[^\s@]+")
_ZOOKEEPER_PORT = 2181
_SMTP_PORT = 25


def name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise Misread(
            f"{quoted(text)} is not a name",
            "up to 63 letters, digits, '_', '-' and single dots, the first a letter or a digit",
        )
    return text


def fence_agent(text: str) -> str:
    """The name of a program of Debian's fence-agents that cuts the power."""
    if not _FENCE_AGENT.fullmatch(text):
        raise Misread(f"{quoted(text)} is not the name of a fence agent", "without its directory, as in fence_ipmilan")
    if text.removeprefix("fence_") in _NO_POWER:
        raise Misread(f"{text} does not cut the power", "so it proves nothing; name one that does, as in fence_ipmilan")
    return text


def fence_option(text: str) -> str:
    if not _FENCE_OPTION.fullmatch(text):
        raise Misread(f"{quoted(text)} is not the name of an option", "letters, digits, '_' and '-', as in ip")
    if text == "action":
        raise Misread("the action is not yours to choose", "leave it out: it is off, and then status")
    return text


def line(text: str) -> str:
    """Any text on one line."""
    if not text.strip() or not text.isprintable():
        raise Misread(f"{quoted(text)} is not a line of text" if text.strip() else "is empty", "write one line of text")
    return text


def path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise Misread(f"{quoted(text)} is not a full path", "begin it with /")
    return text


def pattern(text: str) -> str:
    """What a sync leaves out: a path from the root of the vserver, or rsync's pattern for one."""
    line(text)
    if text.startswith(("+ ", "- ", "!")):
        raise Misread(f"{quoted(text)} is a filter rule of rsync", "write the path alone, as in /var/cache")
    if not text.strip("/*"):
        raise Misread(f"{quoted(text)} leaves everything out", "name what is not needed, as in /var/cache")
    return text


def device(text: str) -> str:
    """A network device: the kernel's rules for its name."""
    if not _DEVICE.fullmatch(text) or text in (".", "..") or not text.isprintable():
        raise Misread(f"{quoted(text)} is not the name of a network device", "at most 15 characters, as in eth0")
    return text


def address(text: str) -> str:
    """An IP address that a machine can have."""
    if "/" in text:
        raise Misread(f"{quoted(text)} has a prefix length", f"did you mean {text.partition('/')[0]}?")
    return str(_reachable(_ip(text), text))


def cidr(text: str) -> str:
    """An address with the prefix length of its network: 10.0.0.101/24."""
    bare, slash, length = text.partition("/")
    ip = _ip(bare)
    if not slash:
        raise Misread(f"{quoted(text)} has no prefix length", f"did you mean {text}/{24 if ip.version == 4 else 64}?")
    if not (length.isascii() and length.isdigit()) or int(length[:4]) > ip.max_prefixlen:
        most = ip.max_prefixlen
        raise Misread(f"{quoted(text)} has no valid prefix length", f"a number up to {most}, as in {bare}/{most - 8}")
    if _reachable(ip, text).is_loopback:
        raise Misread(f"{quoted(text)} can only be reached from the vserver itself")
    interface = ipaddress.ip_interface(f"{ip}/{int(length)}")
    network = interface.network
    if network.num_addresses > 2 and ip == network.network_address:
        raise Misread(f"{quoted(text)} is the address of the network itself", f"choose another one in {network}")
    if ip.version == 4 and network.num_addresses > 2 and ip == network.broadcast_address:
        raise Misread(f"{quoted(text)} is the broadcast address of its network", f"choose another one in {network}")
    return str(interface)


def server(text: str) -> str:
    """A ZooKeeper server: 10.0.0.1:2181; the port may be left out."""
    return _host_port(text, _ZOOKEEPER_PORT, "10.0.0.1:2181")


def smtp(text: str) -> str:
    return _host_port(text, _SMTP_PORT, "mail.example.com:25")


def port(text: str) -> int:
    return whole(text, 1, 65535)


def status(text: str) -> int:
    """An HTTP status."""
    return whole(text, 100, 599)


def count(text: str) -> int:
    return whole(text, 0, 10**9)


def some(text: str) -> int:
    return whole(text, 1, 10**9)


def whole(text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"-?[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise Misread(f"{quoted(text)} is not a whole number from {least} to {most}")
    return int(text)


def cpus(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) or float(text) <= 0:
        raise Misread(f"{quoted(text)} is not a number of processors", "as in 2 or 0.5")
    return float(text)


def share(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,6})?%", text):
        raise Misread(f"{quoted(text)} is not a share", "as in 1%")
    return float(text[:-1]) / 100


def every(text: str) -> float | str:
    """The pause between two rounds: a duration in seconds, or a cron line as it stands."""
    if " " not in text.strip():
        return units.some_duration(text)
    if not _CRON.fullmatch(text):
        raise Misread(f"{quoted(text)} is not a cron line", "five fields, as in '0 3 * * *'")
    return text


def url(text: str) -> str:
    if not _URL.fullmatch(text) or not text.isprintable():
        raise Misread(f"{quoted(text)} is not a web address", "begin it with http:// or https://")
    return text


def mail(text: str) -> str:
    if not _MAIL.fullmatch(text) or not text.isprintable():
        raise Misread(f"{quoted(text)} is not a mail address", "as in ops@example.com")
    return text


def _ip(text: str) -> IP:
    if "%" in text:
        raise Misread(f"{quoted(text)} names a network device", f"did you mean {text.partition('%')[0]}?")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        hint = "four numbers up to 255 without leading zeros, as in 10.0.0.1, or IPv6 as in fd00::1"
        raise Misread(f"{quoted(text)} is not an IP address", hint) from None


def _reachable(ip: IP, text: str) -> IP:
    """Refuse what no other machine could ever send to."""
    if ip.version == 6 and ip.ipv4_mapped:
        raise Misread(f"{quoted(text)} is an IPv4 address in IPv6 dress", f"did you mean {ip.ipv4_mapped}?")
    if ip.is_multicast or ip.is_unspecified or ip == ipaddress.IPv4Address("255.255.255.255"):
        raise Misread(f"{quoted(text)} is not the address of one machine")
    return ip


def _host_port(text: str, usual: int, example: str) -> str:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\s]*)(?::(.*))?", text)
    if not match:
        raise Misread(f"{quoted(text)} is not a host with its port", f"as in {example}, an IPv6 address in brackets")
    host = match[1]
    if host.startswith("["):
        host = f"[{_reachable(_ip(host[1:-1]), host)}]"
    elif re.fullmatch(r"[0-9.]+", host):
        host = str(_reachable(_ip(host), host))
    elif not _HOST_NAME.fullmatch(host):
        raise Misread(f"{quoted(host)} is neither an address nor the name of a host", f"as in {example}")
    return f"{host}:{port(match[2]) if match[2] is not None else usual}"
