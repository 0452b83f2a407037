"""A Debian tree: bootstrapped once, cleaned of what must not be copied, cached, and then made each vserver's own.

    packages ── bootstrap ──▶ cleanse ──▶ /var/cache/failover/debian-….tar.zst ──▶ make_own ──▶ the tree

Rule 1: nothing of this host stays in the tree: name servers, proxies, names.
Rule 2: what two vservers must not share (machine id, ssh host keys, the self-signed certificate) is not in the cache;
        it is made anew for every tree.
Rule 3: addresses come from outside, before init runs. Nothing in the tree configures a device until it is unmasked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.isolation import archive, tools, trees
from agents.isolation.bootstrap import architecture, bootstrap
from failover.errors import BadInput, FailoverError

Say = Callable[[str], None]

CUSTOMISATION = 1  # raise it when `cleanse` changes: it is a part of the cache's key

_ALWAYS = ("init", "iproute2", "procps")  # an init, and what somebody needs who enters and looks around

# Units that configure devices or hardware (rule 3), or that only cost time in a vserver.
_MASKED = (
    "networking.service", "NetworkManager.service", "dhcpcd.service", "systemd-networkd.service",
    "systemd-networkd.socket", "systemd-networkd-wait-online.service", "systemd-udevd.service",
    "systemd-udev-trigger.service", "systemd-modules-load.service", "systemd-pstore.service", "getty@tty1.service",
    "getty-static.service", "console-getty.service", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "dev-hugepages.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount",
)  # fmt: skip

_REMOVED = (
    "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/99mmdebstrap", "etc/ssh/ssh_host_*", "etc/resolv.conf",
    "var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/apt/lists/*_*", "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb", "var/log/bootstrap.log", "var/log/apt/*", "var/log/dpkg.log",
)  # fmt: skip

_HOSTS = """\
127.0.0.1\tlocalhost
127.0.1.1\t{name}
::1\t\tlocalhost ip6-localhost ip6-loopback
ff02::1\t\tip6-allnodes
ff02::2\t\tip6-allrouters
"""

# Made anew by each tree's own programs, where it has them.
_OWN = (
    ("usr/bin/ssh-keygen", ("ssh-keygen", "-A")),
    ("usr/sbin/make-ssl-cert", ("make-ssl-cert", "generate-default-snakeoil", "--force-overwrite")),
)

_PREPARING = ".preparing"
_FRESH_BYTES = 500 << 20
_UNPACKED_PER_PACKED = 5


@dataclass(frozen=True)
class Debian:
    """`packages` come on top of an init, ip and ps. `mirror`: an archive's URL, instead of those of the host's apt.

    `fresh`: bootstrap anew, even if the cache has it.
    """

    suite: str = "bookworm"
    packages: tuple[str, ...] = ()
    mirror: str | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        for word in (self.suite, *self.packages):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", word):
                raise BadInput(f"{word!r} is no name of a Debian suite or package")

    def room_bytes(self, cache: Path) -> int:
        cached = self.cached(cache)
        return cached.stat().st_size * _UNPACKED_PER_PACKED if cached.exists() else _FRESH_BYTES

    def make(self, tree: Path, name: str, cache: Path, say: Say) -> None:
        with _turn(cache, say):
            if self.fresh or not _taken(self.cached(cache), tree, say):
                self._bootstrap(tree, say)
                try:
                    self._keep(tree, cache, say)
                except FailoverError as error:
                    say(f"not kept: {error.message}")  # the tree itself is good
        make_own(tree, name)

    def prepare(self, cache: Path, say: Say) -> None:
        """Have it in the cache, so that `make` needs no network."""
        with tools.in_words(f"{cache} cannot be filled"), _turn(cache, say):
            if self.fresh or not self.cached(cache).exists():
                tree = cache / _PREPARING
                tree.mkdir()
                try:
                    self._bootstrap(tree, say)
                    self._keep(tree, cache, say)
                finally:
                    trees.remove_tree(tree)

    def _bootstrap(self, tree: Path, say: Say) -> None:
        say(f"bootstrapping {self.suite} with {', '.join(self._wanted())}; this takes a minute")
        bootstrap(self.suite, self._wanted(), tree, self.mirror)
        cleanse(tree)

    def _keep(self, tree: Path, cache: Path, say: Say) -> None:
        say(f"keeping it in {cache} for the next one")
        archive.pack(tree, self.cached(cache))

    def cached(self, cache: Path) -> Path:
        words = (self.suite, architecture(), str(CUSTOMISATION), *self._wanted())
        key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
        return cache / f"debian-{self.suite}-{architecture()}-{key}.tar.zst"

    def _wanted(self) -> list[str]:
        return sorted({*_ALWAYS, *self.packages})


@contextmanager
def _turn(cache: Path, say: Say) -> Iterator[None]:
    """One Debian tree at a time: who had to wait may find in the cache what it came for."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache.chmod(0o700)  # a tree's setuid files are nobody's on the host
    directory = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another tree that is being built")
            fcntl.flock(directory, fcntl.LOCK_EX)
        for partial in cache.glob("*.partial"):  # of a build that was killed
            partial.unlink()
        trees.remove_tree(cache / _PREPARING)
        yield
    finally:
        os.close(directory)


def _taken(cached: Path, tree: Path, say: Say) -> bool:
    """Whether the cache had it."""
    if not cached.exists():
        return False
    say(f"unpacking {cached.name} from the cache")
    try:
        archive.unpack(cached, tree)
    except archive.BrokenArchive as broken:
        say(f"{broken.message}: building it anew")
        cached.unlink()
        trees.empty_tree(tree)
        return False
    return True


def cleanse(tree: Path) -> None:
    """Take out of a fresh tree what must not be copied. No vserver has run in it: its links lead nowhere evil."""
    for pattern in _REMOVED:
        for path in tree.glob(pattern):
            path.unlink()
    (tree / "etc/machine-id").write_text("")  # systemd makes one at the first start
    units = tree / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for unit in _MASKED:
        mask = units / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")


def make_own(tree: Path, name: str) -> None:
    (tree / "etc/hostname").write_text(f"{name}\n")
    (tree / "etc/hosts").write_text(_HOSTS.format(name=name))
    for program, argv in _OWN:
        if (tree / program).exists():
            tools.run(["chroot", tree, *argv], hostname=name)


__all__ = ["CUSTOMISATION", "Debian", "Say", "cleanse", "make_own"]
