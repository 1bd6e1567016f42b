"""Waiting for something to happen, for so long and no longer."""

from __future__ import annotations

import asyncio

__all__ = ["woken"]


async def woken(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, at the latest after so many seconds.

    Who is cancelled meanwhile is cancelled: before Python 3.12 ``asyncio.wait_for`` may forget that.
    """
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
