"""Our subtree in ZooKeeper: made when it is not there, and refused when others could touch it.

Rule 1: a stranger could delete a protected child if its parent were open, so the parents count up to /failover itself.
Rule 2: all of it is there before anything is read, also when another has only begun to make it: what is not there when
        it is read leaves no watch, and would never be seen.
"""

from __future__ import annotations

from failover.errors import Unsafe
from failover.records import LAYOUT
from failover.zookeeper.client import Client


def protect(client: Client, top: str, root: str) -> None:
    """Raises Unsafe when `top` or `root` may be used by others than the holders of our credentials."""
    for path in (top, root):
        is_open = client.is_open(path)
        if is_open:
            raise Unsafe(
                f"{path} in ZooKeeper may be used by others than the holders of our credentials",
                hint=f"remove it, or give it our ACL alone (setAcl -R {path} …), and then try again",
            )
    places = (top, root, *(f"{root}/{relative}" for relative in LAYOUT))
    if missing := [path for path, found in client.facts(places).items() if found is None]:
        client.make(*missing)
