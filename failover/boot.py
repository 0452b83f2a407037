"""The clock of all deadlines on a host: seconds since its boot, also while it slept, whatever its wall clock says."""

from __future__ import annotations

import time


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
