"""The last room on the disk: what publishes leave to settlements, and all of them to moving the log.

Settling takes room too, in the log, before it gives any back: a store that publishers had filled to the last byte could
never be drained. And a log that had taken the room which the database needs to grow could never be moved there, nor
become shorter.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
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
_PATIENCE: Final = 0.5
"""Seconds that a writer gives those who move the log."""
_NAP: Final = 0.005


class Room:
    def __init__(self, path: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._path = path
        self._folder = str(path.parent)  # asked with every commit
        self._sleep = sleep

    @property
    def free(self) -> int:
        """Bytes of the disk."""
        return shutil.disk_usage(self._folder).free

    def check(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], connection: sqlite3.Connection
    ) -> None:
        """Raises DiskFull. What comes with a settlement, a dead letter for one, may use all the room there is.

        What is published goes into the log, and from there into the database; what is left then must do for the log
        that settling takes, half of it where the database need not grow.
        """
        if len(publishes) <= sum(settlement.after is not None for settlement in settlements):
            return
        free, kept = self._look()
        size = sum(len(envelope.body) for envelope in publishes)
        left = free - 2 * size
        if left >= 2 * kept:
            return
        left -= self.to_move(connection)
        if left < (kept if size > _unused(connection) else kept // 2):
            raise DiskFull(str(self._path), kept)

    def await_moving(self, connection: sqlite3.Connection) -> None:
        """Before writing: let the log be moved while there is room for that. Blocks; outside of a transaction. Raises
        DiskFull when it is not moved.
        """
        deadline = time.monotonic() + _PATIENCE
        while self.is_scarce(connection) and self.to_move(connection):
            if time.monotonic() > deadline:
                raise DiskFull(str(self._path))
            self._sleep(_NAP)

    def is_scarce(self, connection: sqlite3.Connection) -> bool:
        """A few commits more, and there might be too little to move the log."""
        free, kept = self._look()
        return free < 2 * kept and free < kept // 2 + self.to_move(connection)

    def _look(self) -> tuple[int, int]:
        disk = shutil.disk_usage(self._folder)
        return disk.free, min(_KEPT, disk.total // _SHARE)

    def to_move(self, connection: sqlite3.Connection) -> int:
        """Bytes by which the database's file grows when its log is moved there."""
        ((whole,),) = connection.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return max(0, int(whole) - self._path.stat().st_size)


def _unused(connection: sqlite3.Connection) -> int:
    """Bytes inside the database that nothing is in."""
    ((size,),) = connection.execute("SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size")
    return int(size)
