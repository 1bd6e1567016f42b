"""``python -m neuralcore.testing.conformance.victim URL CHANNEL GROUP CONCURRENCY``: a client made to be killed.

It prints "ready", then "holding" for every message its handler is given, and never lets one go.
"""

# ruff: noqa: T201 - what it prints is how it is steered

from __future__ import annotations

import asyncio
import sys

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus


async def main(url: str, channel: str, group: str, concurrency: str) -> None:
    async def hold(message: Message) -> None:
        print("holding", flush=True)
        await asyncio.Event().wait()

    async with MessageBus(url) as bus:
        subscription = bus.subscribe(channel, hold, group=group, concurrency=int(concurrency))
        await subscription.ready()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
