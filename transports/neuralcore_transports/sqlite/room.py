"""The last room on the disk, which publishes leave to settlements.

Settling takes room too, in the log, before it gives any back: a store that publishers had filled to the last byte could
never be drained.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from neuralcore.messaging.transport import Envelope, Settlement
from neuralcore_transports.sqlite.errors import DiskFull

__all__ = ["Room"]

_KEPT: Final = 32 * 1024 * 1024
"""Bytes: some times the log that makes a checkpoint due, whose pages may be new ones of the database."""
_SHARE: Final = 8
"""On small disks, one part in so many."""


class Room:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = str(path.parent)  # asked with every commit

    def check(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], extent: Callable[[], tuple[int, int]]
    ) -> None:
        """Raises DiskFull. What comes with a settlement, a dead letter for one, may use all the room there is.

        ``extent``: of the database with what is in its log, and of that the bytes that nothing is in. What is published
        goes into the log, and from there into the database; what is left then must do for the log that settling takes,
        half of it where the database need not grow.
        """
        if len(publishes) <= sum(settlement.after is not None for settlement in settlements):
            return
        disk = shutil.disk_usage(self._folder)
        kept = min(_KEPT, disk.total // _SHARE)
        size = sum(len(envelope.body) for envelope in publishes)
        left = disk.free - 2 * size
        if left >= 2 * kept:
            return
        whole, free_inside = extent()
        left -= max(0, whole - self._path.stat().st_size)  # what is in the log has still to go into the file
        if left < (kept if size > free_inside else kept // 2):
            raise DiskFull(str(self._path), kept)
