"""What the store still holds once all is done: ``python -m examples.cluster.left URL`` prints a number."""

from __future__ import annotations

import asyncio
import sys
import time

from examples.cluster.shop import ORDERS, PACKING
from neuralcore import MessageBus
from neuralcore.messaging.registry import transport_for

PATIENCE = 5.0
"""Seconds: what was settled last may be on its way."""


async def left(url: str) -> int:
    """Orders that the group has not settled."""
    transport = transport_for(url)
    async with MessageBus(transport):
        deadline = time.monotonic() + PATIENCE
        while True:
            found = (await transport.stats())[ORDERS].lag[PACKING]
            if not found or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    print(asyncio.run(left(sys.argv[1])))
