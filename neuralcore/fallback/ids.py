"""Message ids: 16 hexadecimal digits of a random prefix and 16 of a counter."""

import os
import weakref
from collections.abc import Iterator
from itertools import count
from threading import RLock
from typing import Final

__all__ = ["IdSource"]

BLOCK: Final = 64
_LAST_TWO: Final = tuple(tuple(f"{n:02x}" for n in range(start, start + BLOCK)) for start in range(0, 256, BLOCK))


class IdSource:
    """Hands out blocks of ids whose strings are joined by C code alone, one block every ``BLOCK`` ids."""

    __slots__ = ("__weakref__", "_blocks", "_lock", "prefix")

    def __init__(self) -> None:
        self._lock = RLock()
        self.reseed()
        _sources.add(self)

    def reseed(self) -> None:
        self.prefix = os.urandom(8).hex()
        self._blocks = count()

    def block(self) -> Iterator[str]:
        with self._lock:
            number, part = divmod(next(self._blocks), len(_LAST_TWO))
            return map(f"{self.prefix}{number:014x}".__add__, _LAST_TWO[part])


_sources: weakref.WeakSet[IdSource] = weakref.WeakSet()
