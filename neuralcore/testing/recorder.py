"""A handler for tests that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from neuralcore._core import Message

__all__ = ["Recorder", "idle"]


async def idle() -> None:
    """In virtual time: return when everything that can happen at this time has happened."""
    from neuralcore.testing.loop import VirtualLoop

    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError(f"a {type(loop).__name__} cannot tell when it is idle: use neuralcore.testing.run or @virtual")
    await loop.idle()


class Recorder:
    """Subscribe its ``handle``. ``act`` is called with each message; what it answers (or awaits to) is the reply.

    >>> recorder = Recorder()
    >>> bus.subscribe("orders.*", recorder.handle)
    """

    def __init__(self, act: Callable[[Message], Any] | None = None) -> None:
        self._act = act
        self._grown = asyncio.Event()
        self.messages: list[Message] = []
        self.times: list[float] = []
        """When each one came, by the loop's clock."""

    async def handle(self, message: Message) -> Any:
        self.messages.append(message)
        self.times.append(asyncio.get_running_loop().time())
        self._grown.set()
        result = self._act(message) if self._act is not None else None
        return await result if asyncio.iscoroutine(result) else result

    @property
    def payloads(self) -> list[Any]:
        return [message.payload for message in self.messages]

    @property
    def attempts(self) -> list[int]:
        return [message.attempt for message in self.messages]

    @property
    def gaps(self) -> list[float]:
        """Seconds between one message and the next, to the microsecond."""
        return [round(after - before, 6) for before, after in pairwise(self.times)]

    async def wait(self, count: int) -> list[Message]:
        """Until so many have come. In virtual time a message that never comes is a Deadlock, not a hang."""
        while len(self.messages) < count:
            self._grown.clear()
            await self._grown.wait()
        return self.messages
