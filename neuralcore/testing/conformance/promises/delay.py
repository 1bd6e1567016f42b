"""Delayed messages: never early, and in nobody's way."""

from __future__ import annotations

from neuralcore.messaging.transport import Outcome
from neuralcore.testing.conformance.bare import fetch, nothing, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.errand import LATER, done
from neuralcore.testing.conformance.promise import Broken, Unproven, expect, promise, same

DELAY = 0.4
HOURS = 10 * 3600.0
AGES = 60 * 86_400.0
"""More milliseconds than 32 bits hold."""


def check_times(bed: Bed, passed: float, wanted: float, what: str) -> None:
    if passed < wanted - 0.001:
        raise Broken(f"{what} came after {passed:.4f} s, before its {wanted:.4f} s")
    slack = bed.harness.slack
    if slack is not None and passed > wanted + slack:
        raise Broken(f"{what} came after {passed:.4f} s, long after its {wanted:.4f} s")


@promise("delay")
async def delayed(bed: Bed) -> None:
    """``delay=`` holds a message back that long, and holds nothing else back."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    began = bed.now
    await bus.publish(channel, "twice", delay=2 * DELAY)
    await bus.publish(channel, "once", delay=DELAY)
    await bus.publish(channel, "now")
    await got.exactly(3)
    same(got.payloads, ["now", "once", "twice"], "the order")
    check_times(bed, got.times[1] - began, DELAY, "a delayed message")
    check_times(bed, got.times[2] - began, 2 * DELAY, "a delayed message")


@promise("delay")
async def not_before(bed: Bed) -> None:
    """``not_before=`` holds a message back until that wall-clock time."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    began = bed.now
    await bus.publish(channel, "later", not_before=bed.harness.wall() + DELAY)
    await bus.publish(channel, "past", not_before=bed.harness.wall() - 100)
    await got.exactly(2)
    same(got.payloads, ["past", "later"], "the order")
    check_times(bed, got.times[1] - began, DELAY, "a message with not_before")


@promise("delay", "keys")
async def key_is_free(bed: Bed) -> None:
    """A delayed message does not hold its key before it is due."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "later", key="k", delay=DELAY)
    await bus.publish(channel, "now", key="k")
    await got.exactly(2)
    same(got.payloads, ["now", "later"], "the order")


@promise("delay")
async def expires_while_delayed(bed: Bed) -> None:
    """A delayed message whose time to live ends first never reaches a handler."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "never", delay=2 * DELAY, ttl=DELAY)
    await bus.publish(channel, "late", delay=2 * DELAY)
    await got.exactly(1)
    same(got.payloads, ["late"], "what was handled")


@promise("delay")
async def both_times(bed: Bed) -> None:
    """With ``delay=`` and ``not_before=`` a message waits for the later of the two."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    began, wall = bed.now, bed.harness.wall()
    await bus.publish(channel, "delay is later", delay=2 * DELAY, not_before=wall + DELAY)
    await bus.publish(channel, "not_before is later", delay=DELAY, not_before=wall + 3 * DELAY)
    await got.exactly(2)
    same(got.payloads, ["delay is later", "not_before is later"], "the order")
    check_times(bed, got.times[0] - began, 2 * DELAY, "a message with both times")
    check_times(bed, got.times[1] - began, 3 * DELAY, "a message with both times")


@promise("delay")
async def for_ages(bed: Bed) -> None:
    """A message that is delayed for months does not come now."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "never", delay=AGES)
    await bus.publish(channel, "not before", not_before=bed.harness.wall() + AGES)
    await bus.publish(channel, "now")
    await got.exactly(1)
    same(got.payloads, ["now"], "what was handled")


@promise("delay")
async def for_hours(bed: Bed) -> None:
    """A message that is delayed for hours comes in its time."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    began = bed.now
    await bus.publish(channel, "hours", delay=HOURS)
    await bed.advance(HOURS)
    await got.exactly(1)
    check_times(bed, got.times[0] - began, HOURS, "a delayed message")


@promise("delay", "groups", stores=True)
async def outlives_its_publisher(bed: Bed) -> None:
    """A delayed message whose publisher closed comes in its time, not before."""
    first, second, channel, got = await bed.fresh(), await bed.fresh(), bed.channel(), bed.collector()
    await bed.subscribe(second, channel, got.handle)
    began = bed.now
    await first.publish(channel, "later", delay=2 * DELAY)
    await bed.within(first.close(), "closing")
    await got.exactly(1)
    check_times(bed, got.times[0] - began, 2 * DELAY, "a message whose publisher closed")


@promise("groups", stores=True, mandatory=True)
async def retry_outlives_its_client(bed: Bed) -> None:
    """A message that waits for its retry when the client that failed closes comes to another in its time."""
    first, second, channel = await bed.transport(), await bed.transport(), bed.channel()
    group = bed.group()
    failing, consumer = await reader(first, bed, channel, group), await reader(second, bed, channel, group)
    await publish(first, channel, [0])
    (delivery,) = await fetch(bed, failing, 1, wanted=1)
    began = bed.now
    await settle(first, Outcome.NACK, delivery, delay=2 * DELAY)
    await bed.within(first.close(), "closing")
    (again,) = await fetch(bed, consumer, 1, wanted=1)
    check_times(bed, bed.now - began, 2 * DELAY, "a retry")
    same((again.attempt, again.suspect), (2, False), "its attempt, and whether it is suspect")
    await nothing(consumer, "what else comes")
    await consumer.close()


@promise("groups", stores=True)
async def retry_outlives_a_crash(bed: Bed) -> None:
    """A message that waits for its retry when the client that failed is killed comes to another in its time."""
    bus, transport, channel, group = await bed.bus(), await bed.transport(), bed.channel(), bed.group()
    receipts = bed.collector()
    await bed.subscribe(bus, done(channel), receipts.handle)
    victim = await bed.spawn(channel, group)
    await bus.publish(channel, "later")
    await receipts.count(1, "failed attempts")
    await bed.advance(LATER / 4)
    await victim.kill()
    consumer = await reader(transport, bed, channel, group)
    (again,) = await fetch(bed, consumer, 1, wanted=1, beyond=3 * bed.harness.lease)
    if again.suspect:
        raise Unproven("the client was killed before its retry was stored")
    passed = bed.now - receipts.times[0]
    expect(passed > 0.75 * LATER, f"a retry came after {passed:.4f} s, before its {LATER:.4f} s")
    same(again.attempt, 2, "its attempt")
    await consumer.close()
