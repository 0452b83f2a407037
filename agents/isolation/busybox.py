"""The smallest tree that starts, answers and stops: one static program. For first steps and quick tests.

Its init runs a web server on port 80 that shows the vserver's name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agents.command import run
from failover.errors import Refused

_DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/log", "var/www")

_FILES = {
    "etc/inittab": "::respawn:/bin/httpd -f -p 80 -h /var/www\n::restart:/bin/init\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
    "etc/hostname": "{name}\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\t\tlocalhost\n",
    "var/www/index.html": "{name}\n",
}

_MODES = {"etc/shadow": 0o600, "root": 0o700, "tmp": 0o1777}


@dataclass(frozen=True)
class Busybox:
    """The host's static busybox (package busybox-static)."""

    def room_bytes(self, cache: Path) -> int:
        del cache
        return 8 << 20

    def make(self, tree: Path, name: str, cache: Path, say: Callable[[str], None]) -> None:
        del cache
        say("making a busybox tree")
        busybox = _static_busybox()
        for directory in _DIRECTORIES:
            (tree / directory).mkdir(parents=True)
        shutil.copyfile(busybox, tree / "bin/busybox")
        (tree / "bin/busybox").chmod(0o755)
        for applet in run([busybox, "--list"], timeout_s=10).stdout.decode().split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        (tree / "sbin").symlink_to("bin")
        for path, text in _FILES.items():
            (tree / path).write_text(text.format(name=name))
        for path, mode in _MODES.items():
            (tree / path).chmod(mode)


def _static_busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise Refused("busybox is not installed", hint="apt-get install busybox-static")
    if b"/ld-linux" in Path(found).read_bytes()[:4096]:  # the name of its loader: it needs libraries
        raise Refused(f"{found} is not static", hint="apt-get install busybox-static")
    return Path(found)
