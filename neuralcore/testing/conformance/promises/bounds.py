"""What a full store drops, and what it must not."""

from __future__ import annotations

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import Outcome, PublishStatus
from neuralcore.testing.conformance.bare import envelope, fetch, nothing, numbers, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same

LATER = 1.5
"""Seconds."""


@promise("bounded", "priorities", stores=True)
async def the_least_urgent_goes(bed: Bed) -> None:
    """A full store with ``drop_old`` drops the least urgent waiting message, and of those the oldest."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, capacity=4, overflow="drop_old"))
    consumer = await reader(transport, bed, channel)
    for number, priority in enumerate((90, 90, 10, 50, 50, 50, 50)):
        result = await transport.commit([envelope(channel, number, priority=priority)])
        same(list(result.published), [PublishStatus.STORED], f"the status of message {number}")
    found = await fetch(bed, consumer, 10, wanted=4)
    same(numbers(found), [2, 4, 5, 6], "what is left of them")
    await nothing(consumer, "what else is left")
    await consumer.close()


@promise("bounded", stores=True)
async def in_flight_stays(bed: Bed) -> None:
    """A full store with ``drop_old`` drops nothing that is in flight or that waits for its retry."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, capacity=3, overflow="drop_old"))
    consumer = await reader(transport, bed, channel)
    await publish(transport, channel, range(3))
    held, failed, _ = await fetch(bed, consumer, 3, wanted=3)
    await settle(transport, Outcome.NACK, failed, delay=LATER)
    result = await transport.commit([envelope(channel, number) for number in (3, 4)])
    expect(PublishStatus.STORED not in result.published, "a message was stored where nothing could be dropped for it")
    await settle(transport, Outcome.ACK, held)
    await publish(transport, channel, [5])
    await publish(transport, channel, [6])
    await bed.advance(LATER)
    found = await fetch(bed, consumer, 10, wanted=2)
    same(sorted(numbers(found)), [*numbers([failed]), 6], "what comes")
    await nothing(consumer, "what else comes")
    await consumer.close()


@promise("bounded", "delay", stores=True)
async def delayed_stays(bed: Bed) -> None:
    """A full store with ``drop_old`` drops no delayed message."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, capacity=2, overflow="drop_old"))
    consumer = await reader(transport, bed, channel)
    result = await transport.commit([envelope(channel, 0, delay_ns=round(LATER * 1e9))])
    same(list(result.published), [PublishStatus.STORED], "the status of the delayed message")
    for number in (1, 2, 3):
        await publish(transport, channel, [number])
    await bed.advance(LATER)
    same(sorted(numbers(await fetch(bed, consumer, 10, wanted=2))), [0, 3], "what comes")
    await nothing(consumer, "what else comes")
    await consumer.close()
