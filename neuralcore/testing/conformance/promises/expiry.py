"""Messages with a time to live never reach a handler after it."""

from __future__ import annotations

from neuralcore._core import Message
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same

TTL = 0.3


@promise(mandatory=True)
async def expired(bed: Bed) -> None:
    """An expired message never reaches a handler, and is counted."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    got = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "first")
    await gate.held(1)
    await bus.publish(channel, "short", ttl=TTL)
    await bus.publish(channel, "long", ttl=3600)
    await bus.publish(channel, "ever")
    await bed.advance(2 * TTL)
    gate.open()
    await got.exactly(3)
    same(got.payloads, ["first", "long", "ever"], "what was handled")
    same(bus.metrics().expired, 1, "messages counted as expired")


@promise(mandatory=True)
async def in_time(bed: Bed) -> None:
    """A message that is handled in time is not expired later."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    got = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "in time", ttl=TTL)
    await gate.held(1)
    await bed.advance(2 * TTL)
    gate.open()
    await got.exactly(1)
    same(bus.metrics().expired, 0, "messages counted as expired")


@promise(mandatory=True)
async def between_attempts(bed: Bed) -> None:
    """A message whose time to live ends while it waits for its retry does not come again."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector(fail)
    await bed.subscribe(bus, channel, got.handle, retry=RetryPolicy(base=2 * TTL, factor=1.0, jitter=False))
    await bus.publish(channel, "fails", ttl=TTL)
    await got.count(1)
    await bed.advance(3 * TTL)
    await got.exactly(1)
    same(bus.metrics().expired, 1, "messages counted as expired")


async def fail(message: Message) -> None:
    raise RuntimeError("on purpose")


@promise(mandatory=True)
async def dead_lettered(bed: Bed) -> None:
    """With ``expired="dead_letter"`` an expired message is dead-lettered, with that reason."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    got, dead = bed.collector(gate.wait), bed.collector()
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bed.subscribe(bus, channel, got.handle, expired="dead_letter")
    await bus.publish(channel, "first")
    await gate.held(1)
    await bus.publish(channel, {"too": "late"}, ttl=TTL)
    await bed.advance(2 * TTL)
    gate.open()
    (letter,) = await dead.exactly(1, "dead letters")
    same(letter.payload, {"too": "late"}, "the dead letter")
    same(letter.headers.get("nc-dlq-reason"), "expired", "reason")
    same(got.payloads, ["first"], "what was handled")


@promise(mandatory=True)
async def channel_default(bed: Bed) -> None:
    """A channel's time to live holds for messages that say nothing else."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    bus.create_channel(channel, ttl=TTL)
    got = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "first", ttl=3600)
    await gate.held(1)
    await bus.publish(channel, "default")
    await bus.publish(channel, "longer", ttl=3600)
    await bed.advance(2 * TTL)
    gate.open()
    await got.exactly(2)
    same(got.payloads, ["first", "longer"], "what was handled")
    expect(got.messages[1].expires_at, "the message does not know its expiry")
