"""Where a new group starts to read."""

from __future__ import annotations

from datetime import datetime, timezone

from neuralcore.messaging.channel import Retention
from neuralcore.messaging.transport import Group, Interest, Outcome
from neuralcore.testing.conformance.bare import fetch, numbers, publish, reader, settle
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
    """``start=`` a message's id begins with that message, for a channel's first group and for later ones."""
    bus, channel, first, later = await bed.bus(), bed.channel(), bed.collector(), bed.collector()
    bus.create_channel(channel, retention=KEPT)
    ids = [await bus.publish(channel, n) for n in range(6)]
    await bed.subscribe(bus, channel, first.handle, start=ids[3])
    await first.every(range(3, 6))
    await bed.subscribe(bus, channel, later.handle, start=ids[4])
    await later.every(range(4, 6))


@promise("groups", "retention", "seek_time", stores=True)
async def from_a_time(bed: Bed) -> None:
    """``start=`` a time begins with what was published then, for a channel's first group and for later ones."""
    bus, channel, first, later = await bed.bus(), bed.channel(), bed.collector(), bed.collector()
    bus.create_channel(channel, retention=KEPT)
    await bus.publish(channel, "before")
    await bed.advance(1.0)
    moment = datetime.fromtimestamp(bed.harness.wall(), timezone.utc)
    await bed.advance(1.0)
    await bus.publish(channel, "after")
    for got in (first, later):
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


@promise("groups", stores=True, mandatory=True)
async def a_group_outlives_its_clients(bed: Bed) -> None:
    """A group whose clients have all closed is still there: it gets what came meanwhile, and nothing twice."""
    channel, group, publisher = bed.channel(), bed.group(), await bed.transport()
    for first in (0, 4, 8):
        client = await bed.transport()
        consumer = await reader(client, bed, channel, group)
        await publish(publisher, channel, range(first, first + 4))
        behind = [n for n in (first - 2, first - 1) if n >= 0]
        found = await fetch(bed, consumer, 10, wanted=4 + len(behind))
        same(sorted(numbers(found)), [*behind, *range(first, first + 4)], "what the group gets")
        await settle(client, Outcome.ACK, *[each for each in found if int(each.envelope.body) < first + 2])
        await consumer.close()
        await bed.within(client.close(), "closing")


@promise("broadcast", stores=True)
async def a_broadcast_ends_with_its_reader(bed: Bed) -> None:
    """A broadcast's position ends with its reader: a new one gets nothing of what came in between."""
    client, channel = await bed.transport(), bed.channel()
    await publish(client, channel, [0])
    for number in (1, 3):
        listener = await client.consume(Group(None))
        await bed.within(listener.update([Interest(id=1, pattern=channel)]), "updating a consumer")
        await publish(client, channel, [number])
        found = await fetch(bed, listener, 10, wanted=1)
        same(numbers(found), [number], "what the broadcast's reader gets")
        await settle(client, Outcome.ACK, *found)
        await listener.close()
        await publish(client, channel, [number + 1])
