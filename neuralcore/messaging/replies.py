"""Requests that wait for their reply: correlation by id, deadlines, late replies dropped and counted."""

from __future__ import annotations

import asyncio
import itertools
import sys
from asyncio import current_task, get_running_loop
from typing import Any

from neuralcore.messaging.checks import check_positive
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import RequestTimeout

__all__ = ["Deadlines", "Replies"]


class Deadlines:
    """The requests of one loop with one time-out: they expire in the order they were made, so one timer serves all."""

    __slots__ = ("_loop", "_replies", "_timeout", "timer", "waiting")

    def __init__(self, replies: Replies, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self.waiting: dict[str, tuple[float, str, asyncio.Future[Any]]] = {}
        """By correlation id, oldest first: the deadline, the channel, the reply."""
        self._replies = replies
        self._loop = loop
        self._timeout = timeout
        self.timer: asyncio.TimerHandle | None = None

    def arm(self, when: float) -> None:
        self.timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self.timer = None
        now = self._loop.time()
        for correlation_id, (when, channel, reply) in list(self.waiting.items()):
            if when > now:
                self.arm(when)
                return
            del self.waiting[correlation_id]
            self._replies._expire(correlation_id, reply, RequestTimeout(channel, self._timeout))

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Replies:
    """The requests of one bus, from any of its loops."""

    def __init__(self, context: BusContext) -> None:
        self._context = context
        self._prefix = f"{context.bus_id}."
        self._numbers = itertools.count(1)
        self._replies: dict[str, asyncio.Future[Any]] = {}
        self._deadlines: dict[tuple[asyncio.AbstractEventLoop, float], Deadlines] = {}
        self._publishing: dict[str, asyncio.Task[Any] | None] = {}
        """Requests that wait for room: their reply is not awaited yet, so a deadline cancels their task."""
        self._expired: dict[str, tuple[asyncio.Task[Any], RequestTimeout]] = {}

    def __len__(self) -> int:
        return len(self._replies)

    def expect(self, channel: str, timeout: float) -> tuple[str, asyncio.Future[Any], Deadlines]:
        """The correlation id and the future reply of a request that the running task is about to publish.

        Raises TypeError or ValueError for what is no time-out; these are looked at when one is new, not per request.
        """
        loop = get_running_loop()
        try:
            deadlines = self._deadlines[loop, timeout]
        except (KeyError, TypeError):
            deadlines = self._deadlines_of(loop, timeout)
        correlation_id = f"{self._prefix}{next(self._numbers):x}"
        reply: asyncio.Future[Any] = loop.create_future()
        self._replies[correlation_id] = reply
        when = loop.time() + timeout
        deadlines.waiting[correlation_id] = (when, channel, reply)
        if deadlines.timer is None:
            deadlines.arm(when)
        self._publishing[correlation_id] = current_task()
        return correlation_id, reply, deadlines

    def published(self, correlation_id: str) -> None:
        """The request is on its way."""
        del self._publishing[correlation_id]

    def forget(self, correlation_id: str, deadlines: Deadlines) -> None:
        """The requester has its answer, or has given up."""
        deadlines.waiting.pop(correlation_id, None)
        self._replies.pop(correlation_id, None)

    def interrupted(self, correlation_id: str, reply: asyncio.Future[Any]) -> None:
        """The requester's task was cancelled, or its publish failed; raises RequestTimeout if its deadline did that."""
        self._publishing.pop(correlation_id, None)
        if reply.done() and not reply.cancelled():
            reply.exception()  # seen: an answer that comes too late to be awaited is no lost error
        task, timeout = self._expired.pop(correlation_id, (None, None))
        if task is None or timeout is None:
            return
        if sys.version_info >= (3, 11) and task.uncancel() > 0:
            return
        raise timeout from None

    def resolve(self, correlation_id: str | None, payload: Any, error: BaseException | None = None) -> None:
        """Hand a reply to its requester, from any thread; nobody there any more is counted as a late reply."""
        reply = self._replies.pop(correlation_id, None)  # type: ignore[arg-type]
        if reply is None:
            self._context.count("late_replies")
            return
        loop = reply.get_loop()
        if loop is asyncio._get_running_loop():
            if error is None and not reply.done():
                reply.set_result(payload)
            else:
                self._settle(reply, payload, error)
        else:
            try:
                loop.call_soon_threadsafe(self._settle, reply, payload, error)
            except RuntimeError:  # its loop is closed
                self._context.count("late_replies")

    def _settle(self, reply: asyncio.Future[Any], payload: Any, error: BaseException | None) -> None:
        if reply.done():
            self._context.count("late_replies")
        elif error is None:
            reply.set_result(payload)
        else:
            reply.set_exception(error)

    def _deadlines_of(self, loop: asyncio.AbstractEventLoop, timeout: float) -> Deadlines:
        check_positive("timeout", timeout)
        idle = [key for key, deadlines in list(self._deadlines.items()) if not deadlines.waiting]
        for key in idle if len(idle) > _IDLE else ():
            self._deadlines.pop(key).close()
        return self._deadlines.setdefault((loop, timeout), Deadlines(self, loop, timeout))

    def _expire(self, correlation_id: str, reply: asyncio.Future[Any], error: RequestTimeout) -> None:
        self._replies.pop(correlation_id, None)
        task = self._publishing.get(correlation_id)
        if task is not None:
            self._expired[correlation_id] = (task, error)
            task.cancel()
        elif not reply.done():
            reply.set_exception(error)

    def close(self, error: BaseException) -> None:
        """Fail what still waits for a reply. On the home loop."""
        while self._replies:
            _, reply = self._replies.popitem()
            loop = reply.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._settle, reply, None, error)
        for (loop, _), deadlines in self._deadlines.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(deadlines.close)


_IDLE = 64
"""Loops and time-outs without requests that may be remembered."""
