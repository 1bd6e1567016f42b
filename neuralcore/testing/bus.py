"""A bus in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.transport import Transport
from neuralcore.testing.loop import VirtualLoop

__all__ = ["bus_in", "virtual_bus"]


def bus_in(loop: asyncio.AbstractEventLoop, transport: str | Transport = "native://", **options: Any) -> MessageBus:
    """Not started. Its clock, and its randomness by the loop's seed, are the loop's."""
    if not isinstance(loop, VirtualLoop):
        raise TypeError(f"a {type(loop).__name__} has no virtual time: use neuralcore.testing.run or @virtual")
    defaults: dict[str, Any] = {"clock": loop.clock, "rng": random.Random(loop.seed or 0)}
    return MessageBus(transport, **{**defaults, **options})


@asynccontextmanager
async def virtual_bus(transport: str | Transport = "native://", **options: Any) -> AsyncIterator[MessageBus]:
    """Inside ``run`` or a ``@virtual`` test: a bus whose retries, delays and time-outs take no real time.

    ``options`` are those of MessageBus.
    """
    async with bus_in(asyncio.get_running_loop(), transport, **options) as bus:
        yield bus
