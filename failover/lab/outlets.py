"""Switched outlets for the hosts of a lab: a fence agent in each host, and the one who really cuts the power.

    fence_lab, in the host that leads            outside, while somebody holds `Outlets`
    control/outlet-N.asks "off hostA"  ───────▶  Lab.power_off
    control/outlet-N.says "0"          ◀───────  the exit code

Rule: it needs no network and no ZooKeeper, as a switch has its own. While nobody is there it hangs.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from failover.errors import FailoverError
from failover.lab.lab import Lab
from failover.lab.outlet import ASKS, SAYS

LOOK_S = 0.02
DONE, FAILED, IS_ON, IS_OFF = "0", "1", "0", "2"


class Outlets:
    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self._thread = threading.Thread(target=self._serve, name="outlets", daemon=True)
        self.asked: list[str] = []  # "off hostA", in the order of time

    def __enter__(self) -> Outlets:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._over.wait(LOOK_S):
            for host in self._lab.real_hosts:
                for asks in (self._lab.host(host).directory / "control").glob(f"*{ASKS}"):
                    self._answer(asks)

    def _answer(self, asks: Path) -> None:
        try:
            asked = asks.read_text().strip()
            asks.unlink()
            action, _, host = asked.partition(" ")
            said = self._do(action, host)
            self.asked.append(asked)
            asks.with_suffix(f"{SAYS}.new").write_text(said)
            asks.with_suffix(f"{SAYS}.new").rename(asks.with_suffix(SAYS))
        except OSError:
            pass  # its host has lost its power meanwhile

    def _do(self, action: str, host: str) -> str:
        try:
            powered = self._lab.host(host).powered
            if action == "off" and powered:
                self._lab.power_off(host)
        except FailoverError:
            return FAILED
        return DONE if action == "off" else IS_ON if powered else IS_OFF
