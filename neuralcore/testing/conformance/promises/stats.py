"""What a store tells of itself."""

from __future__ import annotations

from collections.abc import Callable

from neuralcore.messaging.transport import Outcome, Settlement, SettleStatus, StoreStats, Transport
from neuralcore.testing.conformance.bare import SHORT, fetch, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, Unproven, expect, promise


async def told(bed: Bed, transport: Transport, channel: str, holds: Callable[[StoreStats], bool], what: str) -> None:
    """Wait until the channel's statistics say so; a store may be a little behind."""
    deadline = bed.now + bed.harness.patience
    while True:
        found = (await transport.stats()).get(channel)
        if found is not None and holds(found):
            return
        if bed.now > deadline:
            raise Broken(f"{what}: {found}")
        await bed.advance(SHORT)


async def _tells(transport: Transport, channel: str) -> None:
    if channel not in await transport.stats():
        raise Unproven("the transport has no statistics")


@promise("groups", stores=True)
async def what_is_unsettled(bed: Bed) -> None:
    """A channel's statistics count what is stored, unsettled (in each group too) and in flight."""
    transport, channel, quick, slow = await bed.transport(), bed.channel(), bed.group("quick"), bed.group("slow")
    consumer, other = await reader(transport, bed, channel, quick), await reader(transport, bed, channel, slow)
    await publish(transport, channel, range(5))
    await _tells(transport, channel)
    lag = {quick: 5, slow: 5}
    await told(bed, transport, channel, lambda s: (s.depth, dict(s.lag)) == (5, lag), "after 5 publishes")
    await told(bed, transport, channel, lambda s: s.stored >= 5 and s.in_flight == 0, "after 5 publishes")
    deliveries = await fetch(bed, consumer, 2, wanted=2)
    await told(bed, transport, channel, lambda s: s.in_flight == 2 and s.depth == 5, "with 2 in flight")
    await settle(transport, Outcome.ACK, *deliveries)
    lag = {quick: 3, slow: 5}
    await told(bed, transport, channel, lambda s: dict(s.lag) == lag and s.in_flight == 0, "with 2 acked in one group")
    await settle(transport, Outcome.ACK, *await fetch(bed, consumer, 3, wanted=3))
    await settle(transport, Outcome.ACK, *await fetch(bed, other, 5, wanted=5))
    await told(bed, transport, channel, lambda s: not any((s.depth, s.in_flight, *s.lag.values())), "with all acked")
    await consumer.close()
    await other.close()


@promise("groups", stores=True)
async def late_settlements(bed: Bed) -> None:
    """Settlements that are refused because their lease was lost are counted."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    await publish(transport, channel, [0])
    await _tells(transport, channel)
    (delivery,) = await fetch(bed, consumer, 1, wanted=1)
    await settle(transport, Outcome.RELEASE, delivery)
    result = await transport.commit([], [Settlement(delivery, Outcome.ACK)])
    if list(result.settled) != [SettleStatus.LEASE_LOST]:
        raise Unproven("the transport does not say that the lease is lost")
    await told(bed, transport, channel, lambda s: s.rejected_settlements >= 1, "after a late settlement")
    await consumer.close()


@promise(stores=True)
async def health(bed: Bed) -> None:
    """A transport that is open and works says that it is well."""
    transport = await bed.transport()
    await publish(transport, bed.channel(), [0])
    found = await bed.within(transport.health(), "asking for its health")
    expect(found.ok, f"it says {found}")
