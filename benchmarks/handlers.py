"""What do other kinds of handlers cost: plain functions, handlers that suspend, functions in a thread pool?"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks._bus import bus_arm
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Watch
from benchmarks._peers import queue_arm
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000


async def _queue_plain(n: int, sink: Sink) -> Metrics:
    handle = sink.plain()
    queue: asyncio.Queue[dict[str, int]] = asyncio.Queue(CAPACITY)

    async def consume() -> None:
        for _ in range(n):
            handle(await queue.get())

    with (watch := Watch()):
        consumer = asyncio.create_task(consume())
        for i in range(n):
            await queue.put({"i": i})
        await consumer
    return watch.per(n)


def _in_thread(sink: Sink) -> Any:
    """As the bus does it: in a thread, with a copy of the context."""
    handle = sink.plain()
    return lambda item: asyncio.to_thread(handle, item)


BENCHMARKS = (
    Benchmark(
        name="handlers, plain",
        question="How fast are plain functions that are declared non-blocking?",
        arms=(
            bus_arm(CAPACITY, handler=lambda sink: sink.plain(), blocking=False),
            Arm(name="asyncio.Queue", run=_queue_plain),
        ),
        messages=50_000,
    ),
    Benchmark(
        name="handlers, suspending",
        question="How fast are async handlers that each go once around the loop?",
        arms=(
            bus_arm(CAPACITY, handler=lambda sink: sink.suspending()),
            queue_arm(CAPACITY, handler=lambda sink: sink.suspending()),
        ),
        messages=10_000,
    ),
    Benchmark(
        name="handlers, in threads",
        question="How fast are plain functions in the thread pool, one at a time?",
        arms=(
            bus_arm(CAPACITY, handler=lambda sink: sink.plain()),
            queue_arm(CAPACITY, handler=_in_thread),
        ),
        messages=1_000,
        check_messages=200,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
