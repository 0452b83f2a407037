"""Hosts for other cluster managers: the lab's, without our services, with the peers' programs laid over their /usr.

`make bench` fetches the peers' Debian packages. They are unpacked, never installed: no script of theirs runs, nothing
is started, and outside of these hosts nothing is seen of them.

A peer moves an address and no more. What answers there waits on every host from its boot, so that nothing has to be
started after a takeover: the figures are those of the address alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from agents.command import run
from failover.errors import Refused
from failover.lab import sample
from failover.lab.lab import Lab
from failover.lab.place import CACHE

LAB = "bench-peers"
ADDRESS = "10.77.1.1"
URL = f"http://{ADDRESS}/"
HOSTS = {"hostA": "10.77.0.1", "hostB": "10.77.0.2", "hostC": "10.77.0.3"}
PACKAGES = CACHE / "peers"  # where the Makefile puts them
_PROGRAMS = PACKAGES / "root"

# A package's /lib and /sbin are links to those in /usr, as on any Debian of today.
_UNPACK = """
umask 022
rm -rf root && mkdir -p root/usr/bin root/usr/sbin root/usr/lib
for part in bin sbin lib; do ln -s usr/$part root/$part; done
for package in $(find . -name '*.deb'); do
    dpkg-deb --fsys-tarfile $package | tar -x --keep-directory-symlink -C root
done
"""
_BEGIN = f"""
mount -t overlay peers -o ro,lowerdir={_PROGRAMS}/usr:/usr /usr
mkdir -p /run/www && echo here > /run/www/index.html
busybox httpd -p 80 -h /run/www >/dev/null 2>&1
"""


@contextmanager
def hosts(name: str) -> Iterator[Lab]:
    """A lab of three hosts that may run any peer."""
    if not any(PACKAGES.glob("*.deb")) and shutil.which("keepalived") is None:
        raise Refused(f"there are no packages in {PACKAGES}", hint="sudo make bench fetches them")
    lab = Lab(name)
    lab.down()
    PACKAGES.mkdir(parents=True, exist_ok=True)  # empty where the machine has the peers installed
    run(["sh", "-ec", _UNPACK], cwd=PACKAGES, timeout_s=120)
    try:
        lab.up(len(HOSTS), services=())
        yield lab
    finally:
        lab.down()


def begin(lab: Lab, scripts: dict[str, str]) -> None:
    """Start a peer on hosts that have just booted. `scripts`: what each of them runs as root, all at the same time.

    A daemon that a script leaves behind must have let go of stdout and stderr.
    """
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: lab.exec(host, ["sh", "-ec", _BEGIN + scripts[host]]), scripts))


def await_owner(lab: Lab, *names: str) -> str:
    """Wait until exactly one host has the address, one of those; returns it."""
    found: list[str] = []

    def one() -> bool:
        found[:] = owners(lab)
        return len(found) == 1 and found[0] in (names or HOSTS)

    sample.await_("single owner of the address", one)
    return found[0]


def owners(lab: Lab) -> list[str]:
    """The hosts that have the address now."""
    ask = ["ip", "-brief", "address", "show", "to", ADDRESS]
    return [host for host in HOSTS if lab.exec(host, ask).stdout]
