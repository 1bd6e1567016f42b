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
from neuralcore_transports.sqlite.log import log_bytes, log_of

__all__ = ["Room"]

_KEPT: Final = 32 * 1024 * 1024
"""Bytes: some times the log that makes a checkpoint due, whose pages may be new ones of the database."""
_SHARE: Final = 8
"""On small disks, one part in so many."""
_TWICE: Final = 2
"""What is published goes into the log, and from there into the database."""


class Room:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = log_of(path)

    def check(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], free_inside: Callable[[], int]
    ) -> None:
        """Raises DiskFull. What comes with a settlement, a dead letter for one, may use all the room there is.

        ``free_inside``: bytes of the database that nothing is in.
        """
        if len(publishes) <= sum(settlement.after is not None for settlement in settlements):
            return
        disk = shutil.disk_usage(self._path.parent)
        kept = min(_KEPT, disk.total // _SHARE)
        lacking = kept + _TWICE * sum(len(envelope.body) for envelope in publishes) - disk.free
        if lacking > 0 and lacking > min(self._free_in_log(), free_inside()):
            raise DiskFull(str(self._path), kept)

    def _free_in_log(self) -> int:
        try:
            return self._log.stat().st_size - log_bytes(self._log)
        except FileNotFoundError:
            return 0
