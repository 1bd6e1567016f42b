"""Clients that are killed and brokers that are restarted."""

from __future__ import annotations

import asyncio
from collections import Counter

from neuralcore.messaging.bus import MessageBus
from neuralcore.testing.conformance.bed import Bed, Collector
from neuralcore.testing.conformance.errand import done
from neuralcore.testing.conformance.harness import Client
from neuralcore.testing.conformance.promise import expect, promise, same
from neuralcore.testing.conformance.promises.keys import Watch
from neuralcore.testing.conformance.victims import first_to_hold, greedy, numbered

ATTEMPTS = 5
"""``max_attempts`` of the clients that a harness spawns: the default policy's."""


@promise("groups", stores=True)
async def killed_in_its_handler(bed: Bed) -> None:
    """What a killed client was handling, and the many that it had fetched, go to another one."""
    bus, channel, group, got = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    victim, _ = await greedy(bed, bus, channel, group)
    await bus.publish_many([(channel, n) for n in range(20)])
    await victim.holding(1)
    await bed.soon()
    await victim.kill()
    await bed.subscribe(bus, channel, numbered(got), group=group)
    await got.count(20, "deliveries after the kill", beyond=3 * bed.harness.lease)
    await got.every(range(20))


@promise("groups", stores=True)
async def neighbours_lose_no_attempt(bed: Bed) -> None:
    """The many messages that a killed client had fetched but not begun lose no attempt."""
    bus, channel, group, got = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    victim, _ = await greedy(bed, bus, channel, group)
    await bus.publish_many([(channel, n) for n in range(20)])
    await victim.holding(1)
    await bed.soon()
    await victim.kill()
    await bed.subscribe(bus, channel, numbered(got), group=group)
    await got.count(20, "deliveries after the kill", beyond=3 * bed.harness.lease)
    late = Counter(m.attempt for m in got.messages)
    expect(late[1] >= 19 and set(late) <= {1, 2}, f"attempts after one crash: {dict(late)}")


@promise("groups", stores=True)
async def poison_that_kills(bed: Bed) -> None:
    """A message that kills every process that handles it is dead-lettered after at most max_attempts + 1 crashes."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    dead, got = bed.collector(), bed.collector()
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bus.publish(channel, "poison")
    await _crash_until_buried(bed, channel, group, dead)
    (letter,) = await dead.exactly(1, "dead letters")
    expect(letter.headers.get("nc-dlq-reason") in ("poison", "attempts"), "its reason is missing")
    await bed.subscribe(bus, channel, got.handle, group=group)
    await bus.publish(channel, "healthy")
    await got.exactly(1)
    same(got.payloads, ["healthy"], "what came after it")


@promise("groups", stores=True)
async def poison_among_many(bed: Bed) -> None:
    """What was fetched together with a message that kills is handled all the same, and never dead-lettered."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    dead, names = bed.collector(), [f"quick-{n}" for n in range(100, 130)]
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    first, receipts = await greedy(bed, bus, channel, group)
    await bus.publish_many([(channel, payload) for payload in [*names[:10], "poison", *names[10:]]])
    await first.holding(1)
    await bed.soon()
    await first.kill()
    await _crash_until_buried(bed, channel, group, dead, crashes=1)
    await bed.spawn(channel, group)
    await receipts.include(names, beyond=3 * bed.harness.lease)
    await dead.exactly(1, "dead letters")
    same(dead.payloads, ["poison"], "what was dead-lettered")


async def _crash_until_buried(bed: Bed, channel: str, group: str, dead: Collector, *, crashes: int = 0) -> None:
    """One client after the other is killed when it holds the poison, and has fetched a few messages beside it."""
    for _ in range(ATTEMPTS + 4):
        if dead.messages or crashes > ATTEMPTS + 1:
            break
        victim = await bed.spawn(channel, group, concurrency=4)
        if await _begins(bed, victim, dead):
            crashes += 1
        await victim.kill()
    expect(crashes <= ATTEMPTS + 1, f"it was not dead-lettered after {crashes} crashes")


async def _begins(bed: Bed, victim: Client, dead: Collector) -> bool:
    """Whether the victim's handler is called, before the message is dead-lettered instead."""
    holding = asyncio.ensure_future(victim.holding(1))
    buried = asyncio.ensure_future(dead.count(1, beyond=3 * bed.harness.lease))
    await asyncio.wait({holding, buried}, return_when=asyncio.FIRST_COMPLETED)
    begun = holding.done() and not buried.done()
    for task in (holding, buried):
        task.cancel()
    await asyncio.gather(holding, buried, return_exceptions=True)
    return begun


@promise("groups", "keys", stores=True)
async def keys_of_the_dead(bed: Bed) -> None:
    """The keys that a killed client held are free again, and the messages of each keep their order."""
    bus, channel, group, watch = await bed.bus(), bed.channel(), bed.group(), Watch()
    got = bed.collector(watch.handle)
    victim, _ = await greedy(bed, bus, channel, group)
    for n in range(20):
        await bus.publish(channel, n, key=f"key-{n % 2}")
    await victim.holding(1)
    await bed.soon()
    await victim.kill()
    for client in (bus, await bed.bus()):
        await bed.subscribe(client, channel, numbered(got), group=group, concurrency=3)
    await got.count(20, "deliveries after the kill", beyond=3 * bed.harness.lease)
    await got.every(range(20))
    same(watch.overlaps, 0, "messages of one key handled at once")
    for key in range(2):
        same(watch.order[f"key-{key}"], list(range(key, 20, 2)), f"the order of key-{key}")


@promise("groups", stores=True)
async def the_others_go_on(bed: Bed) -> None:
    """When one of a group's clients is killed, another handles what comes, and then what the dead one held."""
    bus, channel, group, receipts = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    await bed.subscribe(bus, done(channel), receipts.handle)
    clients = [await bed.spawn(channel, group, concurrency=2) for _ in range(2)]
    await bus.publish(channel, "held")
    holder = await first_to_hold(bed, clients)
    await clients.pop(holder).kill()
    early, late = ([f"quick-{n}" for n in numbers] for numbers in (range(20), range(20, 40)))
    await bus.publish_many([(channel, each) for each in early])  # of which the dead one may be handed some
    await bed.within(clients[0].holding(1), "the other client holding it", beyond=3 * bed.harness.lease)
    await bus.publish_many([(channel, each) for each in late])
    await receipts.include(late)
    await clients[0].finish()
    await receipts.include(early)


@promise("groups", "atomic_commit", stores=True)
async def buried_at_once(bed: Bed) -> None:
    """A dead letter is stored together with the end of its message: a client killed in between repeats neither."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    dead, got = bed.collector(), bed.collector()
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    victim = await bed.spawn(channel, group)
    await bus.publish(channel, "reject-it")
    await dead.count(1, "dead letters")
    await victim.kill()
    await bed.subscribe(bus, channel, got.handle, group=group)
    await bed.advance(2 * bed.harness.lease)
    await got.exactly(0, "deliveries of what was dead-lettered")
    await dead.exactly(1, "dead letters")


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
    await got.include(range(25), beyond=3 * bed.harness.lease)
    same(set(got.payloads), set(range(25)), "what was delivered, at least once each")
