"""keepalived: VRRP on three hosts, the highest priority has the address.

A backup takes over when it has heard nothing for three advertisements and a skew that is the shorter the higher its
priority. Nobody is asked and nothing is fenced: two hosts that do not hear each other both have the address.

default   one advertisement a second
tuned     one every 0.1 s, which needs version 3 of the protocol
"""

from __future__ import annotations

from failover.lab.lab import Lab
from tests.bench import peers
from tests.bench.contender import Contender

_PRIORITIES = {"hostA": 150, "hostB": 100, "hostC": 50}
_CONFIGURATION = """\
global_defs {{
    vrrp_version {version}
}}
vrrp_instance bench {{
    interface eth0
    state BACKUP
    virtual_router_id 51
    priority {priority}
    advert_int {advert_int}
    virtual_ipaddress {{
        {address}/16
    }}
}}
"""
_BEGIN = """
mkdir -p /etc/keepalived
cat > /etc/keepalived/keepalived.conf <<'END'
{configuration}END
keepalived --vrrp >/dev/null 2>&1
"""


def _ready(lab: Lab, version: int, advert_int: float) -> str:
    scripts = {}
    for host, priority in _PRIORITIES.items():
        text = _CONFIGURATION.format(version=version, priority=priority, advert_int=advert_int, address=peers.ADDRESS)
        scripts[host] = _BEGIN.format(configuration=text)
    peers.begin(lab, scripts)
    return peers.await_owner(lab, "hostA")  # whoever began earlier gives way to it


BOTH = (
    Contender("keepalived", peers.LAB, peers.hosts, peers.URL, lambda lab, _kind: _ready(lab, 2, 1)),
    Contender("keepalived-tuned", peers.LAB, peers.hosts, peers.URL, lambda lab, _kind: _ready(lab, 3, 0.1)),
)
