"""A message published twice is stored once."""

from __future__ import annotations

from msgspec.structs import replace

from neuralcore._core import Message
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.transport import PublishStatus
from neuralcore.testing.conformance.bare import envelope, fetch, numbers, publish, reader
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import promise, same

WINDOW = 2.0
"""Seconds."""


@promise("dedup")
async def same_id(bed: Bed) -> None:
    """A publish repeated with its id, from whichever client, is delivered once."""
    first, second, channel, got = await bed.bus(), await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(first, channel, got.handle)
    for bus in (first, second, first):
        await bus.publish(channel, "once", message_id="the-same-id")
    await first.publish(channel, "other", message_id="another-id")
    await got.every(["once", "other"])


@promise("dedup")
async def idempotency_key(bed: Bed) -> None:
    """Publishes with one idempotency key are one message, though their ids differ."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    for n in range(3):
        await bus.publish(channel, n, idempotency_key="order-7")
    await bus.publish(channel, "other", idempotency_key="order-8")
    await got.every([0, "other"])


@promise("dedup")
async def by_channel(bed: Bed) -> None:
    """The same id on two channels is two messages."""
    bus, got = await bed.bus(), bed.collector()
    for name in (bed.channel(), bed.channel()):
        await bed.subscribe(bus, name, got.handle)
        await bus.publish(name, name, message_id="the-same-id")
    await got.exactly(2)


@promise("dedup")
async def after_it_was_handled(bed: Bed) -> None:
    """A repeated publish is suppressed though the first one was handled already."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, 1, message_id="handled")
    await got.exactly(1)
    await bus.publish(channel, 1, message_id="handled")
    await got.exactly(1)


@promise("dedup")
async def retries_pass(bed: Bed) -> None:
    """A retry is never suppressed as a duplicate."""
    bus, channel = await bed.bus(), bed.channel()

    async def fail_twice(message: Message) -> None:
        if message.attempt < 3:
            raise RuntimeError("on purpose")

    got = bed.collector(fail_twice)
    await bed.subscribe(bus, channel, got.handle, retry=RetryPolicy(base=0.01))
    await bus.publish(channel, 1, message_id="retried")
    await got.exactly(3)


@promise("dedup", stores=True)
async def replays_pass(bed: Bed) -> None:
    """A replay is stored and delivered though its id was seen, each number once."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    original = envelope(channel, 7)
    for replay in (0, 1, 2):
        result = await transport.commit([replace(original, replay=replay)])
        same(list(result.published), [PublishStatus.STORED], f"the status of replay {replay}")
    same(numbers(await fetch(bed, consumer, 10, wanted=3)), [7, 7, 7], "deliveries")
    await consumer.close()


@promise("dedup=store", stores=True)
async def duplicates_are_told(bed: Bed) -> None:
    """A commit says which of its publishes were duplicates, also among themselves."""
    transport, channel = await bed.transport(), bed.channel()
    first, second = envelope(channel, 1), envelope(channel, 2)
    await transport.commit([first])
    result = await transport.commit([first, second, second])
    stored, duplicate = PublishStatus.STORED, PublishStatus.DUPLICATE
    same(list(result.published), [duplicate, stored, duplicate], "statuses")


@promise("dedup=store", stores=True)
async def outlives_its_publisher(bed: Bed) -> None:
    """A publish repeated by another client, after the first one closed, is a duplicate."""
    first, second, channel = await bed.transport(), await bed.transport(), bed.channel()
    await publish(first, channel, [1])
    await bed.within(first.close(), "closing")
    result = await second.commit([envelope(channel, 1)])
    same(list(result.published), [PublishStatus.DUPLICATE], "the status of the repeated publish")


@promise("dedup=store", stores=True)
async def the_window_ends(bed: Bed) -> None:
    """A publish repeated inside the channel's window is a duplicate, and one repeated after it is stored."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, dedup_window=WINDOW))
    consumer = await reader(transport, bed, channel)
    await publish(transport, channel, [1])
    await bed.advance(WINDOW / 2)
    result = await transport.commit([envelope(channel, 1)])
    same(list(result.published), [PublishStatus.DUPLICATE], "the status of a publish repeated inside the window")
    await bed.advance(1.2 * WINDOW)
    await publish(transport, channel, [1])
    same(numbers(await fetch(bed, consumer, 10, wanted=2)), [1, 1], "deliveries")
    await consumer.close()
