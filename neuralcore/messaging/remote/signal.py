"""Waking a task of the home loop, from any thread."""

from __future__ import annotations

import asyncio

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

    def waiter(self) -> asyncio.Future[None]:
        """Done once it is set. On the home loop."""
        if self._waiter is None or self._waiter.done():
            self._waiter = self._context.loop.create_future()
        if self._set:
            self._notify()
        return self._waiter

    def clear(self) -> None:
        self._set = False

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
