"""The tasks that serve one subscription: a pump each, replaced when one is cancelled from outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from neuralcore._core import Pump
from neuralcore.messaging.context import BusContext, handling
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.watchdog import watchdog

__all__ = ["Workers"]


class Workers:
    """Bound to one loop; start, swap and stop run on it."""

    def __init__(
        self,
        context: BusContext,
        intake: Intake,
        call: Callable[[Any], Any],
        *,
        loop: asyncio.AbstractEventLoop,
        concurrency: int,
        batch: int,
        timeout: float | None,
        name: str,
    ) -> None:
        self.loop = loop
        self._context = context
        self._intake = intake
        self._call = call
        self._concurrency = concurrency
        self._batch = batch
        self._timeout = timeout
        self.name = name
        self.thread = 0
        """Of the loop, once they run."""
        self._tasks: dict[asyncio.Task[None], Pump] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._base = _base_context(context)

    def start(self) -> None:
        self.thread = threading.get_ident()
        for _ in range(self._concurrency):
            self._spawn()

    def swap(self, call: Callable[[Any], Any]) -> None:
        """Each worker finishes what it has; then one that calls ``call`` takes its place."""
        self._call = call
        for task, pump in list(self._tasks.items()):
            self._retired.add(task)
            pump.stop()

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """That task is one of these workers, so its code is inside a handler."""
        return task in self._tasks

    @property
    def busy(self) -> int:
        """How many are inside a handler, or settling after it. From any thread."""
        return sum(pump.current is not None for pump in list(self._tasks.values()))

    async def finish(self, timeout: float | None) -> bool:
        """Wait until every worker has ended: after the mailbox was closed, or after ``stop``. False: some have not."""
        end = None if timeout is None else self.loop.time() + timeout
        while waiting := set(self._tasks):
            left = None if end is None else end - self.loop.time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait(waiting, timeout=left)
        return True

    def stop(self, *, cancel: bool) -> None:
        """End after the current messages; with ``cancel`` at once, giving the current messages back.

        A handler that asks for it is not cancelled itself.
        """
        self._stopping = True
        for task, pump in list(self._tasks.items()):
            now = cancel and task is not asyncio.current_task()
            pump.stop(cancel=now)
            if now:
                task.cancel()

    def _spawn(self) -> None:
        pump = Pump(
            self._intake.mailbox,
            self._intake.settlement.around(self._call, batch=bool(self._batch)),
            failed=self._intake.settlement.failed,
            replied=self._intake.settlement.replied,
            settled=self._intake.settlement.settled,
            batch=self._batch,
            timeout=self._timeout,
            context=self._base,
            slice_ns=0 if self._context.clock.manual else 1_000_000,
            name=self.name,
        )
        task: asyncio.Task[None] = self.loop.create_task(pump, name=self.name)
        # A worker replaced while asyncio.run() cancels everything would otherwise be reported as destroyed.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks[task] = pump
        watchdog.watch(self)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not self._tasks:
            watchdog.forget(self)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.loop.call_exception_handler(
                {
                    "message": f"a worker of {self.name} failed outside its handler; it is replaced",
                    "exception": error,
                    "task": task,
                }
            )
        lost = task.cancelled() or error is not None or task in self._retired
        self._retired.discard(task)
        if lost and not self._stopping and not self._done():
            self.loop.call_soon(self._replace)

    def _done(self) -> bool:
        mailbox = self._intake.mailbox
        return mailbox.closed and mailbox.depth() == 0

    def _replace(self) -> None:
        if not self._stopping and not self.loop.is_closed():
            self._spawn()


def _base_context(context: BusContext) -> Context:
    base = copy_context()
    base.run(handling.set, context)
    return base
