"""The words of a story's events, done to a lab: `isolate hostC`, `cut hostA -> hostB`, `stall hostB 5s`.

A fault that ends by itself (`stall`, `agent-hang`, `leader-stop`) begins at once and hands back what ends it, and when.

Words that are commands of the manager (`move v1 hostB`) run as `failover …` in a host that has power.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from failover.errors import BadInput, Refused
from failover.lab.lab import Lab
from failover.lab.network import STORE
from failover.lab.place import CLIENT
from failover.lab.services import LEADER_REST_S

_FILLER = "/vservers/.filler"


@dataclass(frozen=True)
class Later:
    """What ends a fault: `after_s` seconds from now."""

    after_s: float
    text: str
    do: Callable[[], None]


Fault = Callable[[Lab, list[str]], Later | None]


def perform(lab: Lab, event: str) -> None:
    """Do one event, and wait for its end if it ends by itself."""
    later = begin(lab, event)
    if later:
        try:
            time.sleep(later.after_s)
        finally:
            later.do()


def begin(lab: Lab, event: str) -> Later | None:
    """Begin one event. Raises BadInput for a word that is unknown or that no lab can do."""
    try:
        word, *words = shlex.split(event) or [""]
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
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not found:
        raise BadInput(f"'{text}' is no duration", hint="such as 500ms, 5s or 2m")
    return float(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[found[2]]


# --- power and links


def _power_off(lab: Lab, words: list[str]) -> None:
    lab.power_off(words[0])


def _power_on(lab: Lab, words: list[str]) -> None:
    lab.power_on(words[0])


def _shutdown(lab: Lab, words: list[str]) -> None:
    lab.shut_down(words[0])


def _reboot(lab: Lab, words: list[str]) -> None:
    lab.shut_down(words[0])
    lab.power_on(words[0])


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
    said = json.loads(lab.exec(_powered(lab)[0], ["failover", "status", "--json"]).stdout)
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
    for host in _powered(lab):
        if "zookeeper" in lab.host(host).runs:
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
    for host in _powered(lab):
        if pid := lab.host(host).vserver(words[0]):
            os.kill(pid, signal.SIGKILL)
            return
    raise Refused(f"{words[0]} runs on no host")


def _command(lab: Lab, words: Sequence[str]) -> None:
    lab.exec(_powered(lab)[0], ["failover", *words], timeout_s=120)


def _powered(lab: Lab) -> list[str]:
    powered = [name for name in lab.real_hosts if lab.host(name).powered]
    if not powered:
        raise Refused("no host has power")
    return powered


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
    "disk-full": (1, 1, _disk_full),
    "disk-free": (1, 1, _disk_free),
}
_COMMANDS = (
    "move", "takeover", "failback", "start", "stop", "restart", "ignore", "remove", "clear", "drain", "undrain",
    "disarm", "arm", "fence",
)  # fmt: skip
