"""Waking a task of the home loop, from any thread."""

from __future__ import annotations

import asyncio
from typing import Any

from neuralcore.messaging.context import BusContext

__all__ = ["Signal"]


class Signal:
    """A flag that one task waits for and clears."""

    __slots__ = ("_context", "_set", "_waiter")

    def __init__(self, context: BusContext) -> None:
        self._context = context
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        if not self._set:
            self._set = True
            self._context.call_home(self._notify)

    async def wait(self, task: asyncio.Future[Any] | None = None) -> None:
        """Until it is set, or the task is done. On the home loop."""
        if self._set:
            return
        self._waiter = self._context.loop.create_future()
        if task is not None:
            task.add_done_callback(self._notify)
        await self._waiter

    def clear(self) -> None:
        self._set = False

    def _notify(self, task: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
