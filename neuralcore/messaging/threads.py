"""The bounded pool of threads that plain functions run in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from neuralcore.messaging.checks import check_count

__all__ = ["Threads"]


class Threads:
    def __init__(self, count: int | None, *, name: str) -> None:
        """``count``: None for a few more than there are processors. Raises TypeError, ValueError."""
        if count is None:
            count = min(32, (os.cpu_count() or 1) + 4)
        check_count("executor_threads", count)
        self.executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call it in a thread, in a copy of the caller's context."""
        call = partial(copy_context().run, _without_stop_iteration, function, args)
        return await asyncio.get_running_loop().run_in_executor(self.executor, call)

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self.executor.shutdown(wait=False)


def _without_stop_iteration(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call it; a StopIteration becomes a RuntimeError, as in a coroutine: no future can carry one."""
    try:
        return function(*args)
    except StopIteration as error:
        raise RuntimeError(f"a plain function raised {error!r}") from error
