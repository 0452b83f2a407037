"""The words of a story's events: what each takes, and an event as data. Simulator and lab go by this one table.

    "cut h1 -> store"          ──▶ Event(100.0, "cut h1 -> store", "cut", links=(("h1", "store"),))
    "apply {hosts: {h4: {}}}"  ──▶ Event(…, "apply"), and the text of the group for who can read YAML

Rule: a text with problems gives all of them, each with the word that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from failover.config import units, words
from failover.config.problem import Misread, nearest, quoted
from failover.model import Cluster

STORE = "store"
CLIENTS = "clients"


class Kind(StrEnum):
    """What stands after an event's word; the text shows it in the messages."""

    HOST = "HOST"
    VSERVER = "VSERVER"
    NEW_VSERVER = "NAME"
    DURATION = "5s"
    SIZE = "50M"
    JUMP = "+5s"
    DRIFT = "1%"
    LINK = "A B, or A -> B for one way"
    GROUP = "{…}"


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
    options: tuple[str, ...] = ()  # "--accept-loss", "--confirmed", "--confirmed-off", "--on", "--until"
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
    "drift": Shape((Kind.HOST, Kind.DRIFT)),
    "disk-full": _HOST,
    "disk-free": _HOST,
    "disk-error": _HOST,
    "fence-works": _HOST,
    "fence-fails": _HOST,
    "fence-hangs": _HOST,
    "fence-takes": _HOST_FOR_A_TIME,
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
    "drain": Shape((Kind.HOST,), {"--until": Kind.DURATION}),
    "undrain": _HOST,
    "disarm": Shape(),
    "arm": Shape(),
    "fence": Shape((Kind.HOST,), {"--confirmed": None, "--though-alive": None}),
    "add": Shape((Kind.NEW_VSERVER, Kind.GROUP)),
    "apply": Shape((Kind.GROUP,)),
}

WORDS: Mapping[str, Shape] = {**FAULTS, **COMMANDS}


# --- reading one event ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """What may be named. None: whoever plays the event knows, so it is not asked here."""

    hosts: Collection[str] | None = None
    vservers: Collection[str] | None = None


@dataclass(frozen=True)
class Token:
    text: str
    offset: int  # where in the event's text it begins


@dataclass(frozen=True)
class Complaint:
    about: Token
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Read:
    """`group`: the text in braces of `apply {…}`, for the reader of the file."""

    event: Event
    complaints: tuple[Complaint, ...] = ()
    group: Token | None = None


_TOKEN = re.compile(r"->|\S+?(?=->|\s|$)")


def read_event(text: str, at_s: float, names: Names) -> Read:
    head, brace, _ = text.partition("{")
    tokens = [Token(found[0], found.start()) for found in _TOKEN.finditer(head)]
    word = tokens.pop(0) if tokens else Token(text, 0)
    shape = WORDS.get(word.text)
    if shape is None:
        hint = nearest(word.text, tuple(WORDS))
        unknown = Complaint(word, f"{quoted(word.text)} is not an event that is known here", hint)
        return Read(Event(at_s, text, word.text), (unknown,))
    reading = _Reading(word.text, shape, names)
    group = Token(text[len(head) :].rstrip(), len(head)) if brace else None
    reading.take(word, tokens, group)
    return Read(Event(at_s, text, word.text, **reading.fields), tuple(reading.complaints), group)


def usage(word: str) -> str:
    """How it is written: start VSERVER [--on HOST] [--accept-loss]"""
    shape = WORDS[word]
    options = (f"[{name}{f' {kind}' if kind else ''}]" for name, kind in shape.options.items())
    return " ".join((word, *shape.takes, *options))


