"""How many messages a second are read from a backlog in Kafka, handled and settled?

From the first that is handled to the last that is settled, so that joining the group is not in it: ``first_ns`` says
how long that took. Everybody has up to 500 messages at hand then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._kafka import (
    FETCHED,
    PLACE,
    Clock,
    Meter,
    acked,
    bus_on,
    check_committed,
    consumer_of,
    counted,
    counted_batches,
    producer_of,
    read_some,
    sent,
    wiped,
)
from benchmarks._kafka_peers import at_once
from benchmarks._loads import CONCURRENCY, NAP_MS, Load, above_ideal, backlog_benchmark, napping, sleepers
from benchmarks._redis import BATCH, PATIENCE, Text, batches, publish_batches
from benchmarks._sink import CheckFailed, Sink

__all__ = ["BENCHMARKS"]

SIZES = {"200 B": 200, "10 kB": 10_000}


def _bus(name: str, text: Text, handler: Callable[[Clock, Sink], Any], nap_ms: int = 0, **subscription: Any) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped()
        async with bus_on(store) as bus:
            await publish_batches(bus, batches(text.payloads(0, n)))
            clock = Clock()
            subscribed = bus.subscribe(CHANNEL, handler(clock, sink), group=GROUP, **subscription)
            await acked(bus, subscribed, n, lambda: clock.count)
            clock.meter.stop()
            await subscribed.unsubscribe(timeout=PATIENCE)
        check_committed(store, f"{store.prefix}.{CHANNEL}", n)
        return {**clock.per(n), **above_ideal(clock.meter.wall_ns / n, nap_ms)}

    return Arm(name=name, run=run, ordered=False)


def _raw(text: Text) -> Arm:
    """Commits of batches are begun and not waited for, as the bus's."""

    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped(raw=True)
        sent(producer_of(store), store, batches(text.payloads(0, n)))
        clock = Clock()
        handle = counted(clock, text.checked(sink, sink.awaited()))
        with consumer_of(store) as consumer:
            while clock.count < n:
                found = read_some(consumer, PATIENCE)
                if not found:
                    raise CheckFailed(f"raw: {n - clock.count} messages are missing")
                for record in found:
                    dict(record.headers())  # as it takes for knowing which message it is
                    await handle(msgspec.json.decode(record.value()))
                consumer.commit(asynchronous=True)
            clock.meter.stop()
        check_committed(store, store.topic, n)
        return clock.per(n)

    return Arm(name=f"raw, consume({FETCHED})", run=run, ordered=False)


def _raw_on_asyncio(text: Text, nap_ms: int = 0) -> Arm:
    """As it is written where a loop has other things to do than to wait for Kafka: a thread reads, and a handler is
    awaited by a worker, of which there are many where handlers sleep. What is done of a partition, from its start on,
    is committed.
    """
    workers = CONCURRENCY if nap_ms else 1

    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped(raw=True)
        sent(producer_of(store), store, batches(text.payloads(0, n)))
        clock = Clock()
        with consumer_of(store) as consumer:
            handle = text.checked(sink, sink.awaited())
            if nap_ms:
                handle = napping(handle, nap_ms)
            await at_once(consumer, counted(clock, handle), n, workers)
            clock.meter.stop()
        check_committed(store, store.topic, n)
        return {**clock.per(n), **above_ideal(clock.meter.wall_ns / n, nap_ms)}

    return Arm(name="raw on asyncio", run=run, ordered=False)


def _benchmark(size: str, messages: int) -> Benchmark:
    text = Text(SIZES[size])
    raw, on_asyncio = _raw(text), _raw_on_asyncio(text)
    return Benchmark(
        name=f"kafka consume, {size}",
        question="What does it cost to read, handle (at once) and settle a message that is there?",
        arms=(
            _bus(
                "bus",
                text,
                lambda clock, sink: counted(clock, text.checked(sink, sink.awaited())),
                capacity=1_000,
            ),
            _bus(
                f"bus, handler of batches of {BATCH}",
                text,
                lambda clock, sink: counted_batches(clock, text.checked_batches(sink)),
                capacity=1_000,
                batch=BATCH,
            ),
            raw,
            on_asyncio,
        ),
        messages=messages,
        check_messages=400,
        targets=tuple(
            Target(what=f"consume, {size}, times {peer.name}", subject="bus", peer=peer.name, goal=0.7)
            for peer in (raw, on_asyncio)
        ),
    )


def _napping(load: Load) -> Benchmark:
    bus = _bus(
        "bus",
        load.text,
        lambda clock, sink: counted(clock, napping(load.text.checked(sink, sink.awaited()), load.nap_ms)),
        load.nap_ms,
        capacity=1_000,
        concurrency=CONCURRENCY,
    )
    return backlog_benchmark(
        "kafka", (bus, _raw_on_asyncio(load.text, load.nap_ms), sleepers(Meter, load.nap_ms, "first_ns"))
    )


BENCHMARKS = (_benchmark("200 B", 20_000), _benchmark("10 kB", 5_000), _napping(Load(nap_ms=NAP_MS)))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
