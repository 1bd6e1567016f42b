"""Delayed messages: never early, and in nobody's way."""

from __future__ import annotations

from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, promise, same

DELAY = 0.4


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
