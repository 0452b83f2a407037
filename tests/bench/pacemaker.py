"""Pacemaker with corosync: three hosts with a quorum, the address is one resource (IPaddr2).

Fencing is off, as there is nothing to fence with: without it Pacemaker takes over as soon as corosync has a new
membership, and proves no more than that. With a real fence device its answer would be waited for.

default   corosync's token: 3 s, and 0.65 s for the third host; all else as it comes
tuned     a token of 0.3 s and a consensus of 1.2 tokens, the least that corosync accepts; nothing is added per host

Neither systemd nor root's full powers are needed: corosync does without real-time priority and locked memory where it
may not have them, and it stays in the cgroup of its host, whose end is the power cut.
"""

from __future__ import annotations

from failover.lab import sample
from failover.lab.lab import Lab
from tests.bench import peers
from tests.bench.contender import LEADER, PLAIN, Contender

_TUNED = """
    token: 300
    token_coefficient: 0
    consensus: 360"""

_COROSYNC = """\
totem {{
    version: 2
    cluster_name: bench
    transport: knet
    crypto_cipher: none
    crypto_hash: none{totem}
}}
system {{
    move_to_root_cgroup: no
}}
logging {{
    to_syslog: no
    to_logfile: yes
    logfile: /var/log/corosync.log
}}
quorum {{
    provider: corosync_votequorum
}}
nodelist {{
{members}}}
"""
_MEMBER = """\
    node {{
        name: {host}
        nodeid: {number}
        ring0_addr: {address}
    }}
"""
_CIB = f"""\
<cib admin_epoch="1" epoch="0" num_updates="0" validate-with="pacemaker-3.9">
  <configuration>
    <crm_config>
      <cluster_property_set id="options">
        <nvpair id="fencing" name="stonith-enabled" value="false"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources>
      <primitive id="address" class="ocf" provider="heartbeat" type="IPaddr2">
        <instance_attributes id="address-attributes">
          <nvpair id="ip" name="ip" value="{peers.ADDRESS}"/>
          <nvpair id="prefix" name="cidr_netmask" value="16"/>
        </instance_attributes>
        <operations>
          <op id="address-monitor" name="monitor" interval="10s"/>
        </operations>
      </primitive>
    </resources>
    <constraints/>
  </configuration>
  <status/>
</cib>
"""
# The users and directories are those that the packages' own scripts would make.
_BEGIN = """
getent group haclient >/dev/null || echo haclient:x:189: >> /etc/group
getent passwd hacluster >/dev/null || echo hacluster:x:189:189::/var/lib/pacemaker:/bin/false >> /etc/passwd
rm -rf /var/lib/pacemaker /var/lib/corosync
mkdir -p /etc/corosync /var/lib/corosync
for part in lib/pacemaker lib/pacemaker/cib lib/pacemaker/pengine lib/pacemaker/cores lib/pacemaker/blackbox \
            log/pacemaker log/pacemaker/bundles
do
    install -d -o hacluster -g haclient -m 770 /var/$part
done
cat > /etc/corosync/corosync.conf <<'END'
{corosync}END
cat > /var/lib/pacemaker/cib/cib.xml <<'END'
{cib}END
chown hacluster:haclient /var/lib/pacemaker/cib/cib.xml
chmod 600 /var/lib/pacemaker/cib/cib.xml
corosync >/dev/null 2>&1
pacemakerd >/dev/null 2>&1 &
"""


def _ready(lab: Lab, kind: str, totem: str) -> str:
    members = "".join(
        _MEMBER.format(host=host, number=number, address=address)
        for number, (host, address) in enumerate(peers.HOSTS.items(), start=1)
    )
    begin = _BEGIN.format(corosync=_COROSYNC.format(totem=totem, members=members), cib=_CIB)
    peers.begin(lab, dict.fromkeys(peers.HOSTS, begin))
    asked = peers.await_owner(lab)
    _await_settled(lab, asked)
    leader = _leader(lab)
    owner = leader if kind == LEADER else next(host for host in peers.HOSTS if host != leader)
    if owner != asked:
        lab.exec(asked, ["crm_resource", "--resource", "address", "--move", "--node", owner], timeout_s=60)
        _await_settled(lab, asked)
    return peers.await_owner(lab, owner)


def _await_settled(lab: Lab, ask: str) -> None:
    sample.await_("settled cluster", lambda: lab.exec(ask, ["crm_resource", "--wait"], timeout_s=60))


def _leader(lab: Lab) -> str:
    """The designated controller, "Current DC: hostB (version …": it decides, and a new one is elected first."""
    said = lab.exec("hostA", ["crm_mon", "--one-shot", "--include=none,dc"]).stdout.decode()
    return next((host for host in peers.HOSTS if f"Current DC: {host} " in said), "")


BOTH = (
    Contender("pacemaker", peers.LAB, peers.hosts, peers.URL, lambda lab, kind: _ready(lab, kind, ""), (PLAIN, LEADER)),
    Contender(
        "pacemaker-tuned",
        peers.LAB,
        peers.hosts,
        peers.URL,
        lambda lab, kind: _ready(lab, kind, _TUNED),
        (PLAIN, LEADER),
    ),
)
