"""A bus that uses all of a transport once."""

from __future__ import annotations

import asyncio

from neuralcore import Message, MessageBus
from tests.transports.clients import eventually

__all__ = ["AllOfIt"]

WAIT = 30.0


class AllOfIt:
    """Requests, transactions, dead letters, delays and broadcasts. It subscribes as it is made."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._seen: list[str] = []
        self._buried = asyncio.Event()
        bus.subscribe("orders", self._handle, group="g")
        bus.subscribe("bills", self._see, group="g")
        bus.subscribe("_dlq.orders", self._bury, group="burials")
        bus.subscribe("news", self._see, broadcast=True)

    async def works(self) -> None:
        """Raises AssertionError, TimeoutError."""
        bus = self._bus
        assert await bus.request("orders", "tea", timeout=WAIT) == "no tea"
        await bus.publish("orders", "mud")
        await bus.publish("news", "rain")
        await bus.publish("bills", "late", delay=0.2)
        async with bus.transaction() as tx:
            await tx.publish("bills", "both")
        await eventually(lambda: sorted(self._seen) == ["both", "late", "rain", "tea"], "all of it", WAIT)
        await asyncio.wait_for(self._buried.wait(), 2 * WAIT)

    async def _handle(self, message: Message) -> str:
        if message.payload == "mud":
            raise ValueError(message.payload)
        async with message.transaction() as tx:
            await tx.publish("bills", message.payload)
        return f"no {message.payload}"

    async def _see(self, message: Message) -> None:
        self._seen.append(message.payload)

    async def _bury(self, message: Message) -> None:
        self._buried.set()
