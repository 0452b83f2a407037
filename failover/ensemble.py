"""One server of a ZooKeeper ensemble: its files and its command line, from Debian's package `zookeeper`.

The terms are short because the death of ZooKeeper's own leader must not cost more than a session: with ticks of 200 ms
and a syncLimit of 5 a silent leader is replaced within about 1.5 s, with ZooKeeper's defaults after more than 10 s
(measured with 3.8). Sessions of two ticks to 60 s are granted; minSessionTimeout stays out of it, for our
`apply` reads the ticks from it (failover/zookeeper/tick.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TICK_MS = 200
SYNC_LIMIT_TICKS = 5
INIT_LIMIT_TICKS = 50
SESSION_MAX_MS = 60_000

# zookeeper.jar names what it needs in its manifest, but for the two that write its log.
_JARS = ("zookeeper.jar", "slf4j-log4j12.jar", "log4j-1.2.jar")

_LOG = """\
log4j.rootLogger=WARN, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


@dataclass(frozen=True)
class Server:
    """One member of an ensemble. `number`: its id, 1 to 255, never given to another server."""

    number: int
    address: str
    client_port: int = 2181
    peer_port: int = 2888
    election_port: int = 3888

    @property
    def client(self) -> str:
        """As it stands under zookeeper.servers in cluster.yaml."""
        return f"{_bracketed(self.address)}:{self.client_port}"


def configuration(servers: Sequence[Server], number: int, data: Path) -> str:
    """The text of zoo.cfg for the server with this number."""
    own = next(server for server in servers if server.number == number)
    lines = [
        f"tickTime={TICK_MS}",
        f"initLimit={INIT_LIMIT_TICKS}",
        f"syncLimit={SYNC_LIMIT_TICKS}",
        f"maxSessionTimeout={SESSION_MAX_MS}",
        f"dataDir={data}",
        f"clientPort={own.client_port}",
        f"clientPortAddress={own.address}",
        "maxClientCnxns=0",
        "admin.enableServer=false",
        "4lw.commands.whitelist=ruok,srvr,mntr,stat",
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=1",
    ]
    if len(servers) > 1:
        lines += [
            f"server.{server.number}={_bracketed(server.address)}:{server.peer_port}:{server.election_port}"
            for server in servers
        ]
    return "\n".join(lines) + "\n"


def prepare(servers: Sequence[Server], number: int, directory: Path) -> None:
    """Write zoo.cfg, myid and the log's settings below `directory`; what the server has stored there stays."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    (directory / "zoo.cfg").write_text(configuration(servers, number, data))
    (directory / "log4j.properties").write_text(_LOG)
    (data / "myid").write_text(f"{number}\n")


def command(directory: Path, *, java: str = "java", jars: Path = Path("/usr/share/java")) -> list[str]:
    """The command line of the server that `prepare` has prepared. It stays in the foreground and logs to stdout."""
    class_path = ":".join([str(directory), *(str(jars / jar) for jar in _JARS)])
    return [
        java,
        "-Xms32m",
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Djava.awt.headless=true",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Dzookeeper.preAllocSize=4096",  # KiB; the default of 64 MiB per log file is for larger stores
        "-cp",
        class_path,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(directory / "zoo.cfg"),
    ]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
