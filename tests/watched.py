"""The guard with a stand-in for a watchdog: a fifo of which this process believes that it has the driver's calls. It is
fed ten times as often as a real one, so that a test need not wait.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agents import guard, watchdog

SUPPORT, SET, GET = 0x80285700, 0xC0045706, 0x80045707
MAGIC_CLOSE = 0x0100


class Driver:
    """`fixed_s`: its timeout, which cannot be changed. `most_s`: the longest that it takes. It has one of the two."""

    def __init__(self, *, fixed_s: int = 0, most_s: int = 0, options: int = MAGIC_CLOSE) -> None:
        self._timeout_s, self._most_s, self._options = fixed_s or most_s, most_s, options

    def ioctl(self, _device: int, request: int, argument: bytes) -> bytes:
        if request == SUPPORT and self._timeout_s:
            return struct.pack("II32s", self._options, 0, b"stand-in")
        if request == SET and self._most_s:
            (wanted_s,) = struct.unpack("i", argument)
            if wanted_s > self._most_s:
                raise OSError(errno.EINVAL, "Invalid argument")
            self._timeout_s = wanted_s
            return argument
        if request == GET and self._timeout_s:
            return struct.pack("i", self._timeout_s)
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")


class Device:
    """The fifo, and what came out of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.eaten = b""

    def fed(self) -> int:
        """How often since it was asked last."""
        before = len(self.eaten)
        with suppress(BlockingIOError):
            while data := os.read(self._reader, 4096):
                self.eaten += data
        return len(self.eaten) - before

    @property
    def off(self) -> bool:
        self.fed()
        return self.eaten.endswith(watchdog.OFF)

    def close(self) -> None:
        os.close(self._reader)


@contextmanager
def device(path: Path) -> Iterator[Device]:
    made = Device(path)
    try:
        yield made
    finally:
        made.close()


if __name__ == "__main__":
    watchdog.ioctl = Driver(most_s=60).ioctl  # type: ignore[assignment]
    watchdog.FEEDS *= 10
    sys.exit(guard.main())
