"""What one process has read of /failover/NAME, kept up to date by watches.

Rule 1: a watch says only that something is different; what it is now is read again, and leaves the next watch.
Rule 2: a record never goes back in time, in whatever order two threads' answers are put down.
Rule 3: leases change too often to be watched. A lease is read when its host's session comes or goes, when an operator
        says something about the host, and all are when a session has gone (who else is silent?) or the leader asks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from failover.records import DIRECTORIES, FILES, Node, Role
from failover.zookeeper.client import Client

_UNWATCHED = ("alive", "leases", "taken")  # what is in these: rule 3, and of `alive` only the facts are of interest


def _session(node: Node | None) -> int | None:
    return node.session if node is not None else None


class Mirror:
    def __init__(self, client: Client, root: str, role: Role) -> None:
        self._client, self._root, self._role = client, root + "/", role
        self._lock = threading.Lock()
        self._nodes: dict[str, Node] = {}

    @property
    def nodes(self) -> Mapping[str, Node]:
        """A copy, by path relative to /failover/NAME; empty before the first reading."""
        with self._lock:
            return dict(self._nodes)

    def get(self, path: str) -> Node | None:
        with self._lock:
            return self._nodes.get(path)

    def read_all(self, *, watch: bool = True) -> dict[str, Node]:
        """Everything that the role follows. It does not become the mirror before `replace`."""
        read = self._read(FILES[self._role], watch=watch)
        read |= self._read_inside(DIRECTORIES[self._role], watch=watch)
        return {path: node for path, node in read.items() if node is not None}

    def replace(self, nodes: Mapping[str, Node]) -> None:
        with self._lock:
            self._nodes = dict(nodes)

    def read_again(self, paths: Iterable[str]) -> None:
        """Records, and directories in which something came or went."""
        paths = {path.removeprefix(self._root) for path in paths}
        directories = paths & set(DIRECTORIES[self._role])
        records = {path for path in paths - directories if not path.startswith(tuple(f"{d}/" for d in _UNWATCHED))}
        inside = self._read_inside(directories)
        read = inside | self._read(records)
        if "alive" in directories:
            read |= self._read_leases(self._in_doubt(inside))
        spoken_of = {path.rpartition("/")[2] for path in records if path.startswith("intent/hosts/")}
        read |= self._read_leases(spoken_of)
        with self._lock:
            for path in [p for p in self._nodes if p.rpartition("/")[0] in directories and p not in read]:
                del self._nodes[path]
            for path, node in read.items():
                self._put(path, node)

    def read_leases(self) -> None:
        """All of them; who came or went is told by a watch."""
        read = self._read((path for path in self.nodes if path.startswith("leases/")), watch=False)
        with self._lock:
            for path, node in read.items():
                self._put(path, node)

    def _put(self, path: str, node: Node | None) -> None:
        known = self._nodes.get(path)
        if node is None:
            self._nodes.pop(path, None)
        elif known is None or node.zxid >= known.zxid:
            self._nodes[path] = node

    def look_at(self, *hosts: str) -> None:
        """Read their leases again."""
        read = self._read_leases(hosts) | self._facts(f"alive/{host}" for host in hosts)
        with self._lock:
            for path, node in read.items():
                self._put(path, node)

    def _in_doubt(self, read: Mapping[str, Node | None]) -> set[str]:
        """The leases of hosts that are new, or here in a new session; of all while somebody is gone (who may have come
        and gone again)."""
        nodes = self.nodes
        now = {path.removeprefix("alive/"): node for path, node in read.items() if path.startswith("alive/")}
        known = {path.removeprefix("leases/") for path in nodes if path.startswith("leases/")}
        if known - set(now):
            return known | set(now)
        before = {host: _session(nodes.get(f"alive/{host}")) for host in now}
        return {host for host, node in now.items() if host not in known or before[host] != _session(node)}

    def _read_inside(self, directories: Iterable[str], *, watch: bool = True) -> dict[str, Node | None]:
        directories = set(directories)
        unwatched = directories & {"leases", "taken"}
        listed = self._client.names((self._root + directory for directory in directories - unwatched), watch=watch)
        listed |= self._client.names(self._root + directory for directory in unwatched)
        found = {f"{path.removeprefix(self._root)}/{name}" for path, names in listed.items() for name in names}
        hosts = {path.removeprefix("leases/") for path in found if path.startswith("leases/")}
        others = {path for path in found if not path.startswith(tuple(f"{kind}/" for kind in _UNWATCHED))}
        read = self._read(others, watch=watch) | self._read_leases(hosts)
        return read | self._facts(path for path in found if path.startswith("alive/"))

    def _read_leases(self, hosts: Iterable[str]) -> dict[str, Node | None]:
        hosts = set(hosts)
        read = self._read((f"leases/{host}" for host in hosts), watch=False)
        return read | self._facts(f"taken/{host}" for host in hosts)

    def _read(self, paths: Iterable[str], *, watch: bool = True) -> dict[str, Node | None]:
        return self._relative(self._client.read((self._root + path for path in paths), watch=watch))

    def _facts(self, paths: Iterable[str]) -> dict[str, Node | None]:
        return self._relative(self._client.facts(self._root + path for path in paths))

    def _relative(self, read: Mapping[str, Node | None]) -> dict[str, Node | None]:
        return {path.removeprefix(self._root): node for path, node in read.items()}
