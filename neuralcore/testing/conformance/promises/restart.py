"""What a store still knows after its broker was switched off and on."""

from __future__ import annotations

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import Outcome, PublishStatus, Transport
from neuralcore.testing.conformance.bare import SHORT, envelope, fetch, nothing, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Unproven, expect, promise, same

DELAY = 3.0
"""Seconds: longer than a broker takes to restart, or the check would not see what comes too early."""


async def restarted(bed: Bed) -> Transport:
    """A new client, of the broker that was restarted."""
    await bed.harness.restart()
    return await bed.transport()


@promise("durable", "groups", stores=True)
async def positions_and_attempts(bed: Bed) -> None:
    """After the broker's restart what was acked stays acked, and what failed has the attempts that it had."""
    client, channel, group = await bed.transport(), bed.channel(), bed.group()
    consumer = await reader(client, bed, channel, group)
    await publish(client, channel, range(4))
    acked, failed, *held = await fetch(bed, consumer, 4, wanted=4)
    await settle(client, Outcome.ACK, acked)
    await settle(client, Outcome.NACK, failed)
    await settle(client, Outcome.RELEASE, *held)
    await bed.within(client.close(), "closing")
    client = await restarted(bed)
    consumer = await reader(client, bed, channel, group)
    found = await fetch(bed, consumer, 10, wanted=3, beyond=3 * bed.harness.lease)
    told = {int(each.envelope.body): each.attempt for each in found}
    same(told, {1: 2, 2: 1, 3: 1}, "the attempts after the restart")
    await nothing(consumer, "what else comes")
    await consumer.close()


@promise("durable", "groups", "delay", stores=True)
async def delays(bed: Bed) -> None:
    """After the broker's restart what is delayed, or waits for its retry, still does, and comes."""
    client, channel, group = await bed.transport(), bed.channel(), bed.group()
    consumer = await reader(client, bed, channel, group)
    await publish(client, channel, [0])
    (failed,) = await fetch(bed, consumer, 1, wanted=1)
    began = bed.now
    await settle(client, Outcome.NACK, failed, delay=DELAY)
    await client.commit([envelope(channel, 1, delay_ns=round(DELAY * 1e9))])
    await bed.within(client.close(), "closing")
    client = await restarted(bed)
    consumer = await reader(client, bed, channel, group)
    found = await fetch(bed, consumer, 1, wanted=1)
    expect(bed.now - began > DELAY - 0.01, f"message {found[0].envelope.id} came before its time")
    found += await fetch(bed, consumer, 1, wanted=1)
    same({int(each.envelope.body): each.attempt for each in found}, {0: 2, 1: 1}, "their attempts")
    await consumer.close()


@promise("durable", "dedup=store", stores=True)
async def duplicates(bed: Bed) -> None:
    """After the broker's restart a repeated publish is still a duplicate."""
    client, channel = await bed.transport(), bed.channel()
    await publish(client, channel, [0])
    client = await restarted(bed)
    result = await client.commit([envelope(channel, 0)])
    same(list(result.published), [PublishStatus.DUPLICATE], "the status of the repeated publish")


@promise("durable", stores=True)
async def registry(bed: Bed) -> None:
    """After the broker's restart the channels are still known."""
    client, declared, used = await bed.transport(), bed.channel("declared"), bed.channel("used")
    await client.declare(ChannelConfig(declared))
    await publish(client, used, [0])
    if not {declared, used} <= set(await client.channels()):
        raise Unproven("the transport lists no channels")
    client = await restarted(bed)
    deadline = bed.now + bed.harness.patience
    while not {declared, used} <= set(known := await client.channels()) and bed.now < deadline:
        await bed.advance(SHORT)
    expect({declared, used} <= set(known), f"of {declared} and {used} the store knows {sorted(known)}")


@promise("durable", "groups", "retention", stores=True)
async def what_is_kept(bed: Bed) -> None:
    """After the broker's restart what retention keeps is still there for new groups."""
    client, channel = await bed.transport(), bed.channel()
    await client.declare(ChannelConfig(channel, retention=Retention(count=100)))
    consumer = await reader(client, bed, channel)
    await publish(client, channel, range(5))
    await settle(client, Outcome.ACK, *await fetch(bed, consumer, 5, wanted=5))
    await bed.within(client.close(), "closing")
    client = await restarted(bed)
    again = await reader(client, bed, channel, start="beginning")
    await fetch(bed, again, 10, wanted=5)
    await nothing(again, "what else comes")
    await again.close()
