"""Message ids: 16 hexadecimal digits of a random prefix and 16 of a counter."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from itertools import count
from threading import RLock
from typing import Final

__all__ = ["IdSource"]

BLOCK: Final = 256
_TEMPLATE: Final = " ".join(f"#{n:02x}" for n in range(BLOCK))


class IdSource:
    """Hands out ids in blocks, written by C code all at once, so that a single one costs little more than ``next``."""

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
            return iter(_TEMPLATE.replace("#", f"{self.prefix}{next(self._blocks):014x}").split())


_sources: weakref.WeakSet[IdSource] = weakref.WeakSet()
