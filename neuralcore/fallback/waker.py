"""Waking what waits on a loop, from any thread."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, _get_running_loop, get_running_loop
from typing import Any

__all__ = ["Waker", "resolve"]


class Waker:
    """A loop and the future that somebody awaits there."""

    __slots__ = ("future", "gone", "loop", "worker")

    def __init__(self, *, worker: bool) -> None:
        self.loop: AbstractEventLoop = get_running_loop()
        self.future: Future[bool] = self.loop.create_future()
        self.worker = worker
        """A pump is counted as active once it is chosen; others are only told."""
        self.gone = False
        """Its loop was found closed, and it is not counted any more."""

    def wake(self, value: bool) -> bool:
        """False when the loop has been closed, so that nobody is left to wake."""
        future = self.future
        if _get_running_loop() is self.loop:
            if not future.done():
                future.set_result(value)
            return True
        return resolve(self.loop, future, value)


def resolve(loop: AbstractEventLoop, future: Future[Any], value: object, *, error: bool = False) -> bool:
    if _get_running_loop() is loop:
        _set(future, value, error)
        return True
    try:
        loop.call_soon_threadsafe(_set, future, value, error)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


def _set(future: Future[Any], value: Any, error: bool) -> None:
    if future.done():
        return
    if error:
        future.set_exception(value)
    else:
        future.set_result(value)
