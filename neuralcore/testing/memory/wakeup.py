"""Waking a task from any thread, and waiting for that or for a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

__all__ = ["Wakeup", "call_on"]


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """From any thread. A loop that was closed has nobody left to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


class Wakeup:
    """A flag that one task waits for; made on its loop's thread."""

    __slots__ = ("__weakref__", "_event", "_loop", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._event = asyncio.Event()

    def set(self) -> None:
        if threading.get_ident() == self._thread:
            self._event.set()
        else:
            call_on(self._loop, self._event.set)

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until it is set, at most so long; then it is clear again."""
        timer = self._loop.call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
            self._event.clear()
