"""Waiting for so long and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["within"]

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Raises asyncio.TimeoutError, when the work has been cancelled.

    Before Python 3.12 ``asyncio.wait_for`` forgets that it was cancelled if the work is done at that very moment: its
    task goes on as if nothing had been said, and whoever waits for its end waits for ever.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        in_time = task.done()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody may ask
    if not in_time:
        raise asyncio.TimeoutError
    return task.result()
