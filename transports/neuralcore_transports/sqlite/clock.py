"""The store's time: all processes of this machine agree on it, and neither the wall clock nor a reboot makes it jump.

Within one boot it is CLOCK_BOOTTIME, shifted. The first process of a new boot goes on where the last one was seen, plus
what the wall clock says has passed since, if that is not negative: across a reboot there is no other clock.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from pathlib import Path

from neuralcore._core import Clock
from neuralcore_transports.sqlite.store.moment import Moment

__all__ = ["StoreClock", "boot_id", "boottime_ns"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def boot_id() -> str:
    """The same for all processes until this machine boots again."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return f"{sys.platform} {round((time.time_ns() - time.monotonic_ns()) / 60e9)}"  # to the minute


def boottime_ns() -> int:
    """Goes on while the machine sleeps, where the platform has such a clock."""
    return time.monotonic_ns() if _BOOTTIME is None else time.clock_gettime_ns(_BOOTTIME)


class StoreClock:
    def __init__(self, clock: Clock) -> None:
        """``clock``: for the time of day."""
        self._clock = clock
        self._shift = 0
        self.boot = boot_id()

    def now(self) -> Moment:
        return Moment(boottime_ns() + self._shift, self._clock.time_ns())

    def join(self, connection: sqlite3.Connection) -> None:
        """Take the store's time over, in a write transaction that the caller began."""
        boot, shift, mono, wall = connection.execute("SELECT boot, shift, mono, wall FROM nc_store").fetchone()
        if boot == self.boot:
            self._shift = shift
            return
        passed = max(0, self._clock.time_ns() - wall)
        self._shift = mono + passed - boottime_ns()
        self.remember(connection)

    def remember(self, connection: sqlite3.Connection) -> None:
        """Where the store's time is now, for the next boot."""
        now = self.now()
        connection.execute(
            "UPDATE nc_store SET boot = ?, shift = ?, mono = ?, wall = ?", (self.boot, self._shift, now.mono, now.wall)
        )
