"""How the words of one process reach the store, and how the answers come back.

Direct    at once; the contract suite plays with it
Wire      after a delay, in order; what is sent while a direction is cut waits, as in a TCP connection, until the
          direction is back or the connection is given up
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Action = Callable[[], None]


class Line(Protocol):
    def there(self) -> bool:
        """What is said now reaches the store."""
        ...

    def back(self) -> bool:
        """An answer given now reaches the process."""
        ...

    def send(self, action: Action) -> None:
        """To be done at the store."""
        ...

    def answer(self, action: Action) -> None:
        """To be done in the process."""
        ...

    def after(self, delay_s: float, action: Action) -> None:
        """To be done in the process after a pause."""
        ...

    def retry(self, action: Action) -> None:
        """To be done in the process when it next tries to connect."""
        ...

    def flush(self) -> None:
        """A direction may be up again: what waits for it goes on."""
        ...

    def drop(self) -> None:
        """The connection is given up: what waits in it is lost."""
        ...


class Direct:
    def there(self) -> bool:
        return True

    def back(self) -> bool:
        return True

    def send(self, action: Action) -> None:
        action()

    def answer(self, action: Action) -> None:
        action()

    def after(self, delay_s: float, action: Action) -> None:
        action()

    def retry(self, action: Action) -> None:
        """Whoever cuts it off says when it is back."""

    def flush(self) -> None:
        """Nothing waits in it."""

    def drop(self) -> None:
        """Nothing waits in it."""


class Wire:
    """`is_there`, `is_back`: whether the directions are up. `later(delay, action)`: the scheduler, for the store's
    side. `inside(delay, action)`: the same for the process, which may hang or be dead. `delay_s`: drawn for each
    message; `retry_s`: for each attempt to connect."""

    def __init__(
        self,
        is_there: Callable[[], bool],
        is_back: Callable[[], bool],
        later: Callable[[float, Action], object],
        inside: Callable[[float, Action], object],
        delay_s: Callable[[], float],
        retry_s: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.there, self.back = is_there, is_back
        self._later, self._inside, self._now = later, inside, now
        self._delay_s, self._retry_s = delay_s, retry_s
        self._waiting_there: list[Action] = []
        self._waiting_back: list[Action] = []
        self._last_there = self._last_back = 0.0  # when what was said last arrives
        self._life = 0

    def send(self, action: Action) -> None:
        if not self.there():
            self._waiting_there.append(action)
            return
        self._last_there = max(self._last_there, self._now() + self._delay_s())
        self._later(self._last_there - self._now(), action)

    def answer(self, action: Action) -> None:
        if not self.back():
            self._waiting_back.append(action)
            return
        life = self._life

        def arrive() -> None:
            if life == self._life:
                action()

        self._last_back = max(self._last_back, self._now() + self._delay_s())
        self._inside(self._last_back - self._now(), arrive)

    def after(self, delay_s: float, action: Action) -> None:
        self._inside(delay_s, action)

    def retry(self, action: Action) -> None:
        self._inside(self._retry_s(), action)

    def drop(self) -> None:
        self._life += 1
        self._waiting_there, self._waiting_back = [], []

    def flush(self) -> None:
        if self.there():
            waiting, self._waiting_there = self._waiting_there, []
            for action in waiting:
                self.send(action)
        if self.back():
            waiting, self._waiting_back = self._waiting_back, []
            for action in waiting:
                self.answer(action)
