"""The words of a story's events: what each takes, and an event as data. Simulator and lab go by this one table.

"cut h1 -> store"       ──▶ Event(100.0, "cut h1 -> store", "cut", links=(("h1", "store"),))
"apply {hosts: {h4: }}" ──▶ Event(…, "apply", cluster=the whole cluster that the file would then say)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from failover.model import Cluster

STORE = "store"
CLIENTS = "clients"


class Kind(StrEnum):
    """What stands after an event's word, in the words of the messages."""

    HOST = "a host"
    VSERVER = "a vserver"
    NEW_VSERVER = "the name of a new vserver"
    DURATION = "a duration"
    SIZE = "a size"
    JUMP = "a jump such as +5s or -5s"
    RATE = "a rate such as 1% or -1%"
    LINK = "a link: A B, or A -> B for one way"
    GROUP = "a group of keys in { }"


@dataclass(frozen=True)
class Event:
    """One thing that happens. `text` is what the file says; what `word` does not take is left as it is here."""

    at_s: float
    text: str
    word: str
    host: str = ""  # that of the event, or of --on
    vserver: str = ""
    links: tuple[tuple[str, str], ...] = ()  # directions, (source, target); an end is a host, STORE or CLIENTS
    length_s: float = 0.0  # how long, or by how much a clock jumps
    drift: float = 0.0  # a share: 0.01 is one second in a hundred too many
    size_bytes: int = 0
    options: tuple[str, ...] = ()  # "--accept-loss", "--confirmed", "--confirmed-off", "--on"
    cluster: Cluster | None = None  # of apply and add: the cluster as it shall be, if each before it was obeyed


@dataclass(frozen=True)
class Shape:
    """What a word takes, in order; and its options, each with what follows it (None: nothing)."""

    takes: tuple[Kind, ...] = ()
    options: Mapping[str, Kind | None] = field(default_factory=dict)


_HOST = Shape((Kind.HOST,))
_VSERVER = Shape((Kind.VSERVER,))
_HOST_FOR_A_TIME = Shape((Kind.HOST, Kind.DURATION))

FAULTS: Mapping[str, Shape] = {
    "power-off": _HOST,
    "power-on": _HOST,
    "shutdown": _HOST,
    "reboot": _HOST,
    "isolate": _HOST,
    "join": _HOST,
    "cut": Shape((Kind.LINK,)),
    "mend": Shape((Kind.LINK,)),
    "store-down": Shape(),
    "store-up": Shape(),
    "store-restart": Shape(),
    "agent-stop": _HOST,
    "agent-start": _HOST,
    "agent-restart": _HOST,
    "agent-hang": _HOST_FOR_A_TIME,
    "guard-stop": _HOST,
    "guard-hang": _HOST_FOR_A_TIME,
    "leader-stop": Shape(),
    "leader-hang": Shape((Kind.DURATION,)),
    "stall": _HOST_FOR_A_TIME,
    "clock": Shape((Kind.HOST, Kind.JUMP)),
    "drift": Shape((Kind.HOST, Kind.RATE)),
    "disk-full": _HOST,
    "disk-free": _HOST,
    "disk-error": _HOST,
    "crash": _VSERVER,
    "check-fails": Shape((Kind.VSERVER, Kind.DURATION)),
    "write": Shape((Kind.VSERVER, Kind.SIZE)),
    "by-hand": Shape((Kind.VSERVER, Kind.HOST)),
    "stop-by-hand": _VSERVER,
}

COMMANDS: Mapping[str, Shape] = {
    "move": Shape((Kind.VSERVER, Kind.HOST)),
    "takeover": Shape((Kind.HOST,), {"--confirmed-off": None}),
    "failback": _VSERVER,
    "start": Shape((Kind.VSERVER,), {"--on": Kind.HOST, "--accept-loss": None}),
    "stop": _VSERVER,
    "restart": _VSERVER,
    "ignore": _VSERVER,
    "remove": _VSERVER,
    "clear": _VSERVER,
    "drain": _HOST,
    "undrain": _HOST,
    "disarm": Shape(),
    "arm": Shape(),
    "fence": Shape((Kind.HOST,), {"--confirmed": None}),
    "add": Shape((Kind.NEW_VSERVER, Kind.GROUP)),
    "apply": Shape((Kind.GROUP,)),
}

WORDS: Mapping[str, Shape] = {**FAULTS, **COMMANDS}
