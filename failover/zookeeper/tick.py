"""How long ZooKeeper's ticks are, which no client is told: the lease arithmetic rests on them (failover/timing.py).

A server grants no session shorter than two ticks and none longer than twenty, unless its zoo.cfg says otherwise. So it
is asked for one that is too short, and for one that is too long. Either may have been set by hand: the shorter answer
counts, for the other one would accuse a server whose ticks are as they should be.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from failover.errors import Unsafe
from failover.zookeeper.client import Client

_LEAST_TICKS, _MOST_TICKS = 2, 20
_SHORT_S, _LONG_S = 0.3, 1_000_000.0  # kazoo waits for the answer as long as it asks for
_ANSWER_S, _LOOK_S = 2.0, 0.01


def check(servers: Sequence[str], credentials: str, tick_s: float) -> tuple[str, ...]:
    """Raises Unsafe when a server's ticks are longer than `tick_s`. Returns the servers that do not answer."""
    found = {server: _tick_s(server, credentials) for server in servers}
    longer = [f"{server} ({real_s:g} s)" for server, real_s in found.items() if real_s and real_s > tick_s]
    if longer:
        raise Unsafe(
            f"the ticks of ZooKeeper are longer than {tick_s:g} s: {', '.join(longer)}",
            hint=f"write tickTime={round(1000 * tick_s)} and no minSessionTimeout into zoo.cfg and restart the "
            "servers, one by one; or timing.tick into cluster.yaml, with a session that fits",
        )
    return tuple(server for server, real_s in found.items() if real_s is None)


def _tick_s(server: str, credentials: str) -> float | None:
    shortest_s, longest_s = (_granted_s(server, credentials, asked_s) for asked_s in (_SHORT_S, _LONG_S))
    if shortest_s is None or longest_s is None:
        return None
    return min(shortest_s / _LEAST_TICKS, longest_s / _MOST_TICKS)


def _granted_s(server: str, credentials: str, asked_s: float) -> float | None:
    """How long a session this server grants to who asks for one of this length; None: it does not answer."""
    client = Client(
        [server],
        credentials,
        session_s=asked_s,
        deadline_s=_ANSWER_S,
        listen=lambda _: None,
        happened=lambda _: None,
    )
    client.start()
    try:
        deadline = time.monotonic() + _ANSWER_S
        while client.session_s is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return client.session_s
    finally:
        client.close(keep_session=False)
