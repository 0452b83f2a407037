"""The network fence: nftables rules under which vservers' frames leave the host only while their lease runs.

    device: eth0   table netdev, egress of eth0           (the macvlans' frames)
    bridge: br0    table bridge, prerouting, ports `vs*`  (whatever comes out of a vserver's port)

    set fenced: 02:fa:10:5e:11:03                          every vserver under the lease; others are nobody's business
    set held:   02:fa:10:5e:11:03 timeout 1800ms           its time; each renewal sets it anew
    rule:       the source is in `fenced` and not in `held` → drop         ARP and neighbour discovery included

Rule 1: nobody needs to be awake for the fence to close: the kernel lets each element lapse.
Rule 2: a change is one transaction: the fence is never open for a moment because it is laid anew.
Rule 3: the text is pure; `apply` alone touches the kernel.

An element's time runs from when the kernel has it, in ticks of up to 10 ms; so it is shortened by `SLACK_S`, and a
change that took longer must be made again. The kernel counts on a clock that stands still while the machine sleeps; the
guard closes the fence when it wakes.
A vserver that may send raw frames under a foreign MAC (CAP_NET_RAW, CAP_NET_ADMIN) can pass the fence of a device, not
that of a bridge; frozen, it sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agents.nftables import Nftables
from failover.model import Network

PREFIX = "02:fa:10:"  # of every vserver's MAC address: locally administered
PORTS = "vs"  # of every vserver's port on a bridge
SLACK_S = 0.1

_TABLE = "failover"
_SET, _ALL = "held", "fenced"
_NFTABLES = Nftables()


def laid(
    network: Network, held: Mapping[str, float], *, fenced: Iterable[str] = (), before: Network | None = None
) -> str:
    """The whole fence, in place of what there was (of `before`, too); `held`: seconds left for each MAC address;
    `fenced`: those that have none left."""
    family = _family(network)
    old = {family} if before is None else {family, _family(before)}
    lines = [f"{verb} table {name} {_TABLE}" for name in sorted(old) for verb in ("add", "delete")]
    lines += [
        f"add table {family} {_TABLE}",
        f"add set {family} {_TABLE} {_SET} {{ type ether_addr; flags timeout; }}",
        f"add set {family} {_TABLE} {_ALL} {{ type ether_addr; }}",
        f"add chain {family} {_TABLE} vservers {{ type filter {_hook(network)}; policy accept; }}",
        f"add rule {family} {_TABLE} vservers {_from_vserver(network)}ether saddr @{_ALL} ether saddr != @{_SET} drop",
        *_fenced(family, {*held, *fenced}),
        *_added(family, held),
    ]
    return "\n".join(lines) + "\n"


def refreshed(network: Network, held: Mapping[str, float]) -> str:
    """New times for elements: adding alone would leave the old time on kernels before 6.12, hence the deletion."""
    family = _family(network)
    lines = [*_added(family, held), *_deleted(family, _lasting(held)), *_added(family, held)]
    return "\n".join(lines) + "\n"


def closed(network: Network, addresses: Iterable[str]) -> str:
    """The fence closed at once for these MAC addresses, whether they have an element or not."""
    family, held = _family(network), dict.fromkeys(addresses, 1.0)
    return "\n".join([*_added(family, held), *_deleted(family, held)]) + "\n"


def removed(network: Network) -> str:
    family = _family(network)
    return f"add table {family} {_TABLE}\ndelete table {family} {_TABLE}\n"


def apply(text: str, *, timeout_s: float = 1.0) -> None:
    """One transaction: all of it or, with FailoverError, nothing; when it took longer, nobody knows (nftables.py)."""
    if text.strip():
        _NFTABLES.apply(text, timeout_s=timeout_s)


def _family(network: Network) -> str:
    return "netdev" if network.device else "bridge"


def _hook(network: Network) -> str:
    if network.device:
        return f'hook egress device "{network.device}" priority 0'
    return "hook prerouting priority -300"


def _from_vserver(network: Network) -> str:
    return "" if network.device else f'iifname "{PORTS}*" '


def _lasting(held: Mapping[str, float]) -> dict[str, int]:
    """In milliseconds, without what has no time left."""
    times = {address: int((left_s - SLACK_S) * 1000) for address, left_s in sorted(held.items())}
    return {address: time_ms for address, time_ms in times.items() if time_ms > 0}


def _added(family: str, held: Mapping[str, float]) -> list[str]:
    elements = [f"{address} timeout {time_ms}ms" for address, time_ms in _lasting(held).items()]
    return [f"add element {family} {_TABLE} {_SET} {{ {', '.join(elements)} }}"] if elements else []


def _fenced(family: str, addresses: Iterable[str]) -> list[str]:
    elements = ", ".join(sorted(addresses))
    return [f"add element {family} {_TABLE} {_ALL} {{ {elements} }}"] if elements else []


def _deleted(family: str, addresses: Iterable[str]) -> list[str]:
    elements = ", ".join(sorted(addresses))
    return [f"delete element {family} {_TABLE} {_SET} {{ {elements} }}"] if elements else []
