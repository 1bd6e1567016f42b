"""The last room on the disk: what publishes leave to settlements, and all of them to moving the log.

Settling takes room too, in the log, before it gives any back: a store that publishers had filled to the last byte could
never be drained. And a log that had taken the room which the database needs to grow could never be moved there, nor
become shorter.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from neuralcore.messaging.transport import Envelope, Settlement
from neuralcore_transports.sqlite.errors import DiskFull
from neuralcore_transports.sqlite.log import log_of

__all__ = ["Room", "log_limit"]

_KEPT: Final = 32 * 1024 * 1024
"""Bytes: some times the log that makes a checkpoint due, whose pages may be new ones of the database."""
_SHARE: Final = 8
"""On small disks, one part in so many."""
_LOG_LIMIT: Final = 64 * 1024 * 1024
_LOG_SHARE: Final = 64
"""On small disks, one part in so many."""
_PATIENCE: Final = 0.5
"""Seconds that a writer gives those who move the log."""
_NAP: Final = 0.005
_PAUSE: Final = 1.0
"""Seconds after waiting in vain, in which nobody waits."""


def log_limit(path: Path) -> int:
    """Bytes that the file of an emptied log keeps of what it had grown to."""
    return min(_LOG_LIMIT, shutil.disk_usage(path.parent).total // _LOG_SHARE)


class Room:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = str(log_of(path))
        self._folder = str(path.parent)
        self._hopeless_until = 0.0

    # For writers, before a transaction. They block, while keepers are about to make room.

    def check(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], connection: sqlite3.Connection
    ) -> None:
        """Raises DiskFull. What comes with a settlement, a dead letter for one, may use all the room there is."""
        size = _published(publishes, settlements)
        if self._is_ample(size or 0):
            return
        self.await_moving(connection)
        if size is not None:
            self._wait(lambda: 0 < self._missing(connection, size) <= self._to_give())
            self.check_inside(publishes, settlements, connection)

    def check_inside(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], connection: sqlite3.Connection
    ) -> None:
        """The same inside a transaction, which keepers wait for: it does not wait."""
        size = _published(publishes, settlements)
        if size is not None and self._missing(connection, size) > 0:
            raise DiskFull(str(self._path), self._look()[1])

    def await_moving(self, connection: sqlite3.Connection) -> None:
        """Before anything is written: the log must not take the room for moving it. Raises DiskFull."""
        if not self._wait(lambda: self._is_below(connection, 2) and self._can_grow(connection)):
            raise DiskFull(str(self._path))

    def _wait(self, pending: Callable[[], bool]) -> bool:
        """Whether it ended."""
        deadline = time.monotonic() + _PATIENCE
        while pending():
            now = time.monotonic()
            if now > deadline:
                self._hopeless_until = now + _PAUSE
            if now < self._hopeless_until:
                return False
            time.sleep(_NAP)
        self._hopeless_until = 0.0
        return True

    def is_small(self) -> bool:
        """Publishes may be refused soon."""
        return not self._is_ample(0)

    # For keepers

    @property
    def free(self) -> int:
        """Bytes of the disk."""
        return self._look()[0]

    def is_scarce(self, connection: sqlite3.Connection) -> bool:
        """Publishes are refused, or soon will be, and moving the log, or making it short, makes more."""
        return self._is_below(connection, 1) and self._can_grow(connection)

    def is_short(self) -> bool:
        """The log's file is, as it is once it has begun anew."""
        return self._to_give() == 0

    # What there is

    def _is_ample(self, size: int) -> bool:
        """Quickly found out; there may be room without."""
        free, kept = self._look()
        return free >= kept + 2 * size + self._log_size()

    def _missing(self, connection: sqlite3.Connection, size: int) -> int:
        """Bytes for publishing so many.

        They go into the log, and from there into the database; what is left then must do for the log that settling
        takes, half of it where the database need not grow.
        """
        if self._is_ample(size):
            return 0
        free, kept = self._look()
        return (kept if size > _unused(connection) else kept // 2) - (free - 2 * size - self._to_move(connection))

    def _is_below(self, connection: sqlite3.Connection, part: int) -> bool:
        """Less than one part in so many of what publishes leave remains once the log is moved."""
        if self._is_ample(0):
            return False
        free, kept = self._look()
        return free - self._to_move(connection) < kept // part

    def _can_grow(self, connection: sqlite3.Connection) -> bool:
        """Moving the log and beginning it anew would make room, or use what is reserved for it."""
        return not self.is_short() or self._to_move(connection) > 0

    def _look(self) -> tuple[int, int]:
        """Bytes that are free, and those that publishes leave. Asked with every commit."""
        disk = shutil.disk_usage(self._folder)
        return disk.free, min(_KEPT, disk.total // _SHARE)

    def _log_size(self) -> int:
        """Bytes: at least what there is to move."""
        return os.stat(self._log).st_size  # noqa: PTH116 - asked with every commit

    def _to_give(self) -> int:
        """Bytes that the log's file gives back when it begins anew."""
        return max(0, self._log_size() - log_limit(self._path))

    def _to_move(self, connection: sqlite3.Connection) -> int:
        """Bytes by which the database's file grows when its log is moved there."""
        ((whole,),) = connection.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return max(0, int(whole) - self._path.stat().st_size)


def _published(publishes: Sequence[Envelope], settlements: Sequence[Settlement]) -> int | None:
    """Bytes; None for what is not held back: nothing but what comes with a settlement."""
    if len(publishes) <= sum(settlement.after is not None for settlement in settlements):
        return None
    return sum(len(envelope.body) for envelope in publishes)


def _unused(connection: sqlite3.Connection) -> int:
    """Bytes inside the database that nothing is in."""
    ((size,),) = connection.execute("SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size")
    return int(size)
