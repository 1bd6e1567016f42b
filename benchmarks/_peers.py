"""The peers that several questions share: the best straightforward asyncio code, one producer and one consumer task.

The consumer knows how many messages will come, so it needs neither sentinels nor ``task_done``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks._harness import Arm, Metrics, Watch
from benchmarks._sink import Gate, Sink

__all__ = ["awaiting_loop", "priority_queue_arm", "queue_arm", "queue_backlog"]

NORMAL = 50
"""The priority that the bus gives when none is said."""


def queue_arm(capacity: int, *, handler: Callable[[Sink], Any] = lambda sink: sink.awaited()) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        handle = handler(sink)
        queue: asyncio.Queue[dict[str, int]] = asyncio.Queue(capacity)

        async def consume() -> None:
            for _ in range(n):
                await handle(await queue.get())

        with (watch := Watch()):
            consumer = asyncio.create_task(consume())
            for i in range(n):
                await queue.put({"i": i})
            await consumer
        return watch.per(n)

    return Arm(name="asyncio.Queue", run=run)


def priority_queue_arm(capacity: int) -> Arm:
    """The usual ``(priority, sequence, payload)``: the sequence keeps equals in order and payloads uncompared."""

    async def run(n: int, sink: Sink) -> Metrics:
        handle = sink.awaited()
        queue: asyncio.PriorityQueue[tuple[int, int, dict[str, int]]] = asyncio.PriorityQueue(capacity)

        async def consume() -> None:
            for _ in range(n):
                _, _, payload = await queue.get()
                await handle(payload)

        sequence = count()
        with (watch := Watch()):
            consumer = asyncio.create_task(consume())
            for i in range(n):
                await queue.put((NORMAL, next(sequence), {"i": i}))
            await consumer
        return watch.per(n)

    return Arm(name="asyncio.PriorityQueue", run=run)


def awaiting_loop() -> Arm:
    """No queue and no tasks: what nothing that awaits a handler can beat."""

    async def run(n: int, sink: Sink) -> Metrics:
        handle = sink.awaited()
        with (watch := Watch()):
            for i in range(n):
                await handle({"i": i})
        return watch.per(n)

    return Arm(name="awaiting loop", run=run)


def queue_backlog(name: str = "asyncio.Queue") -> Arm:
    """Unbounded, so ``put`` never waits: every message enters before the consumer runs."""

    async def run(n: int, sink: Sink) -> Metrics:
        gate = Gate()
        handle = sink.gated(gate)
        queue: asyncio.Queue[dict[str, int]] = asyncio.Queue()

        async def consume() -> None:
            for _ in range(n):
                await handle(await queue.get())

        with (watch := Watch()):
            consumer = asyncio.create_task(consume())
            for i in range(n):
                await queue.put({"i": i})
            gate.open()
            await consumer
        return watch.per(n)

    return Arm(name=name, run=run)
