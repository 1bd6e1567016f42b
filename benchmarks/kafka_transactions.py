"""What do Kafka's transactions cost, for publishing and for handlers that pass a message on?

A transaction is the coordinator's work, whatever is in it: several answers one after the other before the next may
begin. So what counts is how much goes into each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._kafka import (
    PLACE,
    Clock,
    Meter,
    Store,
    acked,
    bus_on,
    check_committed,
    consumer_of,
    producer_of,
    read_some,
    sent,
    warm,
    wiped,
)
from benchmarks._redis import BATCH, JSON, PATIENCE, Payload, Text, batches, encoded, publish_batches
from benchmarks._sink import CheckFailed, Recorder, Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

OUT = "bench.out"
AT_ONCE = 100
"""Handlers."""
TEXT = Text(200)


# Publishing


async def _in_transactions(bus: MessageBus, groups: Sequence[Sequence[Payload]]) -> None:
    for group in groups:
        async with bus.transaction() as tx:
            for payload in group:
                await tx.publish(CHANNEL, payload, content_type=JSON)


def _publishing(name: str, publish: Callable[[MessageBus, Any], Awaitable[None]]) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped()
        async with bus_on(store) as bus:
            await publish(bus, [[warm(TEXT)]])
            with (meter := Meter()):
                await publish(bus, batches(TEXT.payloads(0, n)))
        _check(store, f"{store.prefix}.{CHANNEL}", n, sink)
        return meter.per(n)

    return Arm(name=name, run=run, ordered=False)


def _raw_publishing() -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped(raw=True)
        producer = producer_of(store, transactional=True)
        producer.init_transactions(PATIENCE)
        producer.begin_transaction()
        sent(producer, store, [[warm(TEXT)]])
        producer.commit_transaction(PATIENCE)
        with (meter := Meter()):
            for group in batches(TEXT.payloads(0, n)):
                producer.begin_transaction()
                sent(producer, store, [group])
                producer.commit_transaction(PATIENCE)
        _check(store, store.topic, n, sink)
        return meter.per(n)

    return Arm(name="raw, transactions", run=run, ordered=False)


# Passing on


def _passing(name: str, *, transactions: bool) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped()
        async with bus_on(store) as bus:
            await publish_batches(bus, batches(TEXT.payloads(0, n)))
            await bus.publish(OUT, warm(TEXT), content_type=JSON)
            clock = Clock()

            async def pass_on(message: Message) -> None:
                clock.handled()
                await bus.publish(OUT, message.payload, content_type=JSON)

            async def pass_on_in_a_transaction(message: Message) -> None:
                clock.handled()
                async with message.transaction() as tx:
                    await tx.publish(OUT, message.payload, content_type=JSON)

            handler = pass_on_in_a_transaction if transactions else pass_on
            subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, concurrency=AT_ONCE, capacity=1_000)
            await acked(bus, subscribed, n, lambda: clock.count)
            clock.meter.stop()
            await subscribed.unsubscribe(timeout=PATIENCE)
        check_committed(store, f"{store.prefix}.{CHANNEL}", n)
        _check(store, f"{store.prefix}.{OUT}", n, sink)
        return clock.per(n)

    return Arm(name=name, run=run, ordered=False)


def _raw_passing() -> Arm:
    """Up to so many messages in one transaction as the bus has handlers."""

    async def run(n: int, sink: Sink) -> Metrics:
        store = wiped(raw=True)
        sent(producer_of(store), store, batches(TEXT.payloads(0, n)))
        out = Store(store.bootstrap, f"{store.prefix}.out", store.partitions)
        PLACE.cluster.create_topic(out.topic, partitions=out.partitions)
        producer = producer_of(out, transactional=True)
        producer.init_transactions(PATIENCE)
        producer.begin_transaction()
        sent(producer, out, [[warm(TEXT)]])
        producer.commit_transaction(PATIENCE)
        clock = Clock()
        with consumer_of(store) as consumer:
            while clock.count < n:
                found = read_some(consumer, PATIENCE, most=AT_ONCE)
                if not found:
                    raise CheckFailed(f"raw: {n - clock.count} messages are missing")
                clock.handled(len(found))
                producer.begin_transaction()
                sent(producer, out, [[msgspec.json.decode(record.value()) for record in found]])
                offsets = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction(
                    [each for each in offsets if each.offset >= 0], consumer.consumer_group_metadata(), PATIENCE
                )
                producer.commit_transaction(PATIENCE)
            clock.meter.stop()
        check_committed(store, store.topic, n)
        _check(out, out.topic, n, sink)
        return clock.per(n)

    return Arm(name=f"raw, transactions of {AT_ONCE}", run=run, ordered=False)


def _check(store: Store, topic: str, n: int, sink: Sink) -> None:
    """All of it is there for whoever reads what is committed only, and nothing twice."""
    if not isinstance(sink, Recorder):
        return
    handle = TEXT.checked(sink, sink.plain())
    found = 0
    with consumer_of(store, topic=topic, group="check") as consumer:
        while found <= n:
            records = read_some(consumer, 5.0)
            if not records:
                break
            for record in records:
                found += 1
                if record.value() != encoded(warm(TEXT)):
                    handle(msgspec.json.decode(record.value()))


BENCHMARKS = (
    Benchmark(
        name=f"kafka transactions, publishing {BATCH}",
        question=f"What does a message cost in transactions of {BATCH}, and in batches without?",
        arms=(
            _publishing("bus, transactions", _in_transactions),
            _publishing("bus, publish_many", publish_batches),
            _raw_publishing(),
        ),
        messages=2_000,
        check_messages=400,
        targets=(
            Target(
                what="transactions, times raw transactions",
                subject="bus, transactions",
                peer="raw, transactions",
                goal=0.7,
            ),
        ),
    ),
    Benchmark(
        name="kafka transactions, passing on",
        question=f"What does it cost to handle a message by publishing another, {AT_ONCE} at a time?",
        arms=(
            _passing("bus, transactions", transactions=True),
            _passing("bus, publish and return", transactions=False),
            _raw_passing(),
        ),
        messages=2_000,
        check_messages=400,
        targets=(
            Target(
                what="passing on, times raw transactions",
                subject="bus, transactions",
                peer=f"raw, transactions of {AT_ONCE}",
                goal=0.7,
            ),
        ),
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
