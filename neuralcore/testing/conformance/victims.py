"""What checks do with clients that are made to be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.testing.conformance.bed import Bed, Collector
from neuralcore.testing.conformance.errand import done
from neuralcore.testing.conformance.harness import Client

__all__ = ["first_to_hold", "greedy", "numbered"]

WARM = 10
"""Quick messages after which a client knows its pace, and fetches many in advance."""


async def greedy(bed: Bed, bus: MessageBus, channel: str, group: str) -> tuple[Client, Collector]:
    """A client with one worker that fetches many in advance, as it has handled the first ones quickly; its receipts."""
    receipts = bed.collector()
    await bed.subscribe(bus, done(channel), receipts.handle)
    victim = await bed.spawn(channel, group)
    await bus.publish_many([(channel, f"quick-{n}") for n in range(WARM)])
    await receipts.every(f"quick-{n}" for n in range(WARM))
    return victim, receipts


def numbered(got: Collector) -> Callable[[Message], Awaitable[None]]:
    """A handler for what is left by a greedy client: the last of its quick messages may come again."""

    async def handle(message: Message) -> None:
        if isinstance(message.payload, int):
            await got.handle(message)

    return handle


async def first_to_hold(bed: Bed, clients: Sequence[Client]) -> int:
    """The place of the one that holds a message."""
    holding = [asyncio.ensure_future(client.holding(1)) for client in clients]
    await bed.within(asyncio.wait(holding, return_when=asyncio.FIRST_COMPLETED), "a handler running")
    found = next(place for place, task in enumerate(holding) if task.done())
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    return found
