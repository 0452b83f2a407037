"""Carrying bytes between the caller and a program inside a vserver: no file or terminal of the host ever gets in.

Rule: a stream whose reader or writer has gone ends; the others go on.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import termios
import time
import tty
from collections.abc import Iterator, Sequence

_CHUNK_BYTES = 64 * 1024
_LEFTOVER_S = 1.0  # for what an ended program left in its pipes: its children may hold them open for ever


class Output:
    """From the program to a descriptor of ours, or to memory (`kept`) if there is none."""

    def __init__(self, source: int, target: int | None) -> None:
        self._source, self._target = source, target
        self.kept = bytearray()

    def begin(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._source, selectors.EVENT_READ, self)

    def go_on(self, selector: selectors.BaseSelector) -> None:
        if not self._carry():
            selector.unregister(self._source)

    def finish(self, until: float) -> None:
        """Carry what is left; then the source is closed."""
        os.set_blocking(self._source, False)
        while time.monotonic() < until and self._carry():
            pass
        os.close(self._source)

    def _carry(self) -> bool:
        try:
            data = os.read(self._source, _CHUNK_BYTES)
            if self._target is None:
                self.kept += data
            else:
                _write(self._target, data)
        except OSError:  # the terminal hung up, nothing is left, or nobody reads
            return False
        return bool(data)


class Input:
    """From a descriptor of ours to the program, which may be slow to read or never do."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._pending = b""
        os.set_blocking(target, False)

    def begin(self, selector: selectors.BaseSelector) -> None:
        try:
            selector.register(self._source, selectors.EVENT_READ, self)
        except PermissionError:  # a plain file is always ready
            self._read(selector)

    def go_on(self, selector: selectors.BaseSelector) -> None:
        if self._pending:
            self._write(selector)
        else:
            selector.unregister(self._source)
            self._read(selector)

    def finish(self, until: float) -> None:
        if self._target >= 0:
            os.close(self._target)
            self._target = -1

    def _read(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(OSError):
            self._pending = os.read(self._source, _CHUNK_BYTES)
        if self._pending:
            selector.register(self._target, selectors.EVENT_WRITE, self)
        else:
            self.finish(0)  # end of file for the program too

    def _write(self, selector: selectors.BaseSelector) -> None:
        try:
            self._pending = self._pending[os.write(self._target, self._pending) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            selector.unregister(self._target)
            self.finish(0)
            return
        if not self._pending:
            selector.unregister(self._target)
            self.begin(selector)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def pump(streams: Sequence[Output | Input], ended: int, until: float | None) -> bool:
    """Carry until the pidfd `ended` says so and nothing is left; False if `until` (monotonic) comes first."""
    in_time = True
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ, None)
        for stream in streams:
            stream.begin(selector)
        running = True
        while running and in_time:
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                in_time = False
                continue
            for key, _ in selector.select(left_s):
                if key.data is None:
                    running = False
                else:
                    key.data.go_on(selector)
    leftover_until = time.monotonic() + _LEFTOVER_S
    for stream in streams:
        stream.finish(leftover_until)
    return in_time


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """The caller's own terminal, passing every key on; as before afterwards."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def following_size(source: int, target: int) -> Iterator[None]:
    """Keep the size of `target` that of the terminal `source`."""
    _copy_size(source, target)
    try:
        before = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(source, target))
    except ValueError:  # not the main thread: the size stays
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError, termios.error):
        termios.tcsetwinsize(target, termios.tcgetwinsize(source))
