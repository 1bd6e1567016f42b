"""How long does a message take from publish to its handler, on an idle loop and under load?"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._sink import Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

RATE = 100_000
"""Messages a second under load; well below what either side can carry."""

Publish = Callable[[dict[str, int]], Awaitable[object]]
Drive = Callable[[Publish, int, list[int]], Awaitable[list[int]]]


async def _arrived(count: int, arrivals: list[int]) -> None:
    """Polls: an event would cost the handlers, which are what is timed."""
    while len(arrivals) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def _moment(due: int) -> None:
    while perf_counter_ns() < due:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def _idle(publish: Publish, n: int, arrivals: list[int]) -> list[int]:
    """One message at a time; the loop has nothing else to do until it was handled."""
    sent = []
    for i in range(n):
        sent.append(perf_counter_ns())
        await publish({"i": i})
        await _arrived(i + 1, arrivals)
    return sent


async def _loaded(publish: Publish, n: int, arrivals: list[int]) -> list[int]:
    """At a fixed rate, come what may: time counts from when a message was due, not from when it got its turn."""
    period = 1_000_000_000 // RATE
    start = perf_counter_ns()
    due = [start + i * period for i in range(n)]
    for i in range(n):
        await _moment(due[i])
        await publish({"i": i})
    await _arrived(n, arrivals)
    return due


def _metrics(sent: list[int], arrivals: list[int]) -> Metrics:
    times = [arrived - left for left, arrived in zip(sent, arrivals, strict=True)]
    cuts = statistics.quantiles(times, n=1000, method="inclusive")
    return {"p50_ns": cuts[499], "p99_ns": cuts[989], "p99.9_ns": cuts[998]}


def _handler(sink: Sink, arrivals: list[int]) -> Any:
    record, arrived = sink.plain(), arrivals.append

    async def handler(item: Message) -> None:
        arrived(perf_counter_ns())
        record(item)

    return handler


def _bus(drive: Drive) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        arrivals: list[int] = []
        async with MessageBus() as bus:
            await bus.subscribe(CHANNEL, _handler(sink, arrivals)).ready()
            return _metrics(await drive(lambda payload: bus.publish(CHANNEL, payload), n, arrivals), arrivals)

    return Arm(name="bus", run=run)


def _queue(drive: Drive) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        arrivals: list[int] = []
        handle = _handler(sink, arrivals)
        queue: asyncio.Queue[dict[str, int]] = asyncio.Queue(1_000)

        async def consume() -> None:
            for _ in range(n):
                await handle(await queue.get())

        consumer = asyncio.create_task(consume())
        metrics = _metrics(await drive(queue.put, n, arrivals), arrivals)
        await consumer
        return metrics

    return Arm(name="asyncio.Queue", run=run)


BENCHMARKS = (
    Benchmark(
        name="latency, idle",
        question="How long does a single message take on an idle loop?",
        arms=(_bus(_idle), _queue(_idle)),
        messages=10_000,
        metric="p50_ns",
        targets=(
            Target(
                what="idle latency p50, times asyncio.Queue's speed",
                subject="bus",
                peer="asyncio.Queue",
                metric="p50_ns",
                goal=1.0,
            ),
        ),
    ),
    Benchmark(
        name="latency, loaded",
        question=f"How long does a message take at a fixed {RATE:,} messages a second?",
        arms=(_bus(_loaded), _queue(_loaded)),
        messages=20_000,
        metric="p50_ns",
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
