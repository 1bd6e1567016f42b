"""Requests that wait for their reply: correlation by id, deadlines, late replies dropped and counted."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import RequestTimeout

__all__ = ["Replies"]

_SLACK = 64
"""Finished requests whose deadlines may stay in the heap before it is rebuilt."""


@dataclass(eq=False, slots=True)
class _Pending:
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    channel: str
    timeout: float


class _Deadlines:
    """One timer per loop for all its requests, instead of one per request."""

    __slots__ = ("_expire", "_handle", "_heap", "_live", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[str], bool]) -> None:
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
        self._pending: dict[str, _Pending] = {}
        self._deadlines: dict[asyncio.AbstractEventLoop, _Deadlines] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._pending)

    def expect(self, channel: str, timeout: float) -> tuple[str, asyncio.Future[Any]]:
        """A new correlation id and the future of its reply, on the running loop."""
        loop = asyncio.get_running_loop()
        correlation_id = f"{self._context.bus_id}.{next(self._numbers):x}"
        future: asyncio.Future[Any] = loop.create_future()
        self._pending[correlation_id] = _Pending(future, loop, channel, timeout)
        deadlines = self._deadlines.get(loop)
        if deadlines is None:
            deadlines = self._deadlines[loop] = _Deadlines(loop, self._expire)
        deadlines.add(correlation_id, timeout)
        return correlation_id, future

    def forget(self, correlation_id: str) -> None:
        """The requester has its answer, or has given up."""
        pending = self._pending.pop(correlation_id, None)
        if pending is not None:
            self._deadlines[pending.loop].remove(correlation_id)

    def resolve(self, correlation_id: str | None, payload: Any, error: BaseException | None) -> bool:
        """Hand a reply to its requester, from any thread; False (and counted) when nobody waits for it any more."""
        pending = self._pending.pop(correlation_id, None) if correlation_id is not None else None
        if pending is None or pending.loop.is_closed():
            self._context.count("late_replies")
            return False
        if asyncio._get_running_loop() is pending.loop:
            self._settle(pending, correlation_id, payload, error)
        else:
            pending.loop.call_soon_threadsafe(self._settle, pending, correlation_id, payload, error)
        return True

    def _settle(self, pending: _Pending, correlation_id: str | None, payload: Any, error: BaseException | None) -> None:
        if correlation_id is not None:
            self._deadlines[pending.loop].remove(correlation_id)
        if pending.future.done():
            self._context.count("late_replies")
        elif error is not None:
            pending.future.set_exception(error)
        else:
            pending.future.set_result(payload)

    def _expire(self, correlation_id: str) -> bool:
        pending = self._pending.pop(correlation_id, None)
        if pending is None or pending.future.done():
            return False
        pending.future.set_exception(RequestTimeout(pending.channel, pending.timeout))
        return True

    def close(self, error: BaseException) -> None:
        """Fail what still waits. On the home loop."""
        while self._pending:
            correlation_id, pending = self._pending.popitem()
            if not pending.loop.is_closed():
                pending.loop.call_soon_threadsafe(self._settle, pending, correlation_id, None, error)
        for loop, deadlines in self._deadlines.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(deadlines.close)
