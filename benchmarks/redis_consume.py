"""How many messages a second are read from a backlog in Redis, handled and settled?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks._cli import main
from benchmarks._durable import GROUP
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._loads import CONCURRENCY, NAP_MS, Load, above_ideal, backlog_benchmark, napping, sleepers
from benchmarks._redis import (
    BATCH,
    PLACE,
    STREAM,
    Meter,
    Text,
    batches,
    bus_on,
    drain,
    plain_client,
    publish_batches,
    raw_publish_batches,
    wiped,
)
from benchmarks._redis_peers import at_once, reader
from benchmarks._sink import CheckFailed, Sink

__all__ = ["BENCHMARKS"]

SIZES = {"200 B": 200, "10 kB": 10_000}
RAW = "raw"


def _bus(name: str, text: Text, handler: Callable[[Sink], Callable[[Any], Any]], **subscription: Any) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        server = wiped()
        async with bus_on(server.url) as bus:
            await publish_batches(bus, batches(text.payloads(0, n)))
            with (meter := Meter(server)):
                await drain(bus, n, handler(sink), **subscription)
        return meter.per(n)

    return Arm(name=name, run=run)


def _raw(text: Text) -> Arm:
    """A batch is acknowledged in the same write that asks for the next; what was acknowledged stays in the stream."""

    async def run(n: int, sink: Sink) -> Metrics:
        handle = text.checked(sink, sink.awaited())
        server = wiped()
        async with plain_client(server.url) as client:
            await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            await raw_publish_batches(client, batches(text.payloads(0, n)))
            with (meter := Meter(server)):
                done: list[bytes] = []
                left = n
                while left or done:
                    pipeline = client.pipeline(transaction=False)
                    if done:
                        pipeline.xack(STREAM, GROUP, *done)
                    pipeline.xreadgroup(GROUP, "one", {STREAM: ">"}, count=BATCH)
                    found = (await pipeline.execute())[-1]
                    entries = found[0][1] if found else []
                    if left and not entries:
                        raise CheckFailed(f"raw: {left} messages are missing")
                    for _, fields in entries:
                        await handle(json.loads(fields[b"data"]))
                    done = [entry for entry, _ in entries]
                    left -= len(entries)
            if (await client.xpending(STREAM, GROUP))["pending"]:
                raise CheckFailed("raw: something was not acknowledged")
        return meter.per(n)

    return Arm(name=f"{RAW}, XREADGROUP of {BATCH}", run=run)


def _napping(load: Load) -> Benchmark:
    """Of the plain client, the loop that the flow has too."""
    text = load.text

    async def bus(n: int, sink: Sink) -> Metrics:
        server = wiped()
        async with bus_on(server.url) as bus:
            await publish_batches(bus, batches(text.payloads(0, n)))
            handle = napping(text.checked(sink, sink.awaited()), load.nap_ms)
            with (meter := Meter(server)):
                await drain(bus, n, handle, capacity=1_000, concurrency=CONCURRENCY)
        return {**meter.per(n), **above_ideal(meter.wall_ns / n, load.nap_ms)}

    async def raw(n: int, sink: Sink) -> Metrics:
        server = wiped()
        async with plain_client(server.url) as client, plain_client(server.url) as acks:
            await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            await raw_publish_batches(client, batches(text.payloads(0, n)))
            handle = napping(text.checked(sink, sink.awaited()), load.nap_ms)
            with (meter := Meter(server)):
                await at_once(reader(client), acks, handle, n)
        return {**meter.per(n), **above_ideal(meter.wall_ns / n, load.nap_ms)}

    arms = Arm(name="bus", run=bus, ordered=False), Arm(name=RAW, run=raw, ordered=False)
    return backlog_benchmark("redis", (*arms, sleepers(lambda: Meter(PLACE.server()), load.nap_ms)))


def _benchmark(size: str, messages: int) -> Benchmark:
    text = Text(SIZES[size])
    raw = _raw(text)
    return Benchmark(
        name=f"redis consume, {size}",
        question="What does it cost to read, handle (at once) and settle a message that is there?",
        arms=(
            _bus("bus", text, lambda sink: text.checked(sink, sink.awaited()), capacity=1_000),
            _bus(f"bus, handler of batches of {BATCH}", text, text.checked_batches, capacity=1_000, batch=BATCH),
            raw,
        ),
        messages=messages,
        check_messages=400,
        targets=(Target(what=f"consume, {size}, times {raw.name}", subject="bus", peer=raw.name, goal=0.7),),
    )


BENCHMARKS = (
    _benchmark("200 B", 10_000),
    _benchmark("10 kB", 3_000),
    _napping(Load(nap_ms=NAP_MS)),
)

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
