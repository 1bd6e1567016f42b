"""What a full channel does, and that it stays bounded. Messages in flight keep their slot."""

from __future__ import annotations

import asyncio
from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.channel import Overflow
from neuralcore.messaging.errors import ChannelFull
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing.conformance.bed import Bed, Collector, Gate
from neuralcore.testing.conformance.promise import Broken, expect, promise, same

CAPACITY = 5


async def full(bed: Bed, overflow: Overflow, **options: Any) -> tuple[MessageBus, str, Collector, Gate]:
    """A channel with its handler held and no room left: message 0 in flight, the others waiting."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    bus.create_channel(channel, capacity=CAPACITY, overflow=overflow)
    got = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, got.handle, **options)
    await bus.publish(channel, 0, **bed.offered(priority=90))
    await gate.held(1)
    for n in range(1, CAPACITY):
        id = await bed.within(bus.publish(channel, n, **bed.offered(priority=90)), "a publish that has room")
        expect(id is not None, f"message {n} of {CAPACITY} was dropped though there was room")
    return bus, channel, got, gate


@promise("bounded")
async def reject(bed: Bed) -> None:
    """``reject`` raises ChannelFull, which carries the message, and takes messages again once there is room."""
    bus, channel, got, gate = await full(bed, "reject")
    try:
        await bed.within(bus.publish(channel, "one too many"), "a publish that is refused")
    except ChannelFull as error:
        same(error.channel, channel, "the channel in ChannelFull")
        same(error.message and error.message.payload, "one too many", "the message in ChannelFull")
    else:
        raise Broken("a publish into a full channel was accepted")
    gate.open()
    await got.exactly(CAPACITY)
    await bus.publish(channel, "room again")
    await got.exactly(CAPACITY + 1)


@promise("bounded")
async def drop_new(bed: Bed) -> None:
    """``drop_new`` drops what comes, answers None, and keeps what it has."""
    bus, channel, got, gate = await full(bed, "drop_new")
    for _ in range(3):
        same(await bus.publish(channel, "dropped", **bed.offered(priority=0)), None, "what publish answered")
    gate.open()
    await got.every(range(CAPACITY))


@promise("bounded")
async def drop_old(bed: Bed) -> None:
    """``drop_old`` drops the least urgent waiting message, the oldest of those, and never what is in flight."""
    bus, channel, got, gate = await full(bed, "drop_old", **bed.prefetch(1))
    for n in range(3):
        id = await bus.publish(channel, f"urgent-{n}", **bed.offered(priority=10))
        expect(id is not None, "an urgent message was dropped")
    gate.open()
    await got.exactly(CAPACITY)
    urgent = [payload for payload in got.payloads if isinstance(payload, str)]
    same(urgent, ["urgent-0", "urgent-1", "urgent-2"], "the urgent messages")
    same(got.payloads[0], 0, "what was in flight")
    if bed.capabilities.in_process:
        same(got.payloads[-1], CAPACITY - 1, "the one of the older messages that was kept")


@promise("bounded")
async def block(bed: Bed) -> None:
    """``block`` waits for room: memory stays bounded, and nothing is lost."""
    bus, channel, got, gate = await full(bed, "block")
    accepted = 0

    async def publish() -> None:
        nonlocal accepted
        for n in range(CAPACITY, 50):
            await bus.publish(channel, n, **bed.offered(priority=90))
            accepted += 1

    publisher = asyncio.create_task(publish())
    await bed.quiet()
    same(accepted, 0, "messages accepted beyond the capacity")
    expect(bus.queue_size(channel) <= CAPACITY, f"queue_size is {bus.queue_size(channel)}")
    gate.open()
    await bed.within(publisher, "publishing once there is room")
    await got.every(range(50))


@promise("bounded")
async def cancelled_while_waiting(bed: Bed) -> None:
    """A publish that is cancelled while it waits for room has not happened."""
    bus, channel, got, gate = await full(bed, "block")
    waiting = [asyncio.create_task(_publish(bed, bus, channel, 100 + n)) for n in range(6)]
    await bed.quiet()
    for task in waiting[::2]:
        task.cancel()
    await asyncio.wait(waiting[::2])
    gate.open()
    for task in waiting[1::2]:
        await bed.within(task, "a publish that was not cancelled")
    await got.every([*range(CAPACITY), 101, 103, 105])


async def _publish(bed: Bed, bus: MessageBus, channel: str, payload: int) -> str | None:
    return await bus.publish(channel, payload, **bed.offered(priority=90))


@promise("bounded")
async def retries_keep_their_slot(bed: Bed) -> None:
    """A message that waits for its retry keeps its slot: it is never dropped, and does not wait for room."""
    bus, channel = await bed.bus(), bed.channel()
    bus.create_channel(channel, capacity=1, overflow="drop_new")

    async def fail_once(message: Message) -> None:
        if message.attempt == 1:
            raise RuntimeError("on purpose")

    got = bed.collector(fail_once)
    policy = RetryPolicy(base=0.2, jitter=False)
    await bed.subscribe(bus, channel, got.handle, retry=policy)
    await bus.publish(channel, "first")
    await got.count(1)
    await bed.soon()
    same(await bus.publish(channel, "second"), None, "what a publish answers while a retry waits")
    await got.exactly(2)
    same(got.payloads, ["first", "first"], "what was handled")
