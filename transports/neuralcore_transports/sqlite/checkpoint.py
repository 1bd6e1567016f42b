"""Moving what is committed from the log into the database, so that the log stays short.

SQLite before 3.51.3 (but 3.44.6 and 3.50.7) can damage a file when one connection checkpoints while another one
writes (https://sqlite.org/wal.html#walresetbug). So nobody checkpoints by itself, and whoever does holds the write
lock meanwhile, with a second connection: no writer, in any process and of any program, can be under way. Later versions
move most of it without that lock, and take it only for the rest, after which the next writer begins the log anew.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Final

from neuralcore_transports.sqlite.log import LogFile, log_of
from neuralcore_transports.sqlite.opening import connect
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.room import Room
from neuralcore_transports.sqlite.store.transaction import Book, is_busy

__all__ = ["Checkpointer", "safe_beside_writers"]

_DUE: Final = 8 * 1024 * 1024
"""Bytes of log."""
_AHEAD: Final = 2 * 1024 * 1024
"""Bytes by which the file of the log is longer than what is in use, where every commit is synced."""
_ROOMY: Final = 64 * 1024 * 1024
"""With fewer bytes free on the disk, none are taken ahead."""
_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
"""Seconds until it is tried again to begin the log anew."""


class Checkpointer:
    def __init__(self, options: SqliteOptions) -> None:
        self._log = log_of(options.path)
        self._room = Room(options.path)
        self._file = LogFile(self._log)
        self._locker = connect(options.path)
        self._worker = connect(options.path)
        self._book = Book(self._locker, patience=options.busy, level=options.level)
        Book(self._worker, patience=options.busy).waiting(f"PRAGMA synchronous = {options.level}")
        self._syncs = options.level == "FULL"
        self._threshold = _DUE
        self._looked_at = 0
        self._again = 0.0
        self._pause = _PAUSE

    def look(self) -> bool:
        """Do what is to be done; whether there is more, although nobody writes. Raises sqlite3.Error, OSError."""
        used = self._file.used()
        scarce = self._room.is_scarce(self._worker)
        if self._is_due(used, scarce=scarce):
            self._looked_at = used
            self._run(scarce=scarce)
            used = self._looked_at = self._file.used()
            scarce = self._room.is_scarce(self._worker)
        if self._syncs and self._file.size() - used < _AHEAD // 2 and self._room.free >= _ROOMY:
            self._make_room()
        return scarce

    def _is_due(self, used: int, *, scarce: bool) -> bool:
        if used >= self._threshold:
            return True
        if used == self._looked_at:
            return scarce and time.monotonic() >= self._again
        return scarce or used > self._room.free // 4

    def _run(self, *, scarce: bool) -> None:
        if safe_beside_writers(sqlite3.sqlite_version_info) and not scarce:
            self._move()
        try:
            with self._book.write():
                if scarce:
                    self._cut()
                left = self._move()
            if not left and self._room.free < _ROOMY:
                self._begin_anew()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            left = True
        # Somebody who reads what was before keeps the log from beginning anew: do not try at every look.
        self._threshold = self._file.used() + _DUE // 4 if left else _DUE

    def _begin_anew(self) -> None:
        """A writer who begins while all is moved, and nobody reads what was before, makes the log short; if somebody
        reads, he makes it longer.
        """
        now = time.monotonic()
        if now >= self._again:
            self._book.waiting("UPDATE nc_store SET next = next + 1")
            self._pause = _PAUSE if self._room.is_short() else min(2 * self._pause, _LONGEST_PAUSE)
            self._again = now + self._pause

    def _make_room(self) -> None:
        """Lengthen the file of the log before commits have to: syncing what overwrites takes a fraction of the time, as
        the file system then has nothing to note. SQLite takes what follows the last commit for what it is, nothing.
        """
        with self._book.write():  # nobody else writes to it meanwhile
            file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(file, bytes(max(0, _AHEAD - (self._file.size() - self._file.used()))))
                os.fsync(file)
            finally:
                os.close(file)

    def _cut(self) -> None:
        """Give back what a transaction has taken that was undone for lack of room. Nobody reads it, nor writes now."""
        committed = self._file.committed()
        if committed < self._file.size():
            os.truncate(self._log, committed)

    def _move(self) -> bool:
        """Whether something could not be moved."""
        _, in_log, moved = self._worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(moved < in_log)

    def close(self) -> None:
        self._file.close()
        self._worker.close()
        self._locker.close()


def safe_beside_writers(version: tuple[int, ...]) -> bool:
    """Whether this version of SQLite may checkpoint while another connection writes."""
    return version >= (3, 51, 3) or version[:3] in ((3, 44, 6), (3, 50, 7))
