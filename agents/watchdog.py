"""The watchdog of a host: it resets the machine when nobody sees any more that what is over stands still.

    the guard, at the end of a turn: all whose end is past stands still, or is gone ──▶ fed
                                     something of it runs; or there is no turn ──▶ starved, and the machine is reset

Rule 1: it is fed at the end of a turn alone, five times per timeout, and never while something runs whose end is past.
Rule 2: what freezes late (a process in an uninterruptible call) has four fifths of the timeout: a disk that tries again
        costs no reset. There is no hurry, for the fence holds meanwhile; but it must end, for nothing else ends it.
Rule 3: it is switched off ('V') only by a guard that leaves in order, with all frozen; or by one that has just been
        started and may not use it. Whoever dies leaves it running. So does who has a successor (SIGUSR1): that has
        four fifths of the timeout to come, and opens it, which feeds it once more, or is told to do without and
        switches it off.
Rule 4: no claim of docs/safety.md rests on it. Only the standard library.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from errno import EBUSY
from fcntl import ioctl
from pathlib import Path

from failover.errors import FailoverError, Refused

TIMEOUT_S = 15  # every watchdog can do that; some can do no more
LEAST_S = 5  # less, and a busy kernel would be taken for one that hangs
FEEDS = 5  # per timeout
AGAIN_S = 0.25  # after a time at which it was not fed
SAID_S = 1.0  # what is frozen a little late is not worth a word
FILE = "watchdog"  # which one a guard has left running, for the next

FOOD, OFF = b"\0", b"V"
_SUPPORT, _SET, _GET = 0x80285700, 0xC0045706, 0x80045707  # WDIOC_GETSUPPORT, WDIOC_SETTIMEOUT, WDIOC_GETTIMEOUT
_INFO = struct.Struct("II32s")  # options, firmware version, identity
_MAGIC_CLOSE = 0x0100

log = logging.getLogger("failover.watchdog")


class Watchdog:
    """Without a path there is nothing to feed. Raises FailoverError when it cannot be used, and then it is off."""

    def __init__(self, path: Path | None, timeout_s: int, directory: Path) -> None:
        self._path, self._file, self._trouble = path, directory / FILE, ""
        self._device: int | None = None
        self._due_at = self._fed_at = self._hungry_at = time.monotonic()
        self._switch_off_another()
        if path is None:
            return
        self._device = _opened(path)
        try:
            self._timeout_s = _agreed(self._device, path, timeout_s)
            self._file.write_text(str(path))
        except (FailoverError, OSError) as error:
            self.leave()
            raise Refused(str(error)) from error

    def tend(self, late: Callable[[], Collection[str]]) -> None:
        """Feed it if it is time to, unless something runs whose end is past (`late`)."""
        now = time.monotonic()
        if self._device is None or now < self._due_at:
            return
        if running := late():
            self._starve(now, f"{', '.join(running)}: the lease is over, and it is not frozen")
            return
        try:
            os.write(self._device, FOOD)
        except OSError as error:
            self._starve(now, str(error))
            return
        if self._trouble:
            log.warning("the watchdog is fed again")
        self._trouble, self._fed_at = "", now
        self._due_at = self._hungry_at = now + self._timeout_s / FEEDS

    def wait_s(self) -> float:
        """Until `tend` has something to do."""
        return float("inf") if self._device is None else max(0.0, self._due_at - time.monotonic())

    def leave(self, *, followed: bool = False) -> None:
        """The guard ends in order. `followed`: another one takes its place at once."""
        if self._device is None:
            return
        if not followed:
            with suppress(OSError):
                os.write(self._device, OFF)
            self._file.unlink(missing_ok=True)
        os.close(self._device)
        self._device = None

    def _starve(self, now: float, why: str) -> None:
        self._due_at = now + AGAIN_S
        if why != self._trouble and now >= self._hungry_at + SAID_S:
            self._trouble = why
            left_s = max(0.0, self._fed_at + self._timeout_s - now)
            log.error("the watchdog is not fed, and resets this machine in %.1f s: %s", left_s, why)

    def _switch_off_another(self) -> None:
        """One that a guard before this has left running, and that is not wanted any more."""
        try:
            left = Path(self._file.read_text())
        except OSError:
            return
        if left == self._path:
            return
        try:
            device = _opened(left)
            os.write(device, OFF)
            os.close(device)
        except (FailoverError, OSError) as error:
            log.error("the watchdog of the guard before cannot be switched off: %s", error)
            return
        self._file.unlink(missing_ok=True)
        log.warning("%s, which the guard before had, is switched off", left)


def _opened(path: Path) -> int:
    """With this its time begins to run."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        hint = "load its driver, as in modprobe softdog"
        if error.errno == EBUSY:
            hint = "another program has it, perhaps systemd: RuntimeWatchdogSec=off in /etc/systemd/system.conf"
        raise Refused(f"{path} cannot be used as a watchdog: {error.strerror}", hint=hint) from error


def _agreed(device: int, path: Path, wanted_s: int) -> int:
    """The timeout that it has now. A device may have one that is fixed, or take only some."""
    with suppress(OSError):
        ioctl(device, _SET, struct.pack("i", wanted_s))
    try:
        (timeout_s,) = struct.unpack("i", ioctl(device, _GET, struct.pack("i", 0)))
    except OSError as error:
        raise Refused(f"{path} is no watchdog that says its timeout: {error.strerror}") from error
    if not LEAST_S <= timeout_s <= wanted_s:
        hint = f"--watchdog-seconds {timeout_s}" if timeout_s >= LEAST_S else f"it must be {LEAST_S} s at least"
        raise Refused(f"{path} has a timeout of {timeout_s} s, not {wanted_s} s", hint=hint)
    with suppress(OSError):
        options, _, _ = _INFO.unpack(ioctl(device, _SUPPORT, bytes(_INFO.size)))
        if not options & _MAGIC_CLOSE:
            log.warning("%s stops when the guard is killed: it helps only against one that hangs", path)
    return int(timeout_s)
