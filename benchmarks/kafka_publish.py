"""How many messages a second does Kafka store for publishers?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._kafka import (
    PLACE,
    AsyncProducer,
    Meter,
    Store,
    acked,
    bus_on,
    but_warm,
    producer_of,
    read_all,
    sent,
    warm,
    wiped,
)
from benchmarks._redis import BATCH, SIZES, Payload, Text, batches, publish_at_once, publish_batches
from benchmarks._sink import Recorder, Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

MANY = 16

Parts = Sequence[Sequence[Payload]]
Batches = Callable[[Parts], Parts]


def _bus(text: Text, publish: Callable[[MessageBus, Any], Awaitable[None]], publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = text.shares(n, publishers)
        n = sum(map(len, parts))
        async with bus_on(wiped(), warm=warm(text)) as bus:
            with (meter := Meter()):
                await publish(bus, parts)
            if isinstance(sink, Recorder):
                await _drain(bus, n, text, sink)
        return meter.per(n)

    return Arm(name="bus", run=run, producers=publishers, ordered=False)


async def _drain(bus: MessageBus, n: int, text: Text, sink: Sink) -> None:
    came, handle = 0, but_warm(text.checked(sink, sink.awaited()), sink)

    async def handler(message: Any) -> None:
        nonlocal came
        came += 1
        await handle(message)

    subscribed = bus.subscribe(CHANNEL, handler, group=GROUP)
    await acked(bus, subscribed, n + 1, lambda: came)
    await subscribed.unsubscribe(timeout=60.0)


def _raw(name: str, text: Text, batched: Batches, publishers: int, *, sticky: bool = False) -> Arm:
    """Blocks, so that nothing but the client library and the broker take time."""

    async def run(n: int, sink: Sink) -> Metrics:
        parts = text.shares(n, publishers)
        n, groups = sum(map(len, parts)), batched(parts)
        store = wiped(raw=True)
        producer = producer_of(store)
        sent(producer, store, [[warm(text)]])
        with (meter := Meter()):
            sent(producer, store, groups, sticky=sticky)
        _read(store, n, text, sink)
        return meter.per(n)

    return Arm(name=name, run=run, producers=publishers, ordered=False)


def _asyncio(text: Text, publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = text.shares(n, publishers)
        n = sum(map(len, parts))
        store = wiped(raw=True)
        producer = AsyncProducer(store)

        async def publisher(part: Sequence[Payload]) -> None:
            for payload in part:
                await producer.publish(payload)

        await producer.publish(warm(text))
        with (meter := Meter()):
            await asyncio.gather(*map(publisher, parts))
        await producer.close()
        _read(store, n, text, sink)
        return meter.per(n)

    return Arm(name="raw on asyncio", run=run, producers=publishers, ordered=False)


def _read(store: Store, n: int, text: Text, sink: Sink) -> None:
    if isinstance(sink, Recorder):
        handle = text.checked(sink, sink.plain())
        for body in read_all(store, n):
            handle(msgspec.json.decode(body))


def _one_by_one(parts: Parts) -> Parts:
    return [[payload] for part in parts for payload in part]


def _at_once(parts: Parts) -> Parts:
    """What so many publishers have at hand at a time."""
    return list(zip(*parts, strict=True))


def _in_batches(parts: Parts) -> Parts:
    return batches(parts[0])


async def _many(bus: MessageBus, parts: Parts) -> None:
    await publish_batches(bus, batches(parts[0]))


def _benchmark(name: str, question: str, size: str, arms: tuple[Arm, ...], messages: int) -> Benchmark:
    """The second arm does the same as the first."""
    equal = arms[1]
    return Benchmark(
        name=f"kafka {name}, {size}",
        question=question,
        arms=arms,
        messages=messages,
        check_messages=400,
        targets=(Target(what=f"{name}, {size}, times {equal.name}", subject="bus", peer=equal.name, goal=0.7),),
    )


def _benchmarks(size: str, text: Text, scale: float) -> tuple[Benchmark, ...]:
    one = _raw("raw", text, _one_by_one, 1)
    many = _raw(f"raw, flush of {MANY}", text, _at_once, MANY)
    many_sticky = _raw(f"raw, flush of {MANY}, sticky", text, _at_once, MANY, sticky=True)
    batch = _raw(f"raw, flush of {BATCH}", text, _in_batches, 1)
    batch_sticky = _raw(f"raw, flush of {BATCH}, sticky", text, _in_batches, 1, sticky=True)
    return (
        _benchmark(
            "publish, 1 at once",
            "What does a publish cost with one publisher?",
            size,
            (_bus(text, publish_at_once, 1), one, _asyncio(text, 1)),
            int(1_000 * scale),
        ),
        _benchmark(
            f"publish, {MANY} at once",
            f"What does a publish cost with {MANY} publishers?",
            size,
            (_bus(text, publish_at_once, MANY), many, many_sticky, _asyncio(text, MANY)),
            int(4_800 * scale),
        ),
        _benchmark(
            f"publish_many of {BATCH}",
            f"What does a message cost in batches of {BATCH}?",
            size,
            (_bus(text, _many, 1), batch, batch_sticky),
            int(20_000 * scale),
        ),
    )


BENCHMARKS = (*_benchmarks("200 B", SIZES["200 B"], 1.0), *_benchmarks("10 kB", SIZES["10 kB"], 0.5))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
