"""Something heavy that is opened once, on first use, by whichever thread comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Opened(Generic[Thing]):
    """``get`` opens the thing if it is not open; after ``close`` the next ``get`` opens it again.

    A thread that still holds the thing when another one closes goes on with it; its memory goes with the last holder.
    """

    def __init__(self, open_thing: Callable[[], Thing]) -> None:
        self._open, self._lock = open_thing, threading.Lock()
        self._thing: Thing | None = None

    def get(self) -> Thing:
        with self._lock:
            if self._thing is None:
                self._thing = self._open()
            return self._thing

    def close(self) -> None:
        with self._lock:
            self._thing = None
