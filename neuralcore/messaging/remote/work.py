"""What is handed to the committer: a publish, a settlement, or both of them that belong together."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.transport import Envelope, PublishStatus, Settlement, SettleStatus

__all__ = ["Awaited", "Done", "Told", "Work", "answer_on"]

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
    def items(self) -> int:
        return 1

    @property
    def size(self) -> int:
        """Bytes that it publishes."""
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


class Awaited(Work, Generic[T]):
    """Whose end somebody awaits: on the loop that made it, or without one on the home loop."""

    __slots__ = ("_loop", "_result", "_waiter", "_withdrawn")

    def __init__(self, context: BusContext, publish: Envelope | None = None) -> None:
        super().__init__(publish)
        self._loop = asyncio._get_running_loop() or context.loop
        self._result: T | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._withdrawn = False

    def _tell(self, result: T) -> None:
        """From the home loop."""
        if self._loop is asyncio._get_running_loop():
            self._told(result)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told, result)

    def _told(self, result: T) -> None:
        self._result = result
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def arrival(self) -> T:
        """Cancelled before the transport has it, it has not happened."""
        if self._result is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except BaseException:
                self._withdrawn = True
                raise
        assert self._result is not None
        return self._result

    def withdrawn(self) -> bool:
        return self._withdrawn


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
