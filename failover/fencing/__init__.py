"""Cutting a host's power from outside (STONITH), as the leader sees it: agents.py has the real devices, and
failover/simulate/devices.py those of the stories. When it is done, and what it proves: failover/plan/fencing.py.

Rule 1: nobody waits here. An attempt is begun, and what has become of it is asked for later.
Rule 2: an attempt ends by itself, within DEADLINE_S.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from failover.model import Fence
from failover.plan.fencing import DEADLINE_S, Ended

__all__ = ["DEADLINE_S", "Devices", "Ended", "NoDevices"]


class Devices(Protocol):
    def cut(self, host: str, fence: Fence, began_at: float) -> None:
        """Begin. `began_at`: by which it is known again."""
        ...

    def give_up(self, host: str = "") -> None:
        """An attempt that is not wanted any more; without a name all."""
        ...

    def ended(self) -> Sequence[Ended]:
        """Those that have ended since they were last asked for."""
        ...


class NoDevices:
    def cut(self, host: str, fence: Fence, began_at: float) -> None:
        """Nobody sees how it ends."""

    def give_up(self, host: str = "") -> None:
        """There is none."""

    def ended(self) -> Sequence[Ended]:
        return ()
