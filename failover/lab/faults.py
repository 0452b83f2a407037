"""The words of a story's events, done to a lab: `isolate hostC`, `cut hostA -> hostB`, `stall hostB 5s`.

A fault that goes on by itself (`stall`, `agent-hang`, `shutdown`) begins at once and hands back what follows, and when.

Words that are commands of the manager (`move v1 hostB`) run as `failover …` in a host that has power.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from failover.config import units
from failover.config.problem import Misread
from failover.errors import BadInput, Refused
from failover.lab import departure
from failover.lab.lab import Lab
from failover.lab.later import Later, give_up
from failover.lab.network import STORE
from failover.lab.place import CLIENT
from failover.lab.services import LEADER_REST_S

_FILLER = "/vservers/.filler"
_TAKE_THE_COPY = """
import sys
from agents.replication.generation import promote
from agents.replication.record import Place
promote(sys.argv[1], Place(sys.argv[1]).load().epoch, anyway=True)
"""

Fault = Callable[[Lab, list[str]], Later | None]


def perform(lab: Lab, event: str) -> None:
    """Do one event, and wait for what follows."""
    later = begin(lab, event)
    while later:
        try:
            time.sleep(later.after_s)
        except BaseException:
            give_up(later)
            raise
        later = later.do()


def begin(lab: Lab, event: str) -> Later | None:
    """Begin one event. Raises BadInput for a word that is unknown or that no lab can do."""
    try:
        word, *words = shlex.split(event.replace("->", " -> ")) or [""]
    except ValueError as error:
        raise BadInput(f"'{event}' is no event: {error}") from error
    if word in _COMMANDS:
        _command(lab, [word, *words])
        return None
    if word not in _FAULTS:
        known = ", ".join(sorted([*_FAULTS, *_COMMANDS]))
        raise BadInput(f"the lab cannot do '{event}'", hint=f"it can: {known}")
    least, most, fault = _FAULTS[word]
    if not least <= len(words) <= most:
        raise BadInput(f"'{event}' has {len(words)} words after {word}", hint=f"it takes {least} to {most}")
    return fault(lab, words)


def seconds(text: str) -> float:
    try:
        return units.some_duration(text)
    except Misread as misread:
        raise BadInput(f"'{text}' is no duration", hint="such as 500ms, 5s or 2m") from misread


def _bytes(text: str) -> int:
    try:
        return units.size(text)
    except Misread as misread:
        raise BadInput(misread.message, hint=misread.hint) from misread


# --- power and links


def _power_off(lab: Lab, words: list[str]) -> None:
    lab.power_off(words[0])


def _power_on(lab: Lab, words: list[str]) -> None:
    lab.power_on(words[0])


def _shutdown(lab: Lab, words: list[str]) -> Later | None:
    return departure.begin(lab, words[0], lambda: None)


def _reboot(lab: Lab, words: list[str]) -> Later | None:
    return departure.begin(lab, words[0], lambda: lab.power_on(words[0]))


def _isolate(lab: Lab, words: list[str]) -> None:
    lab.isolate(words[0])


def _join(lab: Lab, words: list[str]) -> None:
    lab.join(words[0])


def _cut(lab: Lab, words: list[str]) -> None:
    for source, target in _directions(lab, words):
        lab.cut(source, target)


def _mend(lab: Lab, words: list[str]) -> None:
    for source, target in _directions(lab, words):
        lab.mend(source, target)


def _directions(lab: Lab, words: list[str]) -> list[tuple[str, str]]:
    """`A B` is both ways, `A -> B` one way; the store and the clients are ends like hosts."""
    ends = [CLIENT if word == "clients" else word for word in words if word != "->"]
    if len(ends) != 2 or ends[0] == ends[1] or ("->" in words and words[1] != "->"):
        raise BadInput(f"'{' '.join(words)}' names no link", hint="A B, or A -> B for one way")
    for end in ends:
        if end != STORE:
            lab.host(end)
    there, back = (ends[0], ends[1]), (ends[1], ends[0])
    return [there] if "->" in words else [there, back]


def _stall(lab: Lab, words: list[str]) -> Later:
    host = lab.host(words[0])
    length_s = seconds(words[1])
    if not host.powered:
        raise Refused(f"{host.name} has no power")
    host.group.freeze()
    return Later(length_s, f"{host.name} goes on", lambda: host.group.freeze(False) if host.powered else None)


# --- services


def _signal(lab: Lab, service: str, host: str, number: signal.Signals) -> None:
    """To the service as it is now; one that does not run needs none."""
    with suppress(ProcessLookupError):
        if pid := lab.host(host).service(service):
            os.kill(pid, number)


def kill_service(lab: Lab, service: str, host: str) -> None:
    _signal(lab, service, host, signal.SIGKILL)


def stop_service(lab: Lab, service: str, host: str) -> None:
    lab.host(host).hold(service, down=True)
    kill_service(lab, service, host)


def start_service(lab: Lab, service: str, host: str) -> None:
    lab.host(host).hold(service, down=False)


def _hang(lab: Lab, service: str, host: str, length: str) -> Later:
    length_s = seconds(length)
    _signal(lab, service, host, signal.SIGSTOP)
    return Later(length_s, f"{service} on {host} goes on", lambda: _signal(lab, service, host, signal.SIGCONT))


def _killed(service: str) -> Fault:
    return lambda lab, words: kill_service(lab, service, words[0])


def _hung(service: str) -> Fault:
    return lambda lab, words: _hang(lab, service, words[0], words[1])


def _leader(lab: Lab) -> str:
    said = json.loads(lab.exec(lab.operator, ["failover", "status", "--json"]).stdout)
    if not said.get("leader"):
        raise Refused("nobody leads the cluster now")
    return str(said["leader"])


def _leader_stop(lab: Lab, _words: list[str]) -> Later:
    host = _leader(lab)
    stop_service(lab, "leader", host)
    return Later(
        LEADER_REST_S, f"the leader's process on {host} is started again", lambda: start_service(lab, "leader", host)
    )


def _store(lab: Lab, do: Callable[[Lab, str, str], None]) -> None:
    """Also on a host without power: what is down stays down when it boots, what is up comes with it."""
    for host in lab.servers:
        do(lab, "zookeeper", host)


def _store_restart(lab: Lab, _words: list[str]) -> None:
    _store(lab, stop_service)
    _store(lab, start_service)


# --- disks and vservers


def _disk_full(lab: Lab, words: list[str]) -> None:
    """Reserve what is free, then write until the disk says no."""
    reserve = f"fallocate -l $(df --output=avail -B1 /vservers | tail -1) {_FILLER}"
    write = f"! dd if=/dev/zero bs=64K of={_FILLER} oflag=append conv=notrunc,fsync 2>/dev/null"
    lab.exec(words[0], ["sh", "-c", f"{reserve}; {write}"], timeout_s=300)


def _disk_free(lab: Lab, words: list[str]) -> None:
    lab.exec(words[0], ["sh", "-c", f"rm -f {_FILLER}; sync -f /vservers"])


def _crash(lab: Lab, words: list[str]) -> None:
    """The vserver's first process dies, wherever it runs."""
    pid = lab.host(_where_it_runs(lab, words[0])).vserver(words[0])
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _write(lab: Lab, words: list[str]) -> None:
    """Into its tree, as if it had done so itself."""
    name, size = words
    write = 'head -c "$1" /dev/urandom > "/vservers/$0/var/written" && sync -f /vservers'
    lab.exec(_where_it_runs(lab, name), ["sh", "-c", write, name, str(_bytes(size))], timeout_s=300)


