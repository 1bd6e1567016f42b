"""How many messages a second are published so that a power cut cannot take them?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import (
    PLACE,
    Payload,
    bus_at,
    checked,
    drain,
    folder,
    payloads,
    publish_at_once,
    shares,
)
from benchmarks._durable_peers import HAS_ASYNC, PEERS, SKIPPED, AsyncPersistQueue, Peer, Raw
from benchmarks._durable_threads import put_at_once, take_all
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Recorder, Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

Publish = Callable[[MessageBus], Awaitable[None]]


def _bus(prepare: Callable[[int], Publish], *, name: str = "bus", producers: int = 1) -> Arm:
    """``prepare``: makes so many payloads, and what publishes them."""

    async def run(n: int, sink: Sink) -> Metrics:
        n -= n % producers
        publish = prepare(n)
        with folder() as made:
            async with bus_at(made) as bus:
                with (watch := Watch(time.process_time_ns)):
                    await publish(bus)
                if isinstance(sink, Recorder):
                    await drain(bus, n, sink)
        return watch.per(n)

    return Arm(name=name, run=run, producers=producers)


def _peer(opened: type[Peer], publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = shares(n, publishers)
        with folder() as made:
            peer = opened(made)
            with (watch := Watch(time.process_time_ns)):
                put_at_once(peer.put, parts)
            if isinstance(sink, Recorder):
                take_all(peer, sum(map(len, parts)), checked(sink, sink.plain()))
            peer.close()
        return watch.per(sum(map(len, parts)))

    return Arm(name=opened.name, run=run, producers=publishers)


def _async_peer(publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = shares(n, publishers)
        handle = checked(sink, sink.plain())
        with folder() as made:
            queue = AsyncPersistQueue(made)
            await queue.open()

            with (watch := Watch(time.process_time_ns)):
                await asyncio.gather(*map(queue.put_each, parts))
            if isinstance(sink, Recorder):
                for _ in range(sum(map(len, parts))):
                    handle(await queue.get())
            await queue.close()
        return watch.per(sum(map(len, parts)))

    return Arm(name=AsyncPersistQueue.name, run=run, producers=publishers)


def _raw(size: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        batches = _batches(n, size)
        with folder() as made:
            raw = Raw(made)
            with (watch := Watch(time.process_time_ns)):
                for batch in batches:
                    raw.put_many(batch)
            if isinstance(sink, Recorder):
                handle = checked(sink, sink.plain())
                for payload in raw.all():
                    handle(payload)
            raw.close()
        return watch.per(n)

    return Arm(name=f"{Raw.name} of {size}", run=run)


def _peer_in_batches(opened: type[Peer], size: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        batches = _batches(n, size)
        with folder() as made:
            peer = opened(made)
            with (watch := Watch(time.process_time_ns)):
                for batch in batches:
                    peer.put_many(batch)
            if isinstance(sink, Recorder):
                take_all(peer, n, checked(sink, sink.plain()))
            peer.close()
        return watch.per(n)

    return Arm(name=opened.name, run=run)


def _batches(n: int, size: int) -> list[list[Payload]]:
    return [payloads(first, min(n, first + size)) for first in range(0, n, size)]


def _many(size: int) -> Callable[[int], Publish]:
    def prepare(n: int) -> Publish:
        batches = [[(CHANNEL, payload) for payload in batch] for batch in _batches(n, size)]

        async def publish(bus: MessageBus) -> None:
            for batch in batches:
                await bus.publish_many(batch)

        return publish

    return prepare


def _at_once(publishers: int) -> Benchmark:
    def prepare(n: int) -> Publish:
        parts = shares(n, publishers)
        return lambda bus: publish_at_once(bus, parts)

    return Benchmark(
        name=f"durable publish, {publishers} at once",
        question=f"What does a durable publish cost with {publishers} publishers?",
        arms=(
            _bus(prepare, producers=publishers),
            *(_peer(peer, publishers) for peer in PEERS),
            *([_async_peer(publishers)] if HAS_ASYNC else []),
            _raw(publishers),
        ),
        messages=max(512, publishers * 16),
        check_messages=256,
        skipped=SKIPPED,
    )


def _in_batches(size: int) -> Benchmark:
    raw = _raw(size)
    return Benchmark(
        name=f"durable publish_many of {size}",
        question=f"What does a message cost in durable batches of {size}?",
        arms=(_bus(_many(size)), raw, *(_peer_in_batches(peer, size) for peer in PEERS if peer.batches())),
        messages=max(6_400, size * 10),
        check_messages=size * 2,
        targets=(Target(what=f"publish_many of {size}, times executemany", subject="bus", peer=raw.name, goal=0.5),),
        skipped=SKIPPED,
    )


BENCHMARKS = (*(_at_once(publishers) for publishers in (1, 8, 64)), *(_in_batches(size) for size in (64, 1_000)))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