@dataclass
class _Reading:
    word: str
    shape: Shape
    names: Names
    fields: dict[str, Any] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)

    def take(self, word: Token, tokens: list[Token], group: Token | None) -> None:
        plain = self._options(tokens)
        kinds = [kind for kind in self.shape.takes if kind is not Kind.GROUP]
        if Kind.LINK in kinds:
            self._link(word, plain)
        else:
            for kind, token in zip(kinds, plain, strict=False):
                self._value(kind, token)
            if len(plain) < len(kinds):
                self._miscounted(word, "too few words")
            for token in plain[len(kinds) :]:
                self._miscounted(token, f"{quoted(token.text)} is one word too many")
        if (group is not None) != (Kind.GROUP in self.shape.takes):
            self._miscounted(group or word, f"{self.word} takes no group" if group else "there is no group in { }")

    def _miscounted(self, about: Token, message: str) -> None:
        self.complaints.append(Complaint(about, message, f"write {usage(self.word)}"))

    def _value(self, kind: Kind, token: Token) -> None:
        try:
            self.fields |= _READERS[kind](token.text, self.names)
        except Misread as misread:
            self.complaints.append(Complaint(token, misread.message, misread.hint))

    def _options(self, tokens: list[Token]) -> list[Token]:
        """Take the options; what is no option is handed back."""
        plain: list[Token] = []
        rest = iter(tokens)
        for token in rest:
            if not token.text.startswith("--"):
                plain.append(token)
                continue
            if token.text not in self.shape.options:
                self._unknown_option(token, rest)
                continue
            self.fields["options"] = (*self.fields.get("options", ()), token.text)
            kind = self.shape.options[token.text]
            value = next(rest, None) if kind else None
            if kind and value is None:
                self._miscounted(token, f"nothing follows {token.text}")
            elif kind and value:
                self._value(kind, value)
        return plain

    def _unknown_option(self, token: Token, rest: Iterator[Token]) -> None:
        hint = nearest(token.text, tuple(self.shape.options))
        self.complaints.append(Complaint(token, f"{self.word} has no option {token.text}", hint))
        if any(kind and hint == f"did you mean {name}?" for name, kind in self.shape.options.items()):
            next(rest, None)  # what follows it belongs to it

    def _link(self, word: Token, tokens: list[Token]) -> None:
        one_way = len(tokens) > 1 and tokens[1].text == "->"
        ends = [tokens[0], *tokens[2:]] if one_way else tokens
        if len(ends) != 2 or any(end.text == "->" for end in ends):
            self._miscounted(word, "names no link")
            return
        hosts = self.names.hosts
        for end in ends:
            try:
                known(end.text, hosts if hosts is None else (*hosts, STORE, CLIENTS), "hosts")
            except Misread as misread:
                self.complaints.append(Complaint(end, misread.message, misread.hint))
        source, target = ends[0].text, ends[1].text
        if source == target:
            self._miscounted(ends[1], "both ends are the same")
        elif {source, target} == {STORE, CLIENTS}:
            self._miscounted(ends[0], "one end must be a host")
        self.fields["links"] = ((source, target),) if one_way else ((source, target), (target, source))


def _host(text: str, names: Names) -> dict[str, Any]:
    return {"host": known(text, names.hosts, "hosts")}


def _vserver(text: str, names: Names) -> dict[str, Any]:
    return {"vserver": known(text, names.vservers, "vservers")}


def known(text: str, among: Collection[str] | None, table: str) -> str:
    if among is not None and text not in among:
        raise Misread(f"{quoted(text)} is not under {table}", nearest(text, tuple(among)))
    return text


def _jump(text: str, _names: Names) -> dict[str, Any]:
    if text[:1] not in ("+", "-"):
        raise Misread(f"{quoted(text)} says not which way", f"write +{text} or -{text}")
    return {"length_s": units.some_duration(text[1:]) * (-1 if text[0] == "-" else 1)}


def _drift(text: str, _names: Names) -> dict[str, Any]:
    sign = -1 if text.startswith("-") else 1
    return {"drift": sign * words.share(text[1:] if text[:1] in ("+", "-") else text)}


_READERS: Mapping[Kind, Callable[[str, Names], dict[str, Any]]] = {
    Kind.HOST: _host,
    Kind.VSERVER: _vserver,
    Kind.NEW_VSERVER: lambda text, _names: {"vserver": words.name(text)},
    Kind.DURATION: lambda text, _names: {"length_s": units.some_duration(text)},
    Kind.SIZE: lambda text, _names: {"size_bytes": units.size(text)},
    Kind.JUMP: _jump,
    Kind.DRIFT: _drift,
}
