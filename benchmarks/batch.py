"""What do batches gain: `publish_many` into `batch=` handlers, against single messages and against lists in a queue?"""

from __future__ import annotations

import asyncio

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000


def _lists(n: int, size: int) -> list[list[dict[str, int]]]:
    """What is published is built beforehand for every arm: the hand-over is timed, not the making of dicts."""
    return [[{"i": i} for i in range(start, min(n, start + size))] for start in range(0, n, size)]


def _bus(size: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        lists = [[(CHANNEL, payload) for payload in part] for part in _lists(n, size)]
        async with MessageBus() as bus:
            subscribed = bus.subscribe(CHANNEL, sink.batched(), batch=size, capacity=CAPACITY)
            await subscribed.ready()
            publish_many = bus.publish_many
            with (watch := Watch()):
                for items in lists:
                    await publish_many(items)
                await subscribed.unsubscribe(timeout=60.0)
        return watch.per(n)

    return Arm(name="bus.publish_many", run=run)


def _queue_of_messages(size: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        payloads = [payload for part in _lists(n, size) for payload in part]
        handle = sink.awaited()
        queue: asyncio.Queue[dict[str, int]] = asyncio.Queue(CAPACITY)

        async def consume() -> None:
            for _ in range(n):
                await handle(await queue.get())

        with (watch := Watch()):
            consumer = asyncio.create_task(consume())
            for payload in payloads:
                await queue.put(payload)
            await consumer
        return watch.per(n)

    return Arm(name="asyncio.Queue, one by one", run=run)


def _queue_of_lists(size: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        lists = _lists(n, size)
        handle = sink.batched()
        queue: asyncio.Queue[list[dict[str, int]]] = asyncio.Queue(max(1, CAPACITY // size))

        async def consume() -> None:
            for _ in range(len(lists)):
                await handle(await queue.get())

        with (watch := Watch()):
            consumer = asyncio.create_task(consume())
            for part in lists:
                await queue.put(part)
            await consumer
        return watch.per(n)

    return Arm(name="asyncio.Queue of lists", run=run)


def _benchmark(size: int, *targets: Target) -> Benchmark:
    return Benchmark(
        name=f"batches of {size}",
        question=f"What does a message cost in batches of {size}?",
        arms=(_bus(size), _queue_of_messages(size), _queue_of_lists(size)),
        messages=50_000,
        targets=targets,
    )


def _target(what: str, peer: str, goal: float) -> Target:
    return Target(what=what, subject="bus.publish_many", peer=peer, goal=goal)


BENCHMARKS = (
    _benchmark(10, _target("batches of 10, times asyncio.Queue of equal lists", "asyncio.Queue of lists", 1.0)),
    _benchmark(100, _target("batches of 100, times asyncio.Queue per message", "asyncio.Queue, one by one", 10.0)),
    _benchmark(1_000),
)

if __name__ == "__main__":
    main(BENCHMARKS)
