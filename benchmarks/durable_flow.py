"""How many messages a second go from publish to a handler and are settled, all of it durably?"""

from __future__ import annotations

import asyncio
import time

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import (
    GROUP,
    PLACE,
    bus_at,
    checked,
    folder,
    publish_at_once,
    settled,
    shares,
)
from benchmarks._durable_peers import HAS_ASYNC, PEERS, SKIPPED, AsyncPersistQueue, Peer
from benchmarks._durable_threads import Consumer, put_at_once
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000
MANY = 64


def _bus(publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        n -= n % publishers
        parts = shares(n, publishers)
        with folder() as made:
            async with bus_at(made) as bus:
                handler = checked(sink, sink.awaited())
                subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, capacity=CAPACITY)
                await subscribed.ready()
                with (watch := Watch(time.process_time_ns)):
                    await publish_at_once(bus, parts)
                    await settled(bus, subscribed, n)
        return watch.per(n)

    return Arm(name="bus", run=run, producers=publishers)


def _peer(opened: type[Peer], publishers: int) -> Arm:
    """Publishers and the consumer are threads; settled is what the consumer has acknowledged, where there is such."""

    async def run(n: int, sink: Sink) -> Metrics:
        parts = shares(n, publishers)
        n = sum(map(len, parts))
        with folder() as made:
            peer = opened(made)
            with (watch := Watch(time.process_time_ns)):
                consumer = Consumer(peer, n, checked(sink, sink.plain()))
                put_at_once(peer.put, parts)
                consumer.join()
            peer.close()
        return watch.per(n)

    return Arm(name=_name(opened), run=run, producers=publishers)


def _async_peer(publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = shares(n, publishers)
        n = sum(map(len, parts))
        handle = checked(sink, sink.awaited())
        with folder() as made:
            queue = AsyncPersistQueue(made)
            await queue.open()

            async def consumer() -> None:
                for _ in range(n):
                    await handle(await queue.get())

            with (watch := Watch(time.process_time_ns)):
                await asyncio.gather(consumer(), *map(queue.put_each, parts))
            await queue.close()
        return watch.per(n)

    return Arm(name=f"{AsyncPersistQueue.name} (no ack)", run=run, producers=publishers)


def _name(peer: type[Peer]) -> str:
    return peer.name if peer.acknowledges else f"{peer.name} (no ack)"


def _benchmark(publishers: int, goal: float | None = None) -> Benchmark:
    peers = (*(_peer(peer, publishers) for peer in PEERS), *([_async_peer(publishers)] if HAS_ASYNC else []))
    return Benchmark(
        name=f"durable flow, {publishers} at once",
        question=f"What does a message cost from publish to settled with {publishers} publishers?",
        arms=(_bus(publishers), *peers),
        messages=max(512, publishers * 16),
        check_messages=256,
        targets=tuple(
            Target(what=f"{publishers} to settled, times {arm.name}", subject="bus", peer=arm.name, goal=goal)
            for arm in peers
            if goal is not None
        ),
        skipped=SKIPPED,
    )


BENCHMARKS = (_benchmark(1, goal=1.0), _benchmark(8), _benchmark(MANY, goal=10.0))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
