"""Does publishing feel 10,000 wildcard subscriptions, when each message reaches two of them?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Watch
from benchmarks._sink import Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000
BUSY = 50
"""Channels that are published on."""


def _patterns(pairs: int) -> list[str]:
    return [pattern for k in range(pairs) for pattern in (f"tenant{k}.*.*", f"*.task{k}.>")]


CHANNELS = [f"tenant{k}.task{k}.done" for k in range(BUSY)]


def _shares(n: int) -> Mapping[str, Sequence[int]]:
    return {pattern: range(position // 2, n, BUSY) for position, pattern in enumerate(_patterns(BUSY))}


def _bus(name: str, pairs: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        async with MessageBus() as bus:
            subscribed = [
                bus.subscribe(pattern, sink.awaited(pattern), capacity=CAPACITY) for pattern in _patterns(pairs)
            ]
            for subscription in subscribed:
                await subscription.ready()
            publish, channels = bus.publish, CHANNELS
            with (watch := Watch()):
                for i in range(n):
                    await publish(channels[i % BUSY], {"i": i})
                for subscription in subscribed[: 2 * BUSY]:
                    await subscription.unsubscribe(timeout=60.0)
        return watch.per(2 * n)

    return Arm(name=name, run=run, expect=_shares)


def _matches(pattern: str, channel: str) -> bool:
    expression = pattern.replace(".", r"\.").replace("*", "[^.]+").replace(">", ".+")
    return re.fullmatch(expression, channel) is not None


async def _queues(n: int, sink: Sink) -> Metrics:
    """Only the queues that get messages, found by a table of names that was filled beforehand: routing is free here."""
    queues: dict[str, asyncio.Queue[dict[str, int]]] = {p: asyncio.Queue(CAPACITY) for p in _patterns(BUSY)}
    routes = {channel: [q for pattern, q in queues.items() if _matches(pattern, channel)] for channel in CHANNELS}

    async def consume(pattern: str, expected: int) -> None:
        handle, queue = sink.awaited(pattern), queues[pattern]
        for _ in range(expected):
            await handle(await queue.get())

    channels = CHANNELS
    with (watch := Watch()):
        consumers = [asyncio.create_task(consume(pattern, len(share))) for pattern, share in _shares(n).items()]
        for i in range(n):
            payload = {"i": i}
            for queue in routes[channels[i % BUSY]]:
                await queue.put(payload)
        await asyncio.gather(*consumers)
    return watch.per(2 * n)


BENCHMARKS = (
    Benchmark(
        name="wildcards",
        question=__doc__,
        arms=(
            _bus("bus, 10,000 patterns", 5_000),
            _bus("bus, 100 patterns", BUSY),
            Arm(name="asyncio.Queues, routed by a table", run=_queues, expect=_shares),
        ),
        messages=25_000,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
