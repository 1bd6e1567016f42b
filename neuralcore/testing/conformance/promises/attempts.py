"""Attempts are the store's to count, whichever client failed."""

from __future__ import annotations

from neuralcore.messaging.transport import Consumer, Delivery, Outcome
from neuralcore.testing.conformance.bare import fetch, numbers, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import promise, same


@promise("groups", stores=True, mandatory=True)
async def kept_across_clients(bed: Bed) -> None:
    """A message that one client nacked comes to another with one attempt more; a released one does not."""
    clients, channel, group = [await bed.transport() for _ in range(3)], bed.channel(), bed.group()
    await publish(clients[0], channel, range(2))
    for attempt, client in enumerate(clients, start=1):
        consumer = await reader(client, bed, channel, group)
        found = await fetch(bed, consumer, 2, wanted=2)
        told = {int(each.envelope.body): each.attempt for each in found}
        same(told, {0: attempt, 1: 1}, f"the attempts that client {attempt} gets")
        for each in found:
            await settle(client, Outcome.RELEASE if int(each.envelope.body) else Outcome.NACK, each)
        await bed.within(client.close(), "closing")


async def abandoned(bed: Bed, channel: str, group: str, count: int) -> None:
    """So many messages are in the handlers of a client that is killed."""
    victim = await bed.spawn(channel, group, concurrency=count)
    await publish(await bed.transport(), channel, range(count))
    await bed.within(victim.holding(count), f"{count} handlers running at once")
    await victim.kill()


async def reclaimed(bed: Bed, consumer: Consumer, count: int) -> list[Delivery]:
    """That many deliveries, in the order of their numbers, once the lease of who had them has run out."""
    found = await fetch(bed, consumer, count, wanted=count, beyond=3 * bed.harness.lease)
    return sorted(found, key=lambda each: int(each.envelope.body))


@promise("groups", stores=True)
async def stored_before_the_handler(bed: Bed) -> None:
    """A suspect's attempt, stored before its handler, counts once with its nack, and is undone by its release."""
    channel, group, transport = bed.channel(), bed.group(), await bed.transport()
    await abandoned(bed, channel, group, 3)
    consumer = await reader(transport, bed, channel, group)
    nacked, released, acked = await reclaimed(bed, consumer, 3)
    same([nacked.attempt, released.attempt, acked.attempt], [1, 1, 1], "attempts after a crash")
    await settle(transport, Outcome.ATTEMPT, nacked, released, acked)
    await settle(transport, Outcome.NACK, nacked)
    await settle(transport, Outcome.RELEASE, released)
    await settle(transport, Outcome.ACK, acked)
    again = await fetch(bed, consumer, 10, wanted=2)
    attempts = {int(each.envelope.body): each.attempt for each in again}
    same(attempts, {0: 2, 1: 1}, "attempts after a nack and a release")
    await consumer.close()


@promise("groups", stores=True)
async def a_stored_one_outlives_its_client(bed: Bed) -> None:
    """A suspect's attempt, stored before its handler, counts when that client crashes too."""
    channel, group = bed.channel(), bed.group()
    await abandoned(bed, channel, group, 1)
    second = await bed.spawn(channel, group)
    await bed.within(second.holding(1), "the second client's handler running", beyond=3 * bed.harness.lease)
    await second.kill()
    consumer = await reader(await bed.transport(), bed, channel, group)
    (delivery,) = await reclaimed(bed, consumer, 1)
    same((numbers([delivery]), delivery.attempt, delivery.suspect), ([0], 2, True), "number, attempt, suspect")
    await consumer.close()
