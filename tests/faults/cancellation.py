"""Cancellation at every await point.

Two ways to get at them. ``cancelled_at`` (the conformance suite's, re-exported) counts turns of the loop: a task is
cancelled at the n-th turn, wherever it is, as an application would. ``thrown_at`` counts the coroutine's own
suspensions and throws at exactly the n-th, which turns cannot promise of work that waits for threads or sockets.

>>> async for n, outcome in every_point(lambda: transport.commit([envelope])):
...     ...                                   # outcome.done: it had no n-th point, and returned outcome.value
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

from neuralcore.testing.conformance.promises.cancellation import cancelled_at

__all__ = ["Outcome", "cancelled_at", "every_point", "thrown_at"]


@dataclass(frozen=True, slots=True)
class Outcome:
    done: bool
    """It returned, rather than being cancelled: it has no such point, or it finished in spite of it."""
    reached: bool
    """The point was reached, so that CancelledError was thrown."""
    value: Any = None
    error: BaseException | None = None
    """What it raised in answer to the cancellation, if that was something else."""


async def thrown_at(point: int, start: Callable[[], Awaitable[Any]]) -> Outcome:
    """Run it, and throw CancelledError in at its ``point``-th suspension, from 0, as soon as it suspends there.

    What it then waited for is cancelled first, as ``Task.cancel`` does it. An error without a cancellation is raised.
    """
    counter = _Counter(point)
    task = asyncio.ensure_future(counter.drive(start()))
    counter.task = task
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    if task.cancelled():
        error: BaseException | None = asyncio.CancelledError()
    else:
        error = task.exception()
    if error is None:
        return Outcome(True, counter.reached, task.result())
    if not counter.reached:
        raise error
    return Outcome(False, True, error=None if isinstance(error, asyncio.CancelledError) else error)


async def every_point(start: Callable[[], Awaitable[Any]], *, most: int = 1000) -> AsyncIterator[tuple[int, Outcome]]:
    """``thrown_at`` 0, 1, 2 … until the work ends before its point; that last outcome is yielded too."""
    for point in range(most):
        outcome = await thrown_at(point, start)
        yield point, outcome
        if not outcome.reached:
            return
    raise AssertionError(f"it has more than {most} points")


class _Counter:
    def __init__(self, point: int) -> None:
        self.point = point
        self.reached = False
        self.task: asyncio.Task[Any] | None = None

    async def drive(self, work: Awaitable[Any]) -> Any:
        return await self._counted(work)

    @types.coroutine
    def _counted(self, work: Awaitable[Any]) -> Generator[Any, Any, Any]:
        inner = work.__await__()
        step, argument = inner.send, None
        while True:
            try:
                waited_for = step(argument)
            except StopIteration as stop:
                return stop.value
            if self.point == 0:
                self.reached = True
                assert self.task is not None
                asyncio.get_running_loop().call_soon(self.task.cancel)
            self.point -= 1
            try:
                argument = yield waited_for
                step = inner.send
            except BaseException as error:
                argument, step = error, inner.throw
