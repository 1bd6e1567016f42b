"""Where a new group starts to read."""

from __future__ import annotations

from datetime import datetime, timezone

from neuralcore.messaging.channel import Retention
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import promise, same

KEPT = Retention(count=1000)


@promise("groups", stores=True)
async def first_and_later_groups(bed: Bed) -> None:
    """A channel's first group starts at its beginning, later ones with what is published next."""
    bus, channel, first, later = await bed.bus(), bed.channel(), bed.collector(), bed.collector()
    for n in range(5):
        await bus.publish(channel, n)
    await bed.subscribe(bus, channel, first.handle)
    await first.every(range(5))
    await bed.subscribe(bus, channel, later.handle)
    await bus.publish(channel, 5)
    await first.every(range(6))
    await later.every([5])


@promise("groups", "retention", stores=True)
async def beginning_and_new(bed: Bed) -> None:
    """``start="beginning"`` gets everything that is kept, ``start="new"`` nothing older."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    bus.create_channel(channel, retention=KEPT)
    everything, nothing_old = bed.collector(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    for n in range(5):
        await bus.publish(channel, n)
    await got.every(range(5))
    await bed.subscribe(bus, channel, everything.handle, start="beginning")
    await bed.subscribe(bus, channel, nothing_old.handle, start="new")
    await bus.publish(channel, 5)
    await everything.every(range(6))
    await nothing_old.every([5])


@promise("groups", "retention", "seek_id", stores=True)
async def from_an_id(bed: Bed) -> None:
    """``start=`` a message's id begins with that message."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    bus.create_channel(channel, retention=KEPT)
    ids = [await bus.publish(channel, n) for n in range(6)]
    await bed.subscribe(bus, channel, got.handle, start=ids[3])
    await got.every(range(3, 6))


@promise("groups", "retention", "seek_time", stores=True)
async def from_a_time(bed: Bed) -> None:
    """``start=`` a time begins with what was published then."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    bus.create_channel(channel, retention=KEPT)
    await bus.publish(channel, "before")
    await bed.advance(1.0)
    moment = datetime.fromtimestamp(bed.harness.wall(), timezone.utc)
    await bed.advance(1.0)
    await bus.publish(channel, "after")
    await bed.subscribe(bus, channel, got.handle, start=moment)
    await got.every(["after"])


@promise("groups", stores=True)
async def a_group_keeps_its_position(bed: Bed) -> None:
    """A group goes on where it stopped, on another client too."""
    first, second, channel, group = await bed.bus(), await bed.bus(), bed.channel(), bed.group()
    got = bed.collector()
    subscription = await bed.subscribe(first, channel, got.handle, group=group)
    for n in range(5):
        await first.publish(channel, n)
    await got.every(range(5))
    await bed.within(subscription.unsubscribe(), "unsubscribing")
    for n in range(5, 10):
        await first.publish(channel, n)
    await bed.subscribe(second, channel, got.handle, group=group)
    await got.every(range(10))
    same(sorted(got.payloads), list(range(10)), "what the group got")
