"""What is handed to the committer: a publish, a settlement, or both of them that belong together."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.transport import Envelope, PublishStatus, Settlement, SettleStatus

__all__ = ["Done", "Told", "Work", "answer_on"]

T = TypeVar("T")


class Done(NamedTuple):
    """What became of a work. Without an error, one status for each part that it had."""

    published: PublishStatus | None = None
    settled: SettleStatus | None = None
    reason: str = ""
    error: Exception | None = None
    """Nothing is known of it."""


class Work(ABC):
    __slots__ = ("persistent", "publish", "settlement", "unknown_since")

    def __init__(
        self, publish: Envelope | None = None, settlement: Settlement | None = None, *, persistent: bool = False
    ) -> None:
        """``persistent``: tried again until something is known of it: for what the bus itself has to bring about."""
        self.publish = publish
        self.settlement = settlement
        self.persistent = persistent
        self.unknown_since: int | None = None
        """Monotonic; while it is tried again."""

    @abstractmethod
    def done(self, result: Done) -> object:
        """Called once, on the home loop."""

    def withdrawn(self) -> bool:
        """Nobody wants it any more; asked before it is handed to the transport."""
        return False

    @property
    def failed(self) -> bool:
        return self.unknown_since is not None

    @property
    def size(self) -> int:
        return 0 if self.publish is None else len(self.publish.body)


class Told(Work):
    """Whose end is told to a function."""

    __slots__ = ("_told",)

    def __init__(
        self,
        told: Callable[[Done], object],
        *,
        publish: Envelope | None = None,
        settlement: Settlement | None = None,
        persistent: bool = False,
    ) -> None:
        super().__init__(publish, settlement, persistent=persistent)
        self._told = told

    def done(self, result: Done) -> object:
        return self._told(result)


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
