"""The lab's network: a bridge in a network namespace of the lab's own, with one port per host, named like the host.

      hostA            hostB            client
     eth0 │           eth0 │           eth0 │
    ══════╪════════════════╪════════════════╪═════  the switch: bridge `br0`, ports hostA, hostB, client

    isolate h        the port goes down, also of the next boot: both ends lose the carrier
    cut a b          frames from port to port are dropped: the nftables set `cuts` in the switch
    cut h store      the host's own packets to or from port 2181 are dropped in the host, the local server's included

Rule: the set `cuts` is the only record of what is cut; `cut h store` is noted there too, and made again at power-on.
"""

from __future__ import annotations

import json
from pathlib import Path

from agents.command import CommandFailed, run
from failover.errors import FailoverError

STORE = "store"
STORE_PORT = 2181
_RULES = """
table bridge lab {
    set cuts { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0
        iifname . oifname @cuts drop
    }
}
"""
_NO_IPV6 = "for scope in all default; do echo 1 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6; done"


class Switch:
    def __init__(self, namespace: Path) -> None:
        self.namespace = namespace

    def make(self) -> None:
        self.namespace.touch()
        run(["unshare", f"--net={self.namespace}", "true"], timeout_s=10)
        self._inside("sh", "-c", _NO_IPV6)
        self._ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up")
        self._nft(_RULES)

    @property
    def exists(self) -> bool:
        """Mounted, not merely the file on which it was."""
        try:
            return self.namespace.stat().st_dev != self.namespace.parent.stat().st_dev
        except FileNotFoundError:
            return False

    def ports(self) -> dict[str, bool]:
        """Each port that is there, and whether it is up."""
        links = json.loads(self._inside("ip", "-json", "link", "show", "type", "veth"))
        return {link["ifname"]: "UP" in link["flags"] for link in links if link}

    def unplug(self, port: str) -> None:
        """Take away the port of a host that has no power; one that went with its host is no error."""
        try:
            self._ip(f"link del {port}")
        except CommandFailed:
            if port in self.ports():
                raise

    def set_port(self, port: str, up: bool) -> None:
        self._ip(f"link set {port} {'up' if up else 'down'}")

    def cuts(self) -> set[tuple[str, str]]:
        listing = json.loads(self._inside("nft", "-j", "list", "set", "bridge", "lab", "cuts"))["nftables"]
        elements = next(entry["set"] for entry in listing if "set" in entry).get("elem", [])
        return {(element["concat"][0], element["concat"][1]) for element in elements}

    def cut(self, source: str, target: str) -> None:
        self._nft(f'add element bridge lab cuts {{ "{source}" . "{target}" }}')

    def mend(self, source: str, target: str) -> None:
        if (source, target) in self.cuts():
            self._nft(f'delete element bridge lab cuts {{ "{source}" . "{target}" }}')

    def _ip(self, *lines: str) -> None:
        self._inside("ip", "-batch", "-", stdin="\n".join(lines))

    def _nft(self, script: str) -> None:
        self._inside("nft", "-f", "-", stdin=script + "\n")

    def _inside(self, *argv: str, stdin: str = "") -> bytes:
        if not self.exists:
            raise FailoverError("the lab's switch is gone", hint="failover lab down, then failover lab up")
        return run(["nsenter", f"--net={self.namespace}", *argv], timeout_s=10, stdin=stdin.encode()).stdout


def store_rules(cuts: set[tuple[str, str]], host: str) -> str:
    """What nftables is told inside a host: the store's client port as the switch's record wants it."""
    drops = []
    if (host, STORE) in cuts:
        drops.append(f"chain to {{ type filter hook output priority 0; tcp dport {STORE_PORT} drop; }}")
    if (STORE, host) in cuts:
        drops.append(f"chain from {{ type filter hook input priority 0; tcp sport {STORE_PORT} drop; }}")
    fresh = "table inet failover-lab {}\ndelete table inet failover-lab\n"
    return fresh + ("table inet failover-lab {\n" + "\n".join(drops) + "\n}\n" if drops else "")


def mac(address: str) -> str:
    """The hardware address that a host keeps over its boots, from its first address: "10.77.0.1/16"."""
    return "02:00:" + ":".join(f"{int(byte):02x}" for byte in address.partition("/")[0].split("."))


def link_commands(host: str, switch: Path, addresses: tuple[str, ...], *, plugged: bool) -> list[list[str]]:
    """What a booting host runs in its own network namespace while it still sees the machine's files."""
    pair = ["type", "veth", "peer", "name", host, "netns", str(switch)]
    adds = [["ip", "addr", "add", address, "dev", "eth0"] for address in addresses]
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "eth0", "address", mac(addresses[0]), *pair],
        *[[*add, "nodad"] if ":" in add[3] else add for add in adds],
        ["ip", "link", "set", "eth0", "up"],
        ["nsenter", f"--net={switch}", "ip", "link", "set", host, "master", "br0", "up" if plugged else "down"],
    ]
