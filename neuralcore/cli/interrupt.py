"""Ctrl-C that cancels the main task and lets it close what it opened."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["interruptible"]

T = TypeVar("T")


def interruptible(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, on every version of Python: 3.10 would raise KeyboardInterrupt wherever it is, in any task.

    Raises KeyboardInterrupt once the main task has ended.
    """

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError):  # Windows, where asyncio.run has to do
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        return await main

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
