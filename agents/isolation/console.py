"""A vserver's console: what it writes there goes to console.log, bounded in size.

The spawner holds both ends: with a terminal nobody has open any more, the kernel would report an end of file for ever.
If the spawner dies, the terminal hangs up: the vserver runs on, what it writes to its console is lost.
"""

from __future__ import annotations

import os
from pathlib import Path

LOG_BYTES = 512 * 1024  # twice that at most: the log and one older one
_CHUNK_BYTES = 16 * 1024


class Console:
    def __init__(self, master: int, slave: int, log: Path) -> None:
        self.master, self._slave, self._log = master, slave, log
        os.set_blocking(master, False)

    def drain(self) -> None:
        """Write down what has come; a bounded piece of it, so that a chatterbox keeps nobody else waiting."""
        try:
            data = os.read(self.master, _CHUNK_BYTES)
        except OSError:
            return
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.old"))
        with self._log.open("ab") as file:
            file.write(data)

    def close(self) -> None:
        self.drain()
        os.close(self.master)
        os.close(self._slave)
