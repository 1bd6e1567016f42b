"""What is handed to the committer: a publish, a settlement, or both of them that belong together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.transport import Envelope, PublishStatus, Settlement, SettleStatus

__all__ = ["Done", "Work", "answer_on"]

T = TypeVar("T")


class Done(NamedTuple):
    """What became of a work. Without an error, one status for each part that it had."""

    published: PublishStatus | None = None
    settled: SettleStatus | None = None
    reason: str = ""
    error: Exception | None = None
    """Nothing is known of it."""


def _never() -> bool:
    return False


@dataclass(eq=False, slots=True)
class Work:
    done: Callable[[Done], object]
    """Called once, on the home loop."""
    publish: Envelope | None = None
    settlement: Settlement | None = None
    persistent: bool = False
    """Tried again until something is known of it: for what the bus itself has to bring about."""
    withdrawn: Callable[[], bool] = _never
    """Nobody wants it any more; asked before it is handed to the transport."""
    unknown_since: int | None = None
    """Monotonic; while it is tried again."""

    @property
    def failed(self) -> bool:
        return self.unknown_since is not None

    @property
    def size(self) -> int:
        return 0 if self.publish is None else len(self.publish.body)


def answer_on(context: BusContext) -> tuple[asyncio.Future[T], Callable[[T], None]]:
    """A future of the running loop (or without one of the home loop), and what resolves it from the home loop."""
    loop = asyncio._get_running_loop() or context.loop
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T) -> None:
        if not future.done():
            future.set_result(result)

    if loop is context.loop:
        return future, resolve
    return future, lambda result: _elsewhere(loop, lambda: resolve(result))


def _elsewhere(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
