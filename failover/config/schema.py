"""The whole schema of cluster.yaml as data, and the list of what is not built yet.

Rule 1: a key that the schema does not know is a problem. A key that it knows but whose function is not built is refused
        by NOT_YET, never silently ignored. When a function comes, its line in NOT_YET goes. (A story is played the same
        without most of them: there they may stand.)
Rule 2: a short form stands where the long form has one obvious value: one word for a list of one, and for a Record with
        `short` the word of that key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from failover.config import units, words
from failover.model import Placement, Want
from failover.timing import PROFILES


@dataclass(frozen=True)
class Word:
    """One word; `read` gives its value or raises Misread. `refers`: it must be a key of this table."""

    what: str
    read: Callable[[str], object]
    refers: str = ""


@dataclass(frozen=True)
class OneOf:
    """One of these words, or else what `other` reads."""

    choices: tuple[str, ...]
    other: Word | None = None

    @property
    def what(self) -> str:
        return " | ".join((*self.choices, self.other.what) if self.other else self.choices)


@dataclass(frozen=True)
class List:
    of: Type
    least: int = 0


@dataclass(frozen=True)
class Record:
    """Keys with a type each.

    `required`: key -> what to do when it is missing. `one_of`: exactly one of these. `only_with`: key -> the one of
    `one_of` without which it means nothing. `short`: the key whose word stands for the whole.
    """

    keys: Mapping[str, Type]
    required: Mapping[str, str] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    only_with: Mapping[str, str] = field(default_factory=dict)
    short: str = ""


@dataclass(frozen=True)
class Table:
    """Names that the operator chooses, with a value of one type each."""

    name: Word
    of: Type


@dataclass(frozen=True)
class Either:
    """A word, or a list or group in its place."""

    word: OneOf | Word
    group: Record | List | Table


Type = Word | OneOf | List | Record | Table | Either


DURATION = Word("a duration", units.duration)
SOME_DURATION = Word("a duration", units.some_duration)
SIZE = Word("a size", units.size)
RATE = Word("a rate", units.rate)
COUNT = Word("a number", words.count)
SOME = Word("a number", words.some)
NAME = Word("a name", words.name)
LINE = Word("text", words.line)
PATH = Word("a full path", words.path)
HOST = Word("a host", words.name, refers="hosts")
VSERVER = Word("a vserver", words.name, refers="vservers")

SYNC = Record(
    {
        "mode": OneOf(("rsync", "block", "shared")),
        "every": OneOf(("continuous",), Word("a duration or a cron line", words.every)),
        "window": SOME_DURATION,
        "bandwidth": RATE,
        "full_scan": SOME_DURATION,
        "exclude": List(Word("a path or pattern", words.pattern)),
        "snapshot": OneOf(("auto", "off")),
        "keep": Record({"generations": SOME}),
        "hooks": Record({"before": List(LINE, least=1), "after": List(LINE, least=1)}),
    },
    short="mode",
)

CHECK = Record(
    {
        "tcp": Word("a port", words.port),
        "http": Word("a web address", words.url),
        "exec": List(LINE, least=1),
        "every": SOME_DURATION,
        "timeout": SOME_DURATION,
        "fails": SOME,
        "expect": Word("an HTTP status", words.status),
        "inside": OneOf(("true", "false")),
    },
    one_of=("tcp", "http", "exec"),
    only_with={"expect": "http", "inside": "exec"},
)


def _or_time(choices: tuple[str, ...], key: str, example: str) -> Either:
    """One of these words, or a group that says how long: {wait: 5m}."""
    return Either(OneOf(choices), Record({key: DURATION}, required={key: f"as in {{{key}: {example}}}"}))


# Whether `primary` and `backups` are there is asked after `defaults` are laid under (check.py).
ANY_VSERVER = Record(
    {
        "primary": HOST,
        "backups": List(HOST),
        "addresses": List(Word("an address with prefix length", words.cidr)),
        "gateway": Word("an address", words.address),
        "want": OneOf(tuple(Want)),
        "sync": SYNC,
        "max_data_loss": DURATION,
        "when_stale": _or_time(("ask", "take"), "wait", "5m"),
        "placement": OneOf(tuple(Placement)),
        "failback": _or_time(("manual", "auto"), "auto", "5m"),
        "on_host_shutdown": _or_time(("move", "stop"), "keep", "10m"),
        "restart": Record({"local": COUNT, "moves": COUNT, "within": SOME_DURATION}),
        "priority": COUNT,
        "together_with": List(VSERVER),
        "apart_from": List(VSERVER),
        "prefer_together_with": List(VSERVER),
        "prefer_apart_from": List(VSERVER),
        "start_after": List(VSERVER),
        "needs": Record({"memory": SIZE, "cpus": Word("a number", words.cpus)}),
        "limits": Record({"processes": SOME, "disk": SIZE, "io": RATE}),
        "checks": List(CHECK),
        "conf": LINE,
    }
)

ANY_HOST = Record(
    {
        "address": Word("an address", words.address),
        "capacity": Record({"memory": SIZE, "cpus": Word("a number", words.cpus)}),
        "network": Record(
            {"device": Word("a device", words.device), "bridge": Word("a bridge", words.device)},
            one_of=("device", "bridge"),
        ),
        "fence": Record(
            {
                "agent": Word("a fence agent", words.fence_agent),
                "options": Table(Word("an option", words.fence_option), LINE),
            },
            required={"agent": "name one, as in agent: fence_ipmilan"},
        ),
        "tags": List(NAME),
    },
    required={"address": "give its IP address, as in address: 10.0.0.1"},
)

NOTIFY = Record(
    {
        "webhook": Word("a web address", words.url),
        "mail": Word("a mail address", words.mail),
        "smtp": Word("a mail server", words.smtp),
        "command": List(LINE, least=1),
        "events": List(NAME),
    },
    one_of=("webhook", "mail", "command"),
)

TIMING = Either(
    OneOf(tuple(PROFILES)),
    Record(
        {
            "session": SOME_DURATION,
            "tick": SOME_DURATION,
            "drift": Word("a share", words.share),
            "freeze": SOME_DURATION,
            "margin": SOME_DURATION,
            "renewals": SOME,
            "grant": SOME_DURATION,
            "leader_session": SOME_DURATION,
        }
    ),
)

SCHEMA = Record(
    {
        "cluster": NAME,
        "zookeeper": Record(
            {
                "servers": List(Word("a server", words.server), least=1),
                "credentials": PATH,
                "tls": Record({"ca": PATH, "certificate": PATH, "key": PATH}),
            },
            required={"servers": "as in servers: [10.0.0.1:2181]"},
        ),
        "timing": TIMING,
        "lease": OneOf(("grants", "session")),
        "notify": List(NOTIFY),
        "defaults": ANY_VSERVER,
        "hosts": Table(NAME, ANY_HOST),
        "vservers": Table(NAME, ANY_VSERVER),
    },
    required={
        "cluster": "give the cluster a name, as in cluster: prod",
        "zookeeper": "name its servers, as in zookeeper: {servers: [10.0.0.1:2181]}",
        "hosts": "name at least one, as in hosts: {hostA: {address: 10.0.0.1}}",
    },
)


def _nothing(_value: object) -> bool:
    return False


def _only(*built: object) -> Callable[[object], bool]:
    return lambda value: value in built


def _anything(_value: object) -> bool:
    return True


@dataclass(frozen=True)
class NotYet:
    """What to do instead; `built` tells the values that have a function already, `moot` those that a story may have all
    the same: what is played is the same without them."""

    instead: str
    built: Callable[[object], bool] = _nothing
    moot: Callable[[object], bool] = _nothing

    @property
    def partly(self) -> bool:
        return self.built is not _nothing


_LEAVE_OUT = NotYet("leave it out", moot=_anything)

NOT_YET: Mapping[str, NotYet] = {
    "zookeeper.tls": NotYet("leave it out, and keep ZooKeeper's ports on a trusted network", moot=_anything),
    "notify": NotYet("leave it out; `failover history` tells what happened", moot=_anything),
    "vservers.*.sync.mode": NotYet("write rsync", _only("rsync")),
    "vservers.*.sync.every": NotYet(
        "name a duration such as 5s", lambda value: isinstance(value, float), moot=_only("continuous")
    ),
    "vservers.*.sync.window": _LEAVE_OUT,
    "vservers.*.sync.full_scan": NotYet("leave it out; every sync scans the whole tree", moot=_anything),
    "vservers.*.sync.keep": _LEAVE_OUT,
    "vservers.*.sync.hooks": _LEAVE_OUT,
    "vservers.*.limits": _LEAVE_OUT,
    "vservers.*.conf": _LEAVE_OUT,
}


def patterns(kind: Type = SCHEMA, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, as in vservers.*.sync.every; `defaults` has the keys of vservers.*."""
    if isinstance(kind, Either):
        kind = kind.group
    if isinstance(kind, List):
        yield from patterns(kind.of, prefix)
    elif isinstance(kind, Table):
        yield from patterns(kind.of, f"{prefix}.*")
    elif isinstance(kind, Record):
        for key, of in kind.keys.items():
            path = f"{prefix}.{key}" if prefix else key
            yield path
            if path != "defaults":
                yield from patterns(of, path)
