"""Work that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from neuralcore.messaging.transport import Runtime

__all__ = ["Background"]

log = logging.getLogger("neuralcore.redis")


class Background:
    """On one loop. What goes wrong is counted and logged."""

    def __init__(self, runtime: Runtime, where: str) -> None:
        self._runtime = runtime
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        self._runtime.count("upkeep_failed")
        log.warning("something beside the work failed, on Redis at %s: %r", self._where, error)

    async def close(self) -> None:
        """What is not through is cancelled."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
