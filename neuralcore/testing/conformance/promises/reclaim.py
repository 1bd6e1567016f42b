"""Leases: what their loss makes of a delivery, and that it is settled by its owner alone."""

from __future__ import annotations

from neuralcore.messaging.transport import Outcome, Settlement, SettleStatus
from neuralcore.testing.conformance.bare import fetch, nothing, numbers, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same
from neuralcore.testing.conformance.promises.attempts import abandoned


@promise("groups", stores=True)
async def suspects(bed: Bed) -> None:
    """What a crashed client held comes as suspect, and nothing else does."""
    channel, group, transport = bed.channel(), bed.group(), await bed.transport()
    await abandoned(bed, channel, group, 3)
    await publish(transport, channel, range(3, 6))
    consumer = await reader(transport, bed, channel, group)
    found = await fetch(bed, consumer, 6, wanted=6, beyond=3 * bed.harness.lease)
    told = {int(each.envelope.body): each.suspect for each in found}
    same(told, {n: n < 3 for n in range(6)}, "which are suspect")
    same({each.attempt for each in found}, {1}, "their attempts")
    await settle(transport, Outcome.ACK, *found)
    await nothing(consumer, "what is left")
    await consumer.close()


@promise("groups", stores=True, mandatory=True)
async def a_stale_delivery_settles_nothing(bed: Bed) -> None:
    """Who gave a message back settles nothing with that delivery, least of all the next owner's."""
    first, second, channel = await bed.transport(), await bed.transport(), bed.channel()
    group = bed.group()
    giving = await reader(first, bed, channel, group)
    await publish(first, channel, [0])
    (stale,) = await fetch(bed, giving, 1, wanted=1)
    await settle(first, Outcome.RELEASE, stale)
    await giving.close()
    consumer = await reader(second, bed, channel, group)
    (owned,) = await fetch(bed, consumer, 1, wanted=1)
    for outcome in (Outcome.ACK, Outcome.NACK, Outcome.RELEASE):
        result = await first.commit([], [Settlement(stale, outcome)])
        expect(list(result.settled) != [SettleStatus.SETTLED], f"{outcome.value} of a stale delivery was accepted")
    await settle(second, Outcome.NACK, owned)
    (again,) = await fetch(bed, consumer, 1, wanted=1)
    same((numbers([again]), again.attempt), ([0], 2), "the message and its attempt")
    await consumer.close()


@promise("groups", stores=True)
async def a_late_ack_is_not_the_new_owners(bed: Bed) -> None:
    """What a stalled client's handler acks after its lease ran out stays with its new owner."""
    channel, group, transport = bed.channel(), bed.group(), await bed.transport()
    victim = await bed.spawn(channel, group)
    await publish(transport, channel, [0])
    await bed.within(victim.holding(1), "the handler running")
    await victim.pause()
    await victim.finish()
    consumer = await reader(transport, bed, channel, group)
    (owned,) = await fetch(bed, consumer, 1, wanted=1, beyond=3 * bed.harness.lease)
    await victim.resume()
    await bed.quiet()
    await victim.kill()  # before it could be given the message again, and rightly acknowledge it
    await settle(transport, Outcome.NACK, owned)
    (again,) = await fetch(bed, consumer, 1, wanted=1)
    same((numbers([again]), again.attempt), ([0], 2), "the message and its attempt")
    await consumer.close()
