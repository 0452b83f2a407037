"""Changes of nftables through its library, 0.2 ms each where starting `nft` takes 15: the guard must be quick.

Rule 1: the caller waits no longer than it says, whatever the kernel does: a thread of its own makes the changes.
Rule 2: one change at a time. While an overdue one is still being made, and may yet be done, the next is refused.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from contextlib import suppress

from failover.errors import FailoverError

_LIBRARY = "libnftables.so.1"


class _Change:
    def __init__(self, text: str) -> None:
        self.text, self.done, self.failure = text, threading.Event(), ""


class Nftables:
    """The library's context, and the thread that uses it. Both are made at the first change."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        self._newest: _Change | None = None

    def apply(self, text: str, *, timeout_s: float) -> None:
        """One transaction of nft's language: all of it or, with FailoverError, nothing; or nobody knows, when it takes
        longer than this."""
        if self._newest is None:
            context = _context()
            threading.Thread(target=self._work, args=(context, *_schedule()), name="nftables", daemon=True).start()
        elif not self._newest.done.wait(timeout_s):
            raise FailoverError("the kernel is still busy with the last change of nftables")
        change = self._newest = _Change(text)
        self._todo.put(change)
        if not change.done.wait(timeout_s):
            raise FailoverError(f"nftables has not been changed within {timeout_s:.2g} s")
        if change.failure:
            raise FailoverError(f"nftables refuses: {change.failure}")

    def _work(self, context: int, policy: int, priority: os.sched_param) -> None:
        with suppress(OSError):
            os.sched_setscheduler(0, policy, priority)  # a new thread has not that of its maker
        while True:
            change = self._todo.get()
            if _library().nft_run_cmd_from_buffer(context, change.text.encode()):
                said = _library().nft_ctx_get_error_buffer(context) or b""
                change.failure = said.decode(errors="replace").partition("\n")[0].removeprefix("Error: ") or "no reason"
            change.done.set()


def _schedule() -> tuple[int, os.sched_param]:
    return os.sched_getscheduler(0), os.sched_getparam(0)


def _context() -> int:
    try:
        library = _library()
    except OSError as error:
        raise FailoverError(f"{_LIBRARY} cannot be loaded: {error}", hint="apt install libnftables1") from error
    context: int = library.nft_ctx_new(0)
    library.nft_ctx_buffer_error(context)
    return context


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)  # the calls let other threads run meanwhile
    library.nft_ctx_new.restype, library.nft_ctx_new.argtypes = ctypes.c_void_p, [ctypes.c_uint32]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    return library
