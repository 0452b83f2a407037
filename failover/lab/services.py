"""What a lab's host runs, as data: each service's command line and how long it rests before it is started again.

Every command line is started through a gate, so that a fault can hold a service down:

    /run/failover-lab/SERVICE.down     while it exists the service is not started
    /run/failover-lab/SERVICE.pid      the process, as the host counts

The guard starts the agent itself, through the same gate.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from failover import ensemble
from failover.errors import BadInput
from failover.lab.place import CONTROL, ETC, ZOOKEEPER

Runs = dict[str, dict[str, object]]  # service -> its argv and rest_s, as a host's first process reads them
LEADER_REST_S = 10.0  # after `leader-stop`
_GATE = 'while [ -e "$0.down" ]; do sleep 0.05; done; echo $$ > "$0.pid"; exec "$@"'


@dataclass(frozen=True)
class Service:
    """`argv` for a host's name and the Python that runs us. `only`: "store", on the hosts with a ZooKeeper server."""

    argv: Callable[[str, str], Sequence[str]]
    only: str = ""
    rest_s: float = 1.0


def _guard(host: str, python: str) -> Sequence[str]:
    agent = gate("agent", [python, "-m", "agents.agent", "--host", host])
    return [python, "-m", "agents.guard", "--agent", shlex.join(agent)]


SERVICES = {
    "sshd": Service(lambda _host, _python: ["/usr/sbin/sshd", "-D", "-e", "-f", f"{ETC}/sshd_config"]),
    "zookeeper": Service(lambda _host, _python: ensemble.command(ZOOKEEPER), only="store"),
    "spawner": Service(lambda _host, python: [python, "-I", "-m", "agents.isolation.spawner"]),
    "guard": Service(_guard, rest_s=0.1),  # within the lease: else it finds it over and freezes
    "leader": Service(lambda host, python: [python, "-m", "failover.leader", "--host", host]),
}
ALL = tuple(SERVICES)


def gate(service: str, argv: Sequence[str]) -> list[str]:
    return ["sh", "-c", _GATE, str(CONTROL / service), *argv]


def processes(runs: Runs) -> list[str]:
    """What has a process where these services run: the guard's agent too."""
    return [*runs, *(["agent"] if "guard" in runs else [])]


def known(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in SERVICES:
            raise BadInput(f"a lab has no service '{name}'", hint=f"one of {', '.join(SERVICES)}")
    return tuple(names)


def of_host(names: Sequence[str], host: str, python: str, *, store: bool) -> Runs:
    """The services that one host starts, as its first process reads them."""
    chosen = {name: SERVICES[name] for name in names if store or SERVICES[name].only != "store"}
    return {
        name: {"argv": gate(name, service.argv(host, python)), "rest_s": service.rest_s}
        for name, service in chosen.items()
    }
