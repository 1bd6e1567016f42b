"""Do many channels cost more than one: the same messages over 36 channels, each with a subscription of its own?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._bus import bus_backlog
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._peers import queue_backlog
from benchmarks._sink import Gate, Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

NAMES = [f"bench.channel{k}" for k in range(36)]


def _shares(n: int) -> Mapping[str, Sequence[int]]:
    return {name: range(k, n, len(NAMES)) for k, name in enumerate(NAMES)}


def _bus(name: str, capacity: int | None) -> Arm:
    """With a capacity the messages flow; without, all of them enter before the first one is handled."""

    async def run(n: int, sink: Sink) -> Metrics:
        gate = Gate()
        async with MessageBus() as bus:
            handlers = [sink.gated(gate, channel) if capacity is None else sink.awaited(channel) for channel in NAMES]
            subscribed = [
                bus.subscribe(channel, handler, capacity=capacity or n)
                for channel, handler in zip(NAMES, handlers, strict=True)
            ]
            for subscription in subscribed:
                await subscription.ready()
            publish, names, width = bus.publish, NAMES, len(NAMES)
            with (watch := Watch()):
                for i in range(n):
                    await publish(names[i % width], {"i": i})
                gate.open()
                for subscription in subscribed:
                    await subscription.unsubscribe(timeout=60.0)
        return watch.per(n)

    return Arm(name=name, run=run, expect=_shares)


def _queues(capacity: int | None) -> Arm:
    """A queue and a consumer task per channel, found by name as the bus finds its mailboxes."""

    async def run(n: int, sink: Sink) -> Metrics:
        gate = Gate()
        queues: dict[str, asyncio.Queue[dict[str, int]]] = {name: asyncio.Queue(capacity or 0) for name in NAMES}

        async def consume(name: str, expected: int) -> None:
            handle: Any = sink.gated(gate, name) if capacity is None else sink.awaited(name)
            queue = queues[name]
            for _ in range(expected):
                await handle(await queue.get())

        names, width = NAMES, len(NAMES)
        with (watch := Watch()):
            consumers = [asyncio.create_task(consume(name, len(share))) for name, share in _shares(n).items()]
            for i in range(n):
                await queues[names[i % width]].put({"i": i})
            gate.open()
            await asyncio.gather(*consumers)
        return watch.per(n)

    return Arm(name="36 asyncio.Queues", run=run, expect=_shares)


BENCHMARKS = (
    Benchmark(
        name="channels",
        question="Do 36 channels cost more than one at the same total backlog (all enter, then all are handled)?",
        arms=(_bus("bus, 36 channels", None), bus_backlog("bus, one channel"), _queues(None), queue_backlog()),
        messages=36_000,
        targets=(
            Target(
                what="36 channels, rate of one channel at the same backlog",
                subject="bus, 36 channels",
                peer="bus, one channel",
                goal=0.7,
            ),
        ),
    ),
    Benchmark(
        name="channels, flowing",
        question="How fast do 36 channels of capacity 1,000 carry messages while they are being handled?",
        arms=(_bus("bus, 36 channels", 1_000), _queues(1_000)),
        messages=72_000,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
