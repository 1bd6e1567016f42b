"""Waiting until another process may have written, for next to nothing while nobody does.

The kernel tells of writes to the log (inotify), which come a little before their commit can be seen: so after one, look
again and again for a while. Where the kernel tells nothing, or is found to have told nothing, look at every ``poll``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import sys
import time
from pathlib import Path
from typing import Final

__all__ = ["Watch"]

_MODIFY: Final = 0x2
_PAUSE: Final = 0.004
"""Seconds between two looks while there is something to see."""
_LIVELY: Final = 0.1
"""For so long after a write its commit is looked for."""
_GLANCE: Final = 0.1
"""Between two looks when nothing was told: also how late the process notices that it is to stop."""


class Watch:
    def __init__(self, log: Path, poll: float) -> None:
        self._poll = poll
        self._file = _inotify(log)
        self._told = time.monotonic()
        self._poller = select.poll()
        if self._file >= 0:
            self._poller.register(self._file, select.POLLIN)

    def wait(self) -> None:
        """Return when it is time to look."""
        if self._file < 0:
            time.sleep(self._poll)
        elif time.monotonic() - self._told < _LIVELY:
            time.sleep(_PAUSE)
            self._drain()
        else:
            self._poller.poll(_GLANCE * 1000)
            self._drain()

    def saw_a_change(self) -> None:
        """Whoever looked found something; if the kernel had not told of it, it cannot be relied on here."""
        if self._file >= 0 and time.monotonic() - self._told > _LIVELY + 10 * _GLANCE:
            self.close()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(self._file, 65536):
                self._told = time.monotonic()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _inotify(path: Path) -> int:
    """A descriptor that can be read once the file was written to; negative where there is none to be had."""
    if sys.platform != "linux":
        return -1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        file = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    except (OSError, AttributeError):  # not Linux
        return -1
    if file >= 0 and libc.inotify_add_watch(file, os.fsencode(path), _MODIFY) < 0:
        os.close(file)
        return -1
    return file
