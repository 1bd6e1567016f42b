"""How many messages a second does Redis store for publishers?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._redis import (
    BATCH,
    PLACE,
    SIZES,
    STREAM,
    Meter,
    Payload,
    Text,
    batches,
    bus_on,
    drain,
    entry,
    plain_client,
    publish_at_once,
    publish_batches,
    raw_publish_batches,
    wiped,
)
from benchmarks._sink import Recorder, Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

MANY = 16

Publish = Callable[[Any, list[list[Payload]]], Awaitable[None]]


def _bus(text: Text, publish: Callable[[MessageBus, Any], Awaitable[None]], publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = text.shares(n, publishers)
        n = sum(map(len, parts))
        server = wiped()
        async with bus_on(server.url) as bus:
            with (meter := Meter(server)):
                await publish(bus, parts)
            if isinstance(sink, Recorder):
                await drain(bus, n, text.checked(sink, sink.awaited()))
        return meter.per(n)

    return Arm(name="bus", run=run, producers=publishers)


def _raw(name: str, text: Text, publish: Publish, publishers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = text.shares(n, publishers)
        n = sum(map(len, parts))
        server = wiped()
        async with plain_client(server.url) as client:
            with (meter := Meter(server)):
                await publish(client, parts)
            if isinstance(sink, Recorder):
                handle = text.checked(sink, sink.plain())
                for _, fields in await client.xrange(STREAM):
                    handle(json.loads(fields[b"data"]))
        return meter.per(n)

    return Arm(name=name, run=run, producers=publishers)


async def _one_by_one(client: Any, parts: Sequence[Sequence[Payload]]) -> None:
    """Each by a publisher of its own; the client gives each a connection."""

    async def publisher(part: Sequence[Payload]) -> None:
        for payload in part:
            await client.xadd(STREAM, entry(payload))

    await asyncio.gather(*map(publisher, parts))


async def _pipelined_at_once(client: Any, parts: Sequence[Sequence[Payload]]) -> None:
    """What so many publishers have at hand at a time, in one pipeline."""
    await raw_publish_batches(client, list(zip(*parts, strict=True)))


async def _in_batches(client: Any, parts: Sequence[Sequence[Payload]]) -> None:
    await raw_publish_batches(client, batches(parts[0]))


async def _many(bus: MessageBus, parts: Sequence[Sequence[Payload]]) -> None:
    await publish_batches(bus, batches(parts[0]))


def _synced(arm: Arm) -> Arm:
    """The same on a server that syncs before it answers; before and after this run it does as for all other arms."""

    async def run(n: int, sink: Sink) -> Metrics:
        with PLACE.server().syncing("always"):
            return await arm.run(n, sink)

    return replace(arm, run=run)


def _benchmark(name: str, question: str, size: str, arms: tuple[Arm, ...], messages: int) -> Benchmark:
    """The second arm has batches as large as those of the first."""
    equal = arms[1]
    return Benchmark(
        name=f"redis {name}, {size}",
        question=question,
        arms=arms,
        messages=messages,
        check_messages=400,
        targets=(Target(what=f"{name}, {size}, times {equal.name}", subject="bus", peer=equal.name, goal=0.7),),
    )


def _of_many(text: Text) -> tuple[Arm, Arm]:
    """The plain client's, as many messages at once as the bus has, and each by itself."""
    pipeline = _raw(f"raw pipelines of {MANY}", text, _pipelined_at_once, MANY)
    return pipeline, _raw("raw XADD", text, _one_by_one, MANY)


def _benchmarks(size: str, text: Text, scale: float) -> tuple[Benchmark, ...]:
    single = _raw("raw XADD", text, _one_by_one, 1)
    batch = _raw(f"raw pipelines of {BATCH}", text, _in_batches, 1)
    return (
        _benchmark(
            "publish, 1 at once",
            "What does a publish cost with one publisher?",
            size,
            (_bus(text, publish_at_once, 1), single),
            int(1_000 * scale),
        ),
        _benchmark(
            f"publish, {MANY} at once",
            f"What does a publish cost with {MANY} publishers?",
            size,
            (_bus(text, publish_at_once, MANY), *_of_many(text)),
            int(3_200 * scale),
        ),
        _benchmark(
            f"publish_many of {BATCH}",
            f"What does a message cost in batches of {BATCH}?",
            size,
            (_bus(text, _many, 1), batch),
            int(10_000 * scale),
        ),
    )


def _synced_benchmark(size: str, text: Text) -> Benchmark:
    return _benchmark(
        f"publish, {MANY} at once, appendfsync always",
        f"What does a publish cost with {MANY} publishers, when it is synced before it returns?",
        size,
        tuple(map(_synced, (_bus(text, publish_at_once, MANY), *_of_many(text)))),
        3_200,
    )


BENCHMARKS = (
    *_benchmarks("200 B", SIZES["200 B"], 1.0),
    *_benchmarks("10 kB", SIZES["10 kB"], 0.5),
    _synced_benchmark("200 B", SIZES["200 B"]),
)

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
