"""The word of the lease: what the agent tells the guard on its own host, one datagram each.

    agent                                              guard
    {"until": 812.4, "vservers": {…}, "network": {…}} ──▶ fence, state, thaw
    ◀── {"held": true}                                    or {"held": false, "because": …}: the old end stands
    {"until": …, "extends": true} ──▶                     the same, but what has come to its end stays frozen
    {"until": …, "asks": {…}} ──▶                         ask the leader, and let them run by its grants (grants.py)
    {"alive": true} ──▶                                   the agent does not hang, nothing else
    ◀── {"held": …, "granted": {…}}                       each answer says what the leader has granted by now ...
    ◀── {"granted": {…}}                                  ... as does the guard by itself, at AGENT, when that is news
    ◀── (the kernel: it has ended)                        what it granted goes on to its end, and not beyond

Rule 1: `until` is CLOCK_BOOTTIME in seconds: the vservers named may run until then.
Rule 2: a word counts when it is answered. A vserver that the newest word does not name keeps its old end, unless the
        word releases it: an operator says that the manager has nothing to do with it.
Rule 3: a word that rests on the promises of other hosts only extends: it thaws nothing, and begins nothing.
Rule 4: the guard asks upon one footing, that of the newest word that names a leader; the end that a word gives may be
        earlier than the one before, for the host may be about to rest on grants.
Rule 5: what cannot be understood is refused as a whole.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from failover import wire
from failover.boot import boot_time
from failover.errors import BadInput, FailoverError
from failover.grants.protocol import Footing
from failover.model import NAME, Network, frozen_map
from failover.timing import Timing

SOCKET = Path("/run/failover/guard.sock")
AGENT = Path("/run/failover/agent.sock")
NO_ANSWER = "the guard does not answer"
ANSWER_S = 0.25  # the guard changes the fence before it answers: 1 ms, but the kernel may be busy

_DEVICE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_CREDENTIALS = struct.Struct("3i")  # of the sender of a word: process, user, group

log = logging.getLogger("failover.lease")


@dataclass(frozen=True)
class Asks:
    """Whom to ask, and how. `key`: of the seal, in hex digits (failover/seal.py)."""

    host: str
    leader: str  # the address of its host
    footing: Footing
    key: str
    timing: Timing


@dataclass(frozen=True)
class Granted:
    """What the leader has granted upon this footing. `troubled`: the newest answers stayed away, or were refusals;
    `because`: which."""

    footing: Footing | None = None
    until: float = float("-inf")  # boot time, when all must be frozen
    troubled: bool = False
    because: str = ""


NOTHING = Granted()


@dataclass(frozen=True)
class Word:
    """`vservers`: name to MAC address. `released`: names that the lease has nothing to do with any more. Without
    `until` it says only that the agent is alive."""

    until: float | None = None
    vservers: Mapping[str, str] = field(default_factory=frozen_map)
    network: Network = field(default_factory=Network)
    released: tuple[str, ...] = ()
    extends: bool = False
    asks: Asks | None = None


def hold(
    until: float,
    vservers: Mapping[str, str],
    network: Network,
    *,
    released: Iterable[str] = (),
    extends: bool = False,
    asks: Asks | None = None,
    socket: Path = SOCKET,
    timeout_s: float = ANSWER_S,
) -> Granted | None:
    """Let these vservers run until then, and by what the leader grants; None when the guard does not answer or refuses
    (why is in the log)."""
    word = Word(until, vservers, network, tuple(sorted(released)), extends, asks)
    return _say(encode(word), socket, timeout_s)


def alive(*, socket: Path = SOCKET, timeout_s: float = ANSWER_S) -> Granted | None:
    """Tell the guard that this agent does not hang, when there is nothing to hold."""
    return _say(encode(Word()), socket, timeout_s)


def encode(word: Word) -> bytes:
    if word.until is None:
        return b'{"alive": true}'
    where = {"device": word.network.device} if word.network.device else {"bridge": word.network.bridge}
    said = {"until": word.until, "vservers": dict(word.vservers), "network": where, "released": word.released}
    said |= {"extends": True} if word.extends else {}
    said |= {"asks": wire.encode(word.asks).decode()} if word.asks else {}
    return json.dumps(said).encode()


def decode(data: bytes) -> Word:
    """Raises BadInput for whatever is not exactly a word."""
    try:
        document = json.loads(data)
        if document == {"alive": True}:
            return Word()
        until, vservers, network = document["until"], document["vservers"], document["network"]
        released, extends = document.get("released", []), document.get("extends", False)
        asks = wire.decode(Asks, document["asks"]) if "asks" in document else None
        bytes.fromhex(asks.key if asks else "")
    except (ValueError, KeyError, TypeError, FailoverError) as error:
        raise BadInput(f"not a word of the lease: {data[:80]!r}") from error
    if isinstance(until, bool) or not isinstance(until, int | float) or until != until:
        raise BadInput(f"until is no time: {until!r}")
    if not isinstance(vservers, dict) or not all(_is(NAME, n) and _is(_MAC, a) for n, a in vservers.items()):
        raise BadInput("vservers must map names to MAC addresses")
    if not isinstance(released, list) or not all(_is(NAME, name) and name not in vservers for name in released):
        raise BadInput("released must be names of others")
    if not isinstance(extends, bool):
        raise BadInput("extends must be true or false")
    if not isinstance(network, dict) or len(network) != 1 or not network.keys() <= {"device", "bridge"}:
        raise BadInput("network must be a device or a bridge")
    if not all(_is(_DEVICE, name) for name in network.values()):
        raise BadInput("network must name a device or a bridge")
    return Word(float(until), frozen_map(vservers), Network(**network), tuple(released), extends, asks)


def answer(granted: Granted = NOTHING, refused: str = "") -> bytes:
    said = {"held": False, "because": refused} if refused else {"held": True}
    return json.dumps(said | {"granted": wire.encode(granted).decode()}).encode()


def encode_news(granted: Granted, look: bool) -> bytes:
    return json.dumps({"granted": wire.encode(granted).decode(), "look": look}).encode()


def granted_of(data: bytes) -> Granted:
    """What an answer, or the guard by itself, says of the grants. Raises BadInput."""
    try:
        return wire.decode(Granted, json.loads(data)["granted"])
    except (ValueError, KeyError, TypeError, FailoverError) as error:
        raise BadInput(f"not a word of the guard: {data[:80]!r}") from error


def _is(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _say(data: bytes, path: Path, timeout_s: float) -> Granted | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
        ours.settimeout(timeout_s)
        try:
            ours.bind("")  # a name of the kernel's choice, for the answer
            ours.sendto(data, str(path))
            data = ours.recv(65536)
            said, granted = json.loads(data), granted_of(data)
        except (OSError, ValueError, BadInput) as error:
            log.warning("the guard does not answer: %s", error)
            return None
    if said.get("held") is not True:
        log.warning("the guard refuses: %s", said.get("because"))
        return None
    return granted


def attend(heard: Callable[[], None], path: Path = AGENT) -> None:
    """Have this called, from a thread of its own, whenever the guard has news, has ended, or was silent for half of
    what was left of its grants. Whatever it is stands in its next answer as well, or there is none. Without it the
    agent is only slower."""

    def listen() -> None:
        try:
            path.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                ours.bind(str(path))
                _follow(ours, heard)
        except OSError as error:
            log.error("the guard's news cannot be heard: %s", error)

    threading.Thread(target=listen, name="news", daemon=True).start()


def _follow(ours: socket.socket, heard: Callable[[], None]) -> None:
    """Of each guard that has said something the end is heard as well: the kernel says who has sent a word."""
    guard, pidfd, poll = 0, -1, select.poll()
    poll.register(ours, select.POLLIN)
    wait_s: float | None = None
    while True:
        ready = [descriptor for descriptor, _ in poll.poll(None if wait_s is None else 1000 * wait_s)]
        sender, wait_s, look = 0, None, True
        if not ready:
            log.warning("the guard is silent")
            heard()
            continue
        if pidfd in ready:
            log.warning("the guard has ended")
            ended = True
        else:
            sender, wait_s, look = _news(ours)
            ended = sender != guard and pidfd >= 0
        if ended:
            poll.unregister(pidfd)
            os.close(pidfd)
            guard, pidfd = 0, -1
        if sender != guard:
            with suppress(OSError):  # it has ended by now, as its silence will say
                pidfd = os.pidfd_open(sender)
                poll.register(pidfd, select.POLLIN)
                guard = sender
        if ended or look:
            heard()


def _news(ours: socket.socket) -> tuple[int, float | None, bool]:
    """The process that has sent the next word; for how long it need not send another, seconds; whether to look now."""
    data, with_it, _, _ = ours.recvmsg(65536, socket.CMSG_SPACE(_CREDENTIALS.size))
    found = [data for _, kind, data in with_it if kind == socket.SCM_CREDENTIALS]
    sender = int(_CREDENTIALS.unpack(found[0])[0]) if found else 0
    try:
        granted, look = granted_of(data), json.loads(data).get("look") is not False
    except BadInput:
        return sender, None, True
    left_s = granted.until - boot_time()
    return sender, left_s / 2 if left_s > 0 and not granted.troubled else None, look
