"""The schema of a story file as data. Its `cluster:` has the schema of cluster.yaml and is read by that."""

from __future__ import annotations

import re

from failover.config import words
from failover.config.problem import Misread, nearest, quoted
from failover.config.schema import COUNT, DURATION, HOST, LINE, NAME, VSERVER, Either, List, OneOf, Record, Table, Word

STATES_ON_A_HOST = ("started", "stopped", "error", "frozen", "ignored")
STATES = (*STATES_ON_A_HOST, "waiting", "removed")
YES = ("true", "yes", "on")
NO = ("false", "no", "off")
NO_REPLICA = "none"

_FORBID = {  # word -> what follows it, and how that is written
    "any_move_of": ("v", "VSERVER"),
    "start": ("v@h", "VSERVER@HOST"),
    "stop": ("v@h", "VSERVER@HOST"),
    "takeover_of": ("h", "HOST"),
    "run_before_fenced": ("", ""),
}


def state(text: str) -> tuple[str, str]:
    """started@h1 -> (started, h1); waiting -> (waiting, "")"""
    word, at, host = text.partition("@")
    if word not in STATES:
        raise Misread(f"{quoted(word)} is not a state", nearest(word, STATES))
    if word in STATES_ON_A_HOST and not host:
        raise Misread(f"{quoted(text)} says not on which host", f"as in {word}@h1")
    if at and word not in STATES_ON_A_HOST:
        raise Misread(f"{quoted(text)} names a host", f"write {word} alone")
    return word, words.name(host) if host else ""


def pattern(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise Misread(f"{quoted(text)} is no regular expression: {error}", "write \\ before ( [ { . * + ? |") from None
    return text


def forbidden(text: str) -> tuple[str, ...]:
    """start vA@h1 -> (start, vA, h1); any_move_of vA -> (any_move_of, vA)"""
    word, *rest = text.split()
    if word not in _FORBID:
        raise Misread(f"{quoted(word)} cannot be forbidden", nearest(word, tuple(_FORBID)))
    shape, written = _FORBID[word]
    parts = [part for text in rest for part in (text.split("@") if "@" in shape else [text])]
    if len(rest) != bool(shape) or len(parts) != len(shape.split("@")) * bool(shape) or not all(parts):
        raise Misread(f"{quoted(text)} is not complete or says too much", f"write {word} {written}".rstrip())
    return word, *parts


_YES_NO = OneOf((*YES, *NO))

STORY = Record(
    {
        "id": NAME,
        "title": LINE,
        "cluster": Word("a cluster", words.line),  # only that it is there; its tree is taken out before
        "traits": Table(
            VSERVER,
            Record(
                {
                    "fails_start": COUNT,
                    "fails_start_on": List(HOST),
                    "fails_stop": _YES_NO,
                    "fails_freeze": _YES_NO,
                    "fails_move": COUNT,
                    "hangs": _YES_NO,
                }
            ),
        ),
        "initial": Record(
            {
                "power": Either(OneOf(("all_on", "all_off")), Table(HOST, OneOf(("on", "off")))),
                "owners": Table(VSERVER, HOST),
                "running": Table(VSERVER, List(HOST)),
                "replica_age": Table(VSERVER, Table(HOST, OneOf((NO_REPLICA,), DURATION))),
                "down_cleanly": List(HOST),
                "recovering": List(VSERVER),
                "watchdog": List(HOST),
            }
        ),
        "events": List(
            Record(
                {"at": DURATION, "do": List(Word("an event", words.line), least=1)},
                required={"at": "the time from the start, as in at: 100s", "do": "as in do: isolate h1"},
            )
        ),
        "until": DURATION,
        "expect": Record(
            {
                "final": Table(VSERVER, List(Word("a state", state), least=1)),
                "fenced": List(HOST),
                "moves": List(
                    Record(
                        {"vserver": VSERVER, "from": HOST, "to": HOST, "kind": OneOf(("takeover", "planned"))},
                        required={
                            "vserver": "name what moves",
                            "from": "name a host",
                            "to": "name a host",
                            "kind": "takeover or planned",
                        },
                    )
                ),
                "rejected": COUNT,
                "says": List(Word("a regular expression", pattern)),
            }
        ),
        "forbid": List(Word("what must not happen", forbidden)),
    },
    required={
        "id": "name what happens, as in id: owner-isolated",
        "cluster": "name its hosts and vservers, as in cluster: {hosts: {h1: {}}, vservers: {…}}",
        "until": "say when the story ends, as in until: 700s",
    },
)
