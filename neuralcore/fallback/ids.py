"""Message ids: 16 hexadecimal digits of a random prefix and 16 of a counter."""

from __future__ import annotations

import os
import weakref
from threading import RLock
from typing import Final

__all__ = ["PAGE", "IdSource"]

PAGE: Final = 256
_TEMPLATE: Final = " ".join(f"#{n:02x}" for n in range(PAGE))


class IdSource:
    """Writes ids by the page, all of it by C code, so that a single one costs little."""

    __slots__ = ("__weakref__", "_lock", "_page", "_pages", "prefix")

    def __init__(self) -> None:
        self._lock = RLock()
        self.reseed()
        _sources.add(self)

    def reseed(self) -> None:
        self.prefix = os.urandom(8).hex()
        self._pages = 0
        self._page: list[str] = []
        """What is left of the current one, the next id last."""

    def take(self, count: int) -> list[str]:
        """The next ids, at least one and at most as many."""
        with self._lock:
            if not self._page:
                self._page = _TEMPLATE.replace("#", f"{self.prefix}{self._pages:014x}").split(" ")
                self._page.reverse()
                self._pages += 1
            taken = self._page[-count:]
            del self._page[-count:]
        taken.reverse()
        return taken


_sources: weakref.WeakSet[IdSource] = weakref.WeakSet()
