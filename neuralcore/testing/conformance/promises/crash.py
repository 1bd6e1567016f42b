"""Clients that are killed and brokers that are restarted."""

from __future__ import annotations

from collections import Counter

from neuralcore.messaging.bus import MessageBus
from neuralcore.testing.conformance.bed import Bed, Collector
from neuralcore.testing.conformance.harness import Client
from neuralcore.testing.conformance.promise import expect, promise, same

ATTEMPTS = 5
"""``max_attempts`` of the clients that a harness spawns: the default policy's."""


@promise("groups", stores=True)
async def killed_in_its_handler(bed: Bed) -> None:
    """What a killed client was handling, and what it had fetched, goes to another one."""
    bus, channel, group, got = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    victim = await bed.spawn(channel, group)
    for n in range(20):
        await bus.publish(channel, n)
    await victim.holding(1)
    await victim.kill()
    await bed.subscribe(bus, channel, got.handle, group=group)
    await got.count(20, "deliveries after the kill", beyond=3 * bed.harness.lease)
    await got.every(range(20))


@promise("groups", stores=True)
async def neighbours_lose_no_attempt(bed: Bed) -> None:
    """Messages that a killed client had fetched but not begun lose no attempt."""
    bus, channel, group, got = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    victim = await bed.spawn(channel, group)
    for n in range(10):
        await bus.publish(channel, n)
    await victim.holding(1)
    await bed.soon()
    await victim.kill()
    await bed.subscribe(bus, channel, got.handle, group=group)
    await got.count(10, "deliveries after the kill", beyond=3 * bed.harness.lease)
    late = Counter(m.attempt for m in got.messages)
    expect(late[1] >= 9 and set(late) <= {1, 2}, f"attempts after one crash: {dict(late)}")


@promise("groups", stores=True)
async def poison_that_kills(bed: Bed) -> None:
    """A message that kills every process that handles it is dead-lettered after at most max_attempts + 1 crashes."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    dead, got = bed.collector(), bed.collector()
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bus.publish(channel, "poison")
    crashes = 0
    for _ in range(ATTEMPTS + 4):
        if dead.messages or crashes > ATTEMPTS + 1:
            break
        victim = await bed.spawn(channel, group)
        if await _begins(bed, victim, dead):
            crashes += 1
        await victim.kill()
        await bed.advance(1.5 * bed.harness.lease)
    expect(crashes <= ATTEMPTS + 1, f"it was not dead-lettered after {crashes} crashes")
    (letter,) = await dead.exactly(1, "dead letters")
    expect(letter.headers.get("nc-dlq-reason") in ("poison", "attempts"), "its reason is missing")
    await bed.subscribe(bus, channel, got.handle, group=group)
    await bus.publish(channel, "healthy")
    await got.exactly(1)
    same(got.payloads, ["healthy"], "what came after it")


async def _begins(bed: Bed, victim: object, dead: object) -> bool:
    """Whether the victim's handler is called, before the message is dead-lettered instead."""
    import asyncio

    holding = asyncio.ensure_future(victim.holding(1))  # type: ignore[attr-defined]
    buried = asyncio.ensure_future(dead.count(1, beyond=3 * bed.harness.lease))  # type: ignore[attr-defined]
    await asyncio.wait({holding, buried}, return_when=asyncio.FIRST_COMPLETED)
    begun = holding.done() and not buried.done()
    for task in (holding, buried):
        task.cancel()
    await asyncio.gather(holding, buried, return_exceptions=True)
    return begun


@promise("groups", "keys", stores=True)
async def keys_of_the_dead(bed: Bed) -> None:
    """The key that a killed client held is free again, and its messages keep their order."""
    bus, channel, group, got = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    victim = await bed.spawn(channel, group)
    for n in range(5):
        await bus.publish(channel, n, key="k")
    await victim.holding(1)
    await victim.kill()
    await bed.subscribe(bus, channel, got.handle, group=group, concurrency=3)
    await got.count(5, "deliveries after the kill", beyond=3 * bed.harness.lease)
    await got.every(range(5))
    same(got.payloads, list(range(5)), "the order")


@promise("groups", stores=True)
async def killed_publisher(bed: Bed) -> None:
    """What a publisher was told is stored outlives it."""
    channel, got = bed.channel(), bed.collector()
    await bed.harness.publish_and_die(channel, 20)
    await bed.subscribe(await bed.bus(), channel, got.handle)
    await got.every(range(20))


async def stalled(bed: Bed, bus: MessageBus, channel: str, other: Collector) -> Client:
    """A client that goes on after the message in its handler, "held", went to another consumer."""
    group = bed.group()
    victim = await bed.spawn(channel, group)
    await bus.publish(channel, "held")
    await victim.holding(1)
    await victim.pause()
    await bed.subscribe(bus, channel, other.handle, group=group)
    await other.count(1, "deliveries after the lease ran out", beyond=3 * bed.harness.lease)
    await victim.resume()
    return victim


@promise("groups", stores=True)
async def a_late_settlement_is_harmless(bed: Bed) -> None:
    """A client that stalls past its lease loses the message to another; what it settles later changes nothing."""
    bus, channel, got, gate = await bed.bus(), bed.channel(), bed.collector(), bed.gate()
    other = bed.collector(gate.wait)
    victim = await stalled(bed, bus, channel, other)
    await victim.finish()
    await bed.quiet()
    gate.open()
    other.relay(got)
    await got.exactly(1)
    await victim.kill()
    await bus.publish(channel, "next")
    await got.every(["held", "next"])


@promise("groups", stores=True)
async def a_stalled_client_is_told(bed: Bed) -> None:
    """A handler that holds a message whose lease was lost meanwhile is told by ``message.lease_lost``."""
    victim = await stalled(bed, await bed.bus(), bed.channel(), bed.collector())
    await bed.within(victim.lost(1), "telling the handler that its lease is lost", beyond=3 * bed.harness.lease)


@promise("durable", "groups", stores=True)
async def restarted_broker(bed: Bed) -> None:
    """What was published before the broker's restart is delivered after it, and clients go on."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    gate = bed.gate()
    holding = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, holding.handle)
    for n in range(20):
        await bus.publish(channel, n)
    await gate.held(1)
    await bed.harness.restart()
    gate.open()
    for n in range(20, 25):
        await bus.publish(channel, n)
    holding.relay(got)
    await got.count(25, "deliveries after the restart", beyond=3 * bed.harness.lease)
    same(set(got.payloads), set(range(25)), "what was delivered, at least once each")
