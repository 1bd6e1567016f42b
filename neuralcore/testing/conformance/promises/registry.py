"""What a store knows of channels and groups, and forgets when it is told to."""

from __future__ import annotations

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import Unsupported
from neuralcore.messaging.transport import (
    ChannelRef,
    Demand,
    GroupRef,
    Outcome,
    Settlement,
    SettleStatus,
    Transport,
)
from neuralcore.testing.conformance.bare import SHORT, envelope, fetch, numbers, reader
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, Unproven, expect, promise, same


@promise(stores=True)
async def channels(bed: Bed) -> None:
    """The channels that one client declares or publishes to are known to the others."""
    first, second = await bed.transport(), await bed.transport()
    declared, used = bed.channel("declared"), bed.channel("used")
    await first.declare(ChannelConfig(declared))
    await first.commit([envelope(used, 1)])
    known = await second.channels()
    if not known:
        raise Unproven("the transport lists no channels")
    expect({declared, used} <= set(known), f"{declared} and {used} are not among the channels {sorted(known)}")


@promise("groups", stores=True)
async def news(bed: Bed) -> None:
    """A client that subscribes to a pattern is told when another one creates a channel that it covers."""
    first, second, base = await bed.transport(), await bed.transport(), bed.channel("base")
    if not await _lists(first, f"{base}.old"):
        raise Unproven("the transport lists no channels")
    consumer = await reader(second, bed, f"{base}.*")
    events = bed.events(second)
    events.clear()
    await first.declare(ChannelConfig(f"{base}.new"))
    deadline = bed.now + bed.harness.patience
    while "channels changed" not in events:
        await consumer.fetch({1: Demand(1)}, SHORT)
        if bed.now > deadline:
            raise Broken("the other client was not told")
    expect(f"{base}.new" in await second.channels(), "the other client does not know the channel")
    await consumer.close()


async def _lists(transport: Transport, channel: str) -> bool:
    await transport.declare(ChannelConfig(channel))
    return channel in await transport.channels()


@promise("groups", stores=True)
async def removed_group(bed: Bed) -> None:
    """A group that is removed forgets its position and its leases; one of its name starts anew."""
    transport, channel, group = await bed.transport(), bed.channel(), bed.group()
    consumer = await reader(transport, bed, channel, group, start="new")
    await transport.commit([envelope(channel, n) for n in range(4)])
    (held, *_) = await fetch(bed, consumer, 2, wanted=2)
    await consumer.close()
    await _remove(transport, GroupRef(group))
    result = await transport.commit([], [Settlement(held, Outcome.ACK)])
    expect(list(result.settled) != [SettleStatus.SETTLED], "a delivery of a removed group was settled")
    again = await reader(transport, bed, channel, group, start="new")
    same(list(await again.fetch({1: Demand(10)}, SHORT)), [], "what the new group gets of the past")
    await transport.commit([envelope(channel, 4)])
    same(numbers(await fetch(bed, again, 10, wanted=1)), [4], "what the new group gets")
    await again.close()


@promise("groups", stores=True)
async def removed_channel(bed: Bed) -> None:
    """A channel that is removed forgets its messages; one of its name begins empty."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.commit([envelope(channel, n) for n in range(3)])
    await _remove(transport, ChannelRef(channel))
    expect(channel not in await transport.channels(), "a removed channel is still listed")
    await transport.commit([envelope(channel, 3)])
    consumer = await reader(transport, bed, channel, start="beginning")
    same(numbers(await fetch(bed, consumer, 10, wanted=1)), [3], "what the new channel holds")
    same(list(await consumer.fetch({1: Demand(10)}, SHORT)), [], "what else the new channel holds")
    await consumer.close()


async def _remove(transport: Transport, target: ChannelRef | GroupRef) -> None:
    try:
        await transport.remove(target)
    except Unsupported as error:
        raise Unproven("the transport removes nothing") from error
