"""Calling into an event loop from wherever one is: a bus has workers, requesters and streams on several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["in_loop", "on_loop"]


def on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call it now when this is the loop's own thread, else soon."""
    if asyncio._get_running_loop() is loop:
        callback()
    else:
        loop.call_soon_threadsafe(callback)


async def in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function or coroutine function in its loop; True when that loop is gone, and its tasks with it."""

    async def call() -> Any:
        result = function(*args, **kwargs)
        return await result if isinstance(result, Coroutine) else result

    if asyncio.get_running_loop() is loop:
        return await call()
    if loop.is_closed():
        return True
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))
