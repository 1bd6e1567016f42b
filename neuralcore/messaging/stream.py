"""Pulling instead of being called: ``async for message in bus.stream(pattern)``, settled explicitly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType

from neuralcore._core import Message
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import SettlementError
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.loops import on_loop

__all__ = ["Stream"]

_PRUNE = 64
"""Settled messages that may be remembered before the list of held ones is cleaned."""


class Stream:
    """An open subscription without workers. Every message must be settled: ``await message.ack()``, or another verb.

    It listens from when it is made, not from the first message on. Closing it, or letting go of it, gives back what is
    unsettled.
    """

    def __init__(
        self,
        intake: Intake,
        name: str,
        *,
        context: BusContext,
        end: Callable[[Intake], Awaitable[None]],
    ) -> None:
        self.name = name
        self._intake = intake
        self._context = context
        self._end = end
        self._held: list[Message] = []
        self._waiting: set[asyncio.Future[bool]] = set()
        """Of tasks that wait for the next message, in whatever loops they are."""
        self._closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Message:
        mailbox, settlement = self._intake.mailbox, self._intake.settlement
        while not self._closed:
            message = mailbox.take()
            if message is not None:
                self._hold(message)
                prepare = settlement.prepare
                if prepare is None or await self._ready(message, prepare):
                    return message
                continue
            if not await self._more():
                break
        raise StopAsyncIteration

    async def _more(self) -> bool:
        """Wait until there may be something to take. False when there never will be, or the stream was closed."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        ready = asyncio.ensure_future(self._intake.mailbox.ready())
        ready.add_done_callback(partial(_pass_on, waiter))
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)
            ready.cancel()

    async def _ready(self, message: Message, prepare: Callable[[Message], Awaitable[bool]]) -> bool:
        try:
            return await prepare(message) and not message.settled
        except BaseException:
            if not message.settled:
                self._held.remove(message)
                self._intake.mailbox.release(message)
            raise

    def _hold(self, message: Message) -> None:
        if len(self._held) >= _PRUNE:
            self._held = [held for held in self._held if not held.settled]
        self._held.append(message)

    async def close(self) -> None:
        """Stop listening. Harmless when repeated."""
        if not self._closed:
            await self.give_back()
            await self._end(self._intake)

    async def give_back(self) -> None:
        """End the iteration, and release what is unsettled."""
        self._closed = True
        for waiter in list(self._waiting):
            _end(waiter)
        for message in self._held:
            if not message.settled:
                with suppress(SettlementError):  # its lease was lost: somebody else has it already
                    await message.release()
        self._held.clear()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if not self._closed and not self._context.spawn(self.close):
            self._context.count("orphaned_streams")


def _pass_on(waiter: asyncio.Future[bool], ready: asyncio.Future[bool]) -> None:
    if waiter.done() or ready.cancelled():
        return
    error = ready.exception()
    if error is not None:
        waiter.set_exception(error)
    else:
        waiter.set_result(ready.result())


def _end(waiter: asyncio.Future[bool]) -> None:
    def end() -> None:
        if not waiter.done():
            waiter.set_result(False)

    loop = waiter.get_loop()
    if not loop.is_closed():
        on_loop(loop, end)
