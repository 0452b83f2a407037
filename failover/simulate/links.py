"""Who reaches whom, each direction by itself: hosts, the store and the clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from failover.stories.events import CLIENTS, STORE

Direction = tuple[str, str]  # from, to


class Links:
    """`changed` is called after every change."""

    def __init__(self, hosts: Iterable[str], changed: Callable[[], None]) -> None:
        self.hosts = sorted(hosts)
        self._changed = changed
        self._cut: set[Direction] = set()
        self._isolated: set[str] = set()

    def reaches(self, source: str, target: str) -> bool:
        """A host needs no cable to reach itself: one that leads grants to its own guard."""
        if source == target:
            return True
        return (source, target) not in self._cut and source not in self._isolated and target not in self._isolated

    def cut(self, directions: Iterable[Direction]) -> None:
        self._cut |= set(directions)
        self._changed()

    def mend(self, directions: Iterable[Direction]) -> None:
        self._cut -= set(directions)
        self._changed()

    def isolate(self, host: str) -> None:
        self._isolated.add(host)
        self._changed()

    def join(self, host: str) -> None:
        """All its links are back, also those that were cut one by one."""
        self._isolated.discard(host)
        self._cut = {link for link in self._cut if host not in link}
        self._changed()

    def whole(self) -> bool:
        return not self._cut and not self._isolated

    def cut_off(self) -> frozenset[str]:
        """Hosts with any link cut."""
        ends = {end for link in self._cut for end in link} | self._isolated
        return frozenset(ends - {STORE, CLIENTS})
