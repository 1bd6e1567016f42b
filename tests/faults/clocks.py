"""A wall clock that jumps while processes run, and restarts of the machine.

>>> clock = Clock(tmp_path)
>>> worker = Worker.python(SCRIPT, env=clock.environment())     # or clock.environment(power.environment())
>>> clock.jump(-7200)                                           # for running processes too, at once
>>> worker.kill(); clock.restart()                              # processes started from now on see a fresh boot

``jump`` moves CLOCK_REALTIME (``time.time``, gettimeofday, SQLite's ``'now'``) and leaves CLOCK_MONOTONIC and
CLOCK_BOOTTIME alone. ``restart`` moves those two, but never CLOCK_MONOTONIC_RAW: the observer keeps time by it. No
package is needed. (libfaketime 0.9.10 leaves both alone too with FAKETIME_DONT_FAKE_MONOTONIC=1, and fakes both
without; it knows no restarts.)
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.faults.shims import preloaded

__all__ = ["Clock"]

OFFSETS = struct.Struct("<qq")  # as in clock.c: nanoseconds on the wall clock, and on those that count from boot
UPTIME = 5.0


class Clock:
    def __init__(self, folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clock-", dir=folder)).resolve()
        path = self.folder / "offsets"
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 4096)

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """For subprocess: ``base`` (by default this process's own) with the shim in it."""
        return preloaded("clock", base, NC_CLOCK=str(self.folder))

    @property
    def offset(self) -> float:
        """Seconds by which the wall clock of the processes is ahead of the real one."""
        return float(OFFSETS.unpack_from(self._shared)[0] / 1e9)

    def jump(self, seconds: float) -> None:
        struct.pack_into("<q", self._shared, 0, round((self.offset + seconds) * 1e9))

    def restart(self) -> None:
        """The machine boots: a new boot id, and clocks that count from boot at a few seconds.

        For processes that start from now on; those that live keep their clocks, and should have been killed. They read
        the new boot id if they look again.
        """
        real = max(time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC))
        struct.pack_into("<q", self._shared, 8, round((UPTIME - real) * 1e9))
        fresh = self.folder / "boot_id.new"
        fresh.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        fresh.replace(self.folder / "boot_id")
