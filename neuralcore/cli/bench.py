"""A quick comparison with asyncio's queues. The measurements behind docs/performance.md are in ``benchmarks/``."""

from __future__ import annotations

import asyncio
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from neuralcore._core import DEBUG_BUILD, IMPLEMENTATION
from neuralcore.messaging import MessageBus

__all__ = ["compare", "show"]

CAPACITY = 1000
BUS = "bus"


class Count:
    """The handler's work: one addition, so that a lost message shows."""

    def __init__(self) -> None:
        self.sum = 0

    async def add(self, message: dict[str, int]) -> None:
        self.sum += message["i"]


async def on_bus(messages: int, count: Count) -> None:
    async with MessageBus(capacity=CAPACITY) as bus:
        bus.subscribe("bench", lambda message: count.add(message.payload), blocking=False)
        for i in range(messages):
            await bus.publish("bench", {"i": i})


async def on_queue(messages: int, count: Count) -> None:
    queue: asyncio.Queue[dict[str, int] | None] = asyncio.Queue(CAPACITY)

    async def work() -> None:
        while (message := await queue.get()) is not None:
            await count.add(message)

    worker = asyncio.create_task(work())
    for i in range(messages):
        await queue.put({"i": i})
    await queue.put(None)
    await worker


async def on_priority_queue(messages: int, count: Count) -> None:
    queue: asyncio.PriorityQueue[tuple[int, int, dict[str, int]]] = asyncio.PriorityQueue(CAPACITY)

    async def work() -> None:
        for _ in range(messages):
            _, _, message = await queue.get()
            await count.add(message)

    worker = asyncio.create_task(work())
    for i in range(messages):
        await queue.put((50, i, {"i": i}))
    await worker


ARMS: dict[str, Callable[[int, Count], Awaitable[None]]] = {
    BUS: on_bus,
    "asyncio.Queue": on_queue,
    "asyncio.PriorityQueue": on_priority_queue,
}


def compare(messages: int, repeat: int) -> dict[str, Any]:
    """Medians over paired repetitions: every arm once in each, so that a noisy moment hits all of them."""
    rounds = [{name: _seconds(arm, messages) for name, arm in ARMS.items()} for _ in range(repeat)]
    return {
        "core": IMPLEMENTATION,
        "debug_build": DEBUG_BUILD,
        "python": platform.python_version(),
        "messages": messages,
        "repeat": repeat,
        "arms": {
            name: {
                "nanoseconds_per_message": statistics.median(took[name] for took in rounds) / messages * 1e9,
                "bus_is_faster_by": statistics.median(took[name] / took[BUS] for took in rounds),
            }
            for name in ARMS
        },
    }


def show(out: Console, document: dict[str, Any]) -> None:
    if document["debug_build"]:
        out.print("This is a debug build of the native core: these figures say nothing.", style="bold red")
    table = Table(title=f"{document['messages']:,} messages to an async handler, {document['core']} core")
    table.add_column("")
    table.add_column("ns a message", justify="right")
    table.add_column("the bus is faster by", justify="right")
    for name, arm in document["arms"].items():
        ratio = "" if name == BUS else f"{arm['bus_is_faster_by']:.2f} ×"
        table.add_row(name, f"{arm['nanoseconds_per_message']:,.0f}", ratio)
    out.print(table)


def _seconds(arm: Callable[[int, Count], Awaitable[None]], messages: int) -> float:
    count = Count()
    began = time.perf_counter()
    asyncio.run(_awaited(arm, messages, count))
    took = time.perf_counter() - began
    if count.sum != messages * (messages - 1) // 2:
        raise AssertionError(f"{arm.__name__} lost or repeated a message: the sum is {count.sum}")
    return took


async def _awaited(arm: Callable[[int, Count], Awaitable[None]], messages: int, count: Count) -> None:
    await arm(messages, count)
