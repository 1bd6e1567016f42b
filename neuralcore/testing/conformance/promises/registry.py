"""What a store knows of channels and groups, and forgets when it is told to."""

from __future__ import annotations

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import Unsupported
from neuralcore.messaging.transport import (
    ChannelRef,
    Consumer,
    Demand,
    Group,
    GroupRef,
    Interest,
    Outcome,
    Settlement,
    SettleStatus,
    Transport,
)
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Unproven, expect, promise, same
from neuralcore.testing.conformance.promises.store import SHORT, envelope, fetch, numbers


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
async def removed_group(bed: Bed) -> None:
    """A group that is removed forgets its position and its leases; one of its name starts anew."""
    transport, channel, group = await bed.transport(), bed.channel(), bed.group()
    consumer = await _reader(transport, channel, group)
    await transport.commit([envelope(channel, n) for n in range(4)])
    (held, *_) = await fetch(bed, consumer, 2, wanted=2)
    await consumer.close()
    await _remove(transport, GroupRef(group))
    result = await transport.commit([], [Settlement(held, Outcome.ACK)])
    expect(list(result.settled) != [SettleStatus.SETTLED], "a delivery of a removed group was settled")
    again = await _reader(transport, channel, group)
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
    consumer = await _reader(transport, channel, bed.group(), start="beginning")
    same(numbers(await fetch(bed, consumer, 10, wanted=1)), [3], "what the new channel holds")
    same(list(await consumer.fetch({1: Demand(10)}, SHORT)), [], "what else the new channel holds")
    await consumer.close()


async def _reader(transport: Transport, channel: str, group: str, *, start: str = "new") -> Consumer:
    consumer = await transport.consume(Group(group))
    await consumer.update([Interest(id=1, pattern=channel, start=start)])
    return consumer


async def _remove(transport: Transport, target: ChannelRef | GroupRef) -> None:
    try:
        await transport.remove(target)
    except Unsupported as error:
        raise Unproven("the transport removes nothing") from error
