"""Requests that wait for their reply: correlation by id, deadlines, late replies dropped and counted."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from collections.abc import Callable
from typing import Any

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import RequestTimeout

__all__ = ["Pending", "Replies"]

_SLACK = 64
"""Finished requests whose deadlines may stay in the heap before it is rebuilt."""


class Pending:
    """One request that waits: first for room, then for its reply."""

    __slots__ = ("_expired", "_publishing", "channel", "correlation_id", "loop", "reply", "timeout")

    def __init__(self, correlation_id: str, channel: str, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self.correlation_id = correlation_id
        self.channel = channel
        self.timeout = timeout
        self.loop = loop
        self.reply: asyncio.Future[Any] = loop.create_future()
        self._publishing = asyncio.current_task(loop)
        self._expired = False

    def published(self) -> None:
        """The request is on its way."""
        self._publishing = None

    def expire(self) -> None:
        if self._publishing is not None:
            self._expired = True
            self._publishing.cancel()
        elif not self.reply.done():
            self.reply.set_exception(RequestTimeout(self.channel, self.timeout))

    def raise_if_expired(self) -> None:
        """Inside the CancelledError that ``expire`` sent, and only there, raises RequestTimeout in its place."""
        if not self._expired:
            return
        self._expired = False
        task = self._publishing
        if task is not None and sys.version_info >= (3, 11) and task.uncancel() > 0:
            return
        raise RequestTimeout(self.channel, self.timeout) from None


class _Deadlines:
    """One timer per loop for all its requests, instead of one per request."""

    __slots__ = ("_expire", "_handle", "_heap", "_live", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[str], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, str]] = []
        self._live: set[str] = set()
        self._handle: asyncio.TimerHandle | None = None

    def add(self, correlation_id: str, timeout: float) -> None:
        when = self._loop.time() + timeout
        self._live.add(correlation_id)
        heapq.heappush(self._heap, (when, correlation_id))
        if self._handle is None or when < self._handle.when():
            self._arm(when)

    def remove(self, correlation_id: str) -> None:
        self._live.discard(correlation_id)
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._heap = [entry for entry in self._heap if entry[1] in self._live]
            heapq.heapify(self._heap)

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            correlation_id = heapq.heappop(self._heap)[1]
            if correlation_id in self._live:
                self._live.discard(correlation_id)
                self._expire(correlation_id)
        while self._heap and self._heap[0][1] not in self._live:
            heapq.heappop(self._heap)
        if self._heap:
            self._arm(self._heap[0][0])

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Replies:
    """The requests of one bus, from any of its loops."""

    def __init__(self, context: BusContext) -> None:
        self._context = context
        self._pending: dict[str, Pending] = {}
        self._deadlines: dict[asyncio.AbstractEventLoop, _Deadlines] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._pending)

    def expect(self, channel: str, timeout: float) -> Pending:
        """A request of the running task, with a correlation id of its own."""
        loop = asyncio.get_running_loop()
        pending = Pending(f"{self._context.bus_id}.{next(self._numbers):x}", channel, timeout, loop)
        self._pending[pending.correlation_id] = pending
        deadlines = self._deadlines.get(loop)
        if deadlines is None:
            deadlines = self._deadlines[loop] = _Deadlines(loop, self._expire)
        deadlines.add(pending.correlation_id, timeout)
        return pending

    def forget(self, pending: Pending) -> None:
        """The requester has its answer, or has given up."""
        self._pending.pop(pending.correlation_id, None)
        if pending.reply.done() and not pending.reply.cancelled():
            pending.reply.exception()  # seen, also when the publish failed before anyone waited for the reply
        self._deadlines[pending.loop].remove(pending.correlation_id)

    def resolve(self, correlation_id: str | None, payload: Any, error: BaseException | None) -> bool:
        """Hand a reply to its requester, from any thread; False (and counted) when nobody waits for it any more."""
        pending = self._pending.pop(correlation_id, None) if correlation_id is not None else None
        if pending is None or pending.loop.is_closed():
            self._context.count("late_replies")
            return False
        if asyncio._get_running_loop() is pending.loop:
            self._settle(pending, payload, error)
        else:
            pending.loop.call_soon_threadsafe(self._settle, pending, payload, error)
        return True

    def _settle(self, pending: Pending, payload: Any, error: BaseException | None) -> None:
        if pending.reply.done():
            self._context.count("late_replies")
        elif error is not None:
            pending.reply.set_exception(error)
        else:
            pending.reply.set_result(payload)

    def _expire(self, correlation_id: str) -> None:
        pending = self._pending.pop(correlation_id, None)
        if pending is not None:
            pending.expire()

    def close(self, error: BaseException) -> None:
        """Fail what still waits for a reply. On the home loop."""
        while self._pending:
            _, pending = self._pending.popitem()
            if not pending.loop.is_closed():
                pending.loop.call_soon_threadsafe(self._settle, pending, None, error)
        for loop, deadlines in self._deadlines.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(deadlines.close)
