"""What does the path of remote transports cost when the store itself is nearly free: the floor for every store?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks._bus import CHANNEL, bus_arm
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Watch
from benchmarks._peers import queue_arm
from benchmarks._sink import Sink
from neuralcore.messaging.bus import MessageBus
from neuralcore.testing.memory import MemoryStore, MemoryTransport

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000
PUBLISHERS = 100
BATCH = 100

Fill = Callable[[MessageBus, int], Awaitable[None]]


async def _one_by_one(bus: MessageBus, n: int) -> None:
    for i in range(n):
        await bus.publish(CHANNEL, {"i": i})


async def _at_once(bus: MessageBus, n: int) -> None:
    """Many tasks publish at the same time, so that their publishes can share commits."""
    share = n // PUBLISHERS

    async def publisher(first: int) -> None:
        for i in range(first, first + share):
            await bus.publish(CHANNEL, {"i": i})

    await asyncio.gather(*[publisher(k * share) for k in range(PUBLISHERS)])


async def _in_batches(bus: MessageBus, n: int) -> None:
    for start in range(0, n, BATCH):
        await bus.publish_many([(CHANNEL, {"i": i}) for i in range(start, min(n, start + BATCH))])


def _memory(name: str, fill: Fill, producers: int = 1) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        async with MessageBus(MemoryTransport(MemoryStore())) as bus:
            subscribed = bus.subscribe(CHANNEL, sink.awaited(), group="bench", capacity=CAPACITY)
            await subscribed.ready()
            with (watch := Watch()):
                await fill(bus, n)
                await _settled(bus, n)
        return watch.per(n)

    return Arm(name=name, run=run, producers=producers)


async def _settled(bus: MessageBus, n: int) -> None:
    while sum(subscription.acked for subscription in bus.metrics().subscriptions) < n:  # noqa: ASYNC110
        await asyncio.sleep(0)


BENCHMARKS = (
    Benchmark(
        name="remote path",
        question=__doc__,
        arms=(
            _memory("memory, one by one", _one_by_one),
            _memory(f"memory, {PUBLISHERS} publishers", _at_once, PUBLISHERS),
            _memory(f"memory, publish_many of {BATCH}", _in_batches),
            bus_arm(CAPACITY, name="native", group="bench"),
            queue_arm(CAPACITY),
        ),
        messages=5_000,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