def _by_hand(lab: Lab, words: list[str]) -> None:
    """Somebody takes the copy that lies there for the vserver itself, and starts it."""
    name, host = words
    lab.exec(host, [sys.executable, "-c", _TAKE_THE_COPY, name])
    lab.exec(host, ["vserver", name, "start"])


def _stop_by_hand(lab: Lab, words: list[str]) -> None:
    lab.exec(_where_it_runs(lab, words[0]), ["vserver", words[0], "stop"])


def _where_it_runs(lab: Lab, name: str) -> str:
    for host in filter(lambda name: lab.host(name).powered, lab.real_hosts):
        if lab.host(host).vserver(name):
            return host
    raise Refused(f"{name} runs on no host")


def _command(lab: Lab, words: Sequence[str]) -> None:
    lab.exec(lab.operator, ["failover", *words], timeout_s=120)


# The word: fewest words after it, most, what it does.
_FAULTS: dict[str, tuple[int, int, Fault]] = {
    "power-off": (1, 1, _power_off),
    "power-on": (1, 1, _power_on),
    "shutdown": (1, 1, _shutdown),
    "reboot": (1, 1, _reboot),
    "isolate": (1, 1, _isolate),
    "join": (1, 1, _join),
    "cut": (2, 3, _cut),
    "mend": (2, 3, _mend),
    "stall": (2, 2, _stall),
    "store-down": (0, 0, lambda lab, _words: _store(lab, stop_service)),
    "store-up": (0, 0, lambda lab, _words: _store(lab, start_service)),
    "store-restart": (0, 0, _store_restart),
    "agent-stop": (1, 1, lambda lab, words: stop_service(lab, "agent", words[0])),
    "agent-start": (1, 1, lambda lab, words: start_service(lab, "agent", words[0])),
    "agent-restart": (1, 1, _killed("agent")),
    "agent-hang": (2, 2, _hung("agent")),
    "guard-stop": (1, 1, _killed("guard")),
    "guard-hang": (2, 2, _hung("guard")),
    "leader-stop": (0, 0, _leader_stop),
    "leader-hang": (1, 1, lambda lab, words: _hang(lab, "leader", _leader(lab), words[0])),
    "crash": (1, 1, _crash),
    "write": (2, 2, _write),
    "by-hand": (2, 2, _by_hand),
    "stop-by-hand": (1, 1, _stop_by_hand),
    "disk-full": (1, 1, _disk_full),
    "disk-free": (1, 1, _disk_free),
}
_COMMANDS = (
    "move", "takeover", "failback", "start", "stop", "restart", "ignore", "remove", "clear", "drain", "undrain",
    "disarm", "arm", "fence",
)  # fmt: skip
