"""Who is alive: every owner holds a lock that dies with its process, so that others need not wait for its lease.

One byte of a side file for each owner, by locks that belong to the open file (F_OFD_SETLK): unlike those of a process,
they are not given up when something else in it closes the file, and a forked child that closes its copy takes nothing.
Where there are no such locks, leases run out instead.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Final

from neuralcore.messaging.forking import tell_after_fork

__all__ = ["SUPPORTED", "Liveness"]

if sys.platform == "linux":
    import fcntl

SUPPORTED: Final = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
_ALL: Final = 0
_FLOCK: Final = "@hhqqi0q"  # type, whence, start, length, pid


class Liveness:
    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f"{store.name}-owners")
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        tell_after_fork(self)

    def hold(self, owner: int) -> None:
        """From here on until ``close``, or the end of this process."""
        if SUPPORTED:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, owner))

    def let_go(self, owner: int) -> None:
        if SUPPORTED:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, owner))

    def is_alive(self, owner: int) -> bool:
        """Of another one than this object's own; True where nobody can tell."""
        if not SUPPORTED:
            return True
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, owner))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def is_anybody_alive(self) -> bool:
        """Of all owners but this object's; False where nobody can tell."""
        if not SUPPORTED:
            return False
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, 0, _ALL))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def forked(self) -> None:
        """The child's copy would keep its parent alive in the eyes of others."""
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(kind: int, owner: int, owners: int = 1) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, owner, owners, 0)
