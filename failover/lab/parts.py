"""Which part a host of a lab has besides running vservers: it leads, has ZooKeeper's leader, or rests on grants."""

from __future__ import annotations

from failover.lab import sample
from failover.lab.lab import Lab
from failover.lab.network import STORE_PORT
from failover.lab.place import CLIENT, CONTROL

CALM_WITHIN_S = 300.0  # a boot is trouble, and who had trouble again and again waits for a minute of calm


def zookeeper_leader(lab: Lab) -> str:
    """The host of ZooKeeper's own leader; empty: nobody says that he is it."""
    for host in lab.servers:
        address = lab.host(host).addresses[0].partition("/")[0]
        said = lab.exec(CLIENT, ["sh", "-c", f"echo srvr | busybox nc {address} {STORE_PORT}"]).stdout
        if b"Mode: leader" in said:
            return host
    return ""


def have_another_lead(lab: Lab, but: str) -> str:
    """Have any other host lead than this one; returns it."""
    sample.await_("leader", lambda: sample.status(lab, lab.operator)["leader"])
    if sample.status(lab, lab.operator)["leader"] == but:
        lab.exec(but, ["sh", "-c", f"kill $(cat {CONTROL / 'leader'}.pid)"])
        sample.await_("other leader", lambda: sample.status(lab, lab.operator)["leader"] not in (but, None))
    return str(sample.status(lab, lab.operator)["leader"])


def await_grants(lab: Lab, *names: str, within_s: float = CALM_WITHIN_S) -> None:
    """Wait until the leases of these hosts, or of all, rest on grants. Raises Unreachable."""

    def all_rest() -> bool:
        hosts = sample.status(lab, lab.operator)["hosts"]
        return all((hosts[name]["lease"] or {}).get("rests_on") == "grants" for name in names or lab.real_hosts)

    sample.await_("leases on grants", all_rest, within_s)
