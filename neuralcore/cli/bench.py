"""A quick and honest comparison on the user's own machine: the bus, a bare ``asyncio.Queue``, and no queue at all.

One producer, one consumer, an async handler that does nothing, capacity 1,000. Every round runs all three, and the
ratio is taken round by round, so that a busy machine disturbs both sides alike. The repository's ``make bench`` asks
many more questions.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

from neuralcore import _core
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = ["Comparison", "compare"]

CAPACITY = 1_000
CHANNEL = "bench.messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Medians over the rounds; times are nanoseconds of wall clock a message."""

    messages: int
    rounds: int
    bus_ns: float
    queue_ns: float
    loop_ns: float
    """Awaiting the handler with nothing in between: what nothing that awaits a handler can beat."""
    ratio: float
    """How many times as fast as the queue the bus was."""
    ratio_low: float
    ratio_high: float
    python: str
    core: str
    debug_build: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def _handler(message: Message) -> None:
    pass


async def _bus(messages: int) -> int:
    async with MessageBus() as bus:
        subscription = bus.subscribe(CHANNEL, _handler, capacity=CAPACITY)
        await subscription.ready()
        publish = bus.publish
        start = perf_counter_ns()
        for i in range(messages):
            await publish(CHANNEL, {"i": i})
        await subscription.unsubscribe(timeout=60.0)
        elapsed = perf_counter_ns() - start
        handled = bus.metrics().acked
    if handled != messages:
        raise RuntimeError(f"{handled} of {messages} messages were handled, so there is nothing to compare")
    return elapsed


async def _queue(messages: int) -> int:
    handler: Any = _handler
    queue: asyncio.Queue[dict[str, int]] = asyncio.Queue(CAPACITY)

    async def consume() -> None:
        for _ in range(messages):
            await handler(await queue.get())

    start = perf_counter_ns()
    consumer = asyncio.create_task(consume())
    for i in range(messages):
        await queue.put({"i": i})
    await consumer
    return perf_counter_ns() - start


async def _loop(messages: int) -> int:
    handler: Any = _handler
    start = perf_counter_ns()
    for i in range(messages):
        await handler({"i": i})
    return perf_counter_ns() - start


async def compare(
    *, messages: int = 50_000, rounds: int = 15, progress: Callable[[int], None] | None = None
) -> Comparison:
    """Measure; ``progress`` hears the number of each finished round. One more round warms up and is not counted."""
    results = []
    for turn in range(rounds + 1):
        results.append([await _timed(way, messages) for way in (_bus, _queue, _loop)])
        if progress is not None and turn:
            progress(turn)
    bus, queue, loop = zip(*results[1:], strict=True)
    ratios = sorted(theirs / ours for ours, theirs in zip(bus, queue, strict=True))
    return Comparison(
        messages=messages,
        rounds=rounds,
        bus_ns=statistics.median(bus) / messages,
        queue_ns=statistics.median(queue) / messages,
        loop_ns=statistics.median(loop) / messages,
        ratio=statistics.median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
        python=f"{platform.python_implementation()} {platform.python_version()}",
        core=_core.IMPLEMENTATION,
        debug_build=_core.DEBUG_BUILD,
    )


async def _timed(way: Callable[[int], Awaitable[int]], messages: int) -> int:
    gc.collect()
    return await way(messages)
