"""What does a delivery cost when one message goes to 10 subscribers?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

STREAMS = [f"subscriber {k}" for k in range(10)]
CAPACITY = 1_000


def _each_all(n: int) -> Mapping[str, Sequence[int]]:
    return {stream: range(n) for stream in STREAMS}


async def _bus(n: int, sink: Sink) -> Metrics:
    async with MessageBus() as bus:
        subscribed = [
            bus.subscribe(CHANNEL, sink.awaited(stream), broadcast=True, capacity=CAPACITY) for stream in STREAMS
        ]
        for subscription in subscribed:
            await subscription.ready()
        publish = bus.publish
        with (watch := Watch()):
            for i in range(n):
                await publish(CHANNEL, {"i": i})
            for subscription in subscribed:
                await subscription.unsubscribe(timeout=60.0)
    return watch.per(n * len(STREAMS))


async def _queues(n: int, sink: Sink) -> Metrics:
    queues: list[asyncio.Queue[dict[str, int]]] = [asyncio.Queue(CAPACITY) for _ in STREAMS]

    async def consume(queue: asyncio.Queue[dict[str, int]], stream: str) -> None:
        handle = sink.awaited(stream)
        for _ in range(n):
            await handle(await queue.get())

    with (watch := Watch()):
        consumers = [asyncio.create_task(consume(*pair)) for pair in zip(queues, STREAMS, strict=True)]
        for i in range(n):
            payload = {"i": i}
            for queue in queues:
                await queue.put(payload)
        await asyncio.gather(*consumers)
    return watch.per(n * len(STREAMS))


BENCHMARKS = (
    Benchmark(
        name="fan-out",
        question=__doc__,
        arms=(
            Arm(name="bus", run=_bus, expect=_each_all),
            Arm(name="10 asyncio.Queues", run=_queues, expect=_each_all),
        ),
        messages=8_000,
        targets=(
            Target(
                what="fan-out to 10, per delivery, times asyncio.Queue",
                subject="bus",
                peer="10 asyncio.Queues",
                goal=4.0,
            ),
        ),
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
