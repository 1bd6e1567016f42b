"""The transport's own contract, below the bus: commits, demand, browsing, inboxes."""

from __future__ import annotations

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import (
    Demand,
    Group,
    Interest,
    Outcome,
    PublishStatus,
    Settlement,
    SettleStatus,
)
from neuralcore.testing.conformance.bare import SHORT, envelope, fetch, numbers, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, expect, promise, same
from neuralcore.testing.conformance.promises.cancellation import cancelled_at


@promise(stores=True, mandatory=True)
async def commits(bed: Bed) -> None:
    """A commit answers one status for each item, in order."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    result = await transport.commit([envelope(channel, n) for n in range(5)])
    same(list(result.published), [PublishStatus.STORED] * 5, "statuses")
    deliveries = await fetch(bed, consumer, 5, wanted=5)
    acks = [Settlement(delivery, Outcome.ACK) for delivery in deliveries]
    result = await transport.commit([envelope(channel, 5)], acks[:3])
    same(list(result.published), [PublishStatus.STORED], "publish statuses")
    same(list(result.settled), [SettleStatus.SETTLED] * 3, "settle statuses")
    result = await transport.commit([], acks)
    same(result.settled[3:], [SettleStatus.SETTLED] * 2, "settle statuses")
    expect(
        SettleStatus.SETTLED not in result.settled[:3],
        "a delivery that was settled before was settled again",
    )
    same(numbers(await fetch(bed, consumer, 5, wanted=1)), [5], "what is left")
    await consumer.close()


@promise(stores=True, mandatory=True)
async def demand(bed: Bed) -> None:
    """A fetch answers no more than was demanded, and 0 pauses."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    await transport.commit([envelope(channel, n) for n in range(10)])
    first = await fetch(bed, consumer, 3, wanted=3)
    same(list(await consumer.fetch({1: Demand(0)}, SHORT)), [], "a fetch that is paused")
    rest = await fetch(bed, consumer, 100, wanted=7)
    same(sorted(numbers([*first, *rest])), list(range(10)), "deliveries")
    same(list(await consumer.fetch({1: Demand(5)}, SHORT)), [], "a fetch from an empty channel")
    await consumer.close()


@promise("priorities", stores=True)
async def more_urgent(bed: Bed) -> None:
    """A fetch answers the most urgent first, and only what is more urgent than demanded."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    ranks = [50, 90, 10, 50, 0, 255]
    await transport.commit([envelope(channel, n, priority=r) for n, r in enumerate(ranks)])
    urgent = await fetch(bed, consumer, 10, wanted=2, urgent=50)
    same([d.envelope.priority for d in urgent], [0, 10], "what is more urgent than 50")
    same(list(await consumer.fetch({1: Demand(10, 50)}, SHORT)), [], "nothing else is")
    rest = await fetch(bed, consumer, 10, wanted=4)
    same([d.envelope.priority for d in rest], [50, 50, 90, 255], "the rest, in order")
    same(numbers(rest)[:2], [0, 3], "equals, in order")
    await consumer.close()


@promise(stores=True, mandatory=True)
async def settling(bed: Bed) -> None:
    """A nack counts one attempt, a release none, and both come again; an ack does not."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    await transport.commit([envelope(channel, n) for n in range(3)])
    outcomes = {0: Outcome.ACK, 1: Outcome.NACK, 2: Outcome.RELEASE}
    deliveries = await fetch(bed, consumer, 3, wanted=3)
    same({d.attempt for d in deliveries}, {1}, "first attempts")
    await transport.commit([], [Settlement(d, outcomes[int(d.envelope.body)]) for d in deliveries])
    again = await fetch(bed, consumer, 3, wanted=2)
    attempts = {int(d.envelope.body): d.attempt for d in again}
    same(attempts, {1: 2, 2: 1}, "attempts after a nack and a release")
    same(list(await consumer.fetch({1: Demand(5)}, SHORT)), [], "what is left")
    await consumer.close()


@promise("bounded", stores=True)
async def after_a_refusal(bed: Bed) -> None:
    """A settlement that comes after a publish is skipped when that one is not stored, and the lease is kept."""
    transport, channel, full = await bed.transport(), bed.channel(), bed.channel("full")
    await transport.declare(ChannelConfig(full, capacity=1, overflow="reject"))
    keeper, consumer = await reader(transport, bed, full), await reader(transport, bed, channel)
    await transport.commit([envelope(full, 0), envelope(channel, 1)])
    (delivery,) = await fetch(bed, consumer, 1, wanted=1)
    result = await transport.commit([envelope(full, 2)], [Settlement(delivery, Outcome.ACK, after=0)])
    same(list(result.published), [PublishStatus.REFUSED], "a publish into a full channel")
    same(list(result.settled), [SettleStatus.SKIPPED], "the settlement that comes after it")
    (first,) = await fetch(bed, keeper, 1, wanted=1)
    await transport.commit([], [Settlement(first, Outcome.ACK)])
    result = await transport.commit([envelope(full, 2)], [Settlement(delivery, Outcome.ACK, after=0)])
    same(list(result.published), [PublishStatus.STORED], "a publish that has room")
    same(list(result.settled), [SettleStatus.SETTLED], "the settlement that comes after it")
    await keeper.close()
    await consumer.close()


@promise(stores=True, mandatory=True)
async def cancelled_fetch(bed: Bed) -> None:
    """A fetch that is cancelled loses no delivery."""
    transport, channel = await bed.transport(), bed.channel()
    consumer = await reader(transport, bed, channel)
    await transport.commit([envelope(channel, n) for n in range(30)])
    found: list[int] = []
    for steps in range(15):
        done, got = await cancelled_at(steps, lambda: consumer.fetch({1: Demand(2)}, SHORT))
        if done:
            found.extend(numbers(got))
    deadline = bed.now + 3 * bed.harness.lease + bed.harness.patience
    while len(found) < 30 and bed.now < deadline:
        found.extend(numbers(await consumer.fetch({1: Demand(30)}, SHORT)))
    same(sorted(found), list(range(30)), "deliveries")
    await consumer.close()


@promise("browse", "retention", stores=True)
async def browsing(bed: Bed) -> None:
    """Browsing reads everything that is kept, page by page, and settles nothing."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=Retention(count=100)))
    consumer = await reader(transport, bed, channel)
    await transport.commit([envelope(channel, n) for n in range(10)])
    seen: list[int] = []
    cursor: str | None = "beginning"
    while cursor is not None:
        page = await transport.browse(channel, cursor, 3)
        expect(len(page.envelopes) <= 3, f"a page of {len(page.envelopes)} envelopes, not 3")
        expect(page.envelopes or page.next is None, "an empty page that is not the last")
        seen.extend(int(found.body) for found in page.envelopes)
        cursor = page.next
        if len(seen) > 10:
            raise Broken(f"browsing does not end: {seen}")
    same(seen, list(range(10)), "what browsing read")
    same(len(await fetch(bed, consumer, 10, wanted=10)), 10, "deliveries after browsing")
    await consumer.close()


@promise("request_reply", stores=True)
async def inboxes(bed: Bed) -> None:
    """What is sent to an inbox arrives in it, and in no other; a closed one takes nothing down with it."""
    transport, other = await bed.transport(), await bed.transport()
    mine, theirs = await transport.inbox(), await other.inbox()
    expect(mine.address.startswith("_inbox."), f"the address is {mine.address!r}")
    expect(mine.address != theirs.address, "two inboxes have one address")
    await other.commit([envelope(mine.address, 1)])
    await transport.commit([envelope(theirs.address, 2)])
    for inbox, wanted in ((mine, [1]), (theirs, [2])):
        found: list[int] = []
        deadline = bed.now + bed.harness.patience
        while not found and bed.now < deadline:
            found.extend(int(e.body) for e in await inbox.fetch(SHORT))
        same(found, wanted, f"what {inbox.address} got")
    await theirs.close()
    await transport.commit([envelope(theirs.address, 3)])
    same(list(await mine.fetch(SHORT)), [], "what the other inbox got")


@promise("groups", stores=True, mandatory=True)
async def closing(bed: Bed) -> None:
    """Closing a transport, twice too, gives its leases up at once: nobody takes what it held for lost."""
    first, second, channel = await bed.transport(), await bed.transport(), bed.channel()
    group = bed.group()
    leaving = await reader(first, bed, channel, group)
    await first.commit([envelope(channel, n) for n in range(3)])
    await fetch(bed, leaving, 3, wanted=3)
    await bed.within(first.close(), "closing")
    await bed.within(first.close(), "closing again")
    consumer = await reader(second, bed, channel, group)
    found = await fetch(bed, consumer, 10, wanted=3, beyond=3 * bed.harness.lease)
    same(sorted(numbers(found)), [0, 1, 2], "deliveries after the first client closed")
    same({(each.attempt, each.suspect) for each in found}, {(1, False)}, "their attempts, and whether suspect")
    await consumer.close()


@promise("groups", stores=True, mandatory=True)
async def one_of_two_paused(bed: Bed) -> None:
    """Of two subscriptions of one group, the one with demand 0 gets nothing while the other is served."""
    transport, channels = await bed.transport(), [bed.channel(), bed.channel()]
    consumer = await transport.consume(Group(bed.group()))
    interests = [Interest(id=id, pattern=channel) for id, channel in enumerate(channels, start=1)]
    await bed.within(consumer.update(interests), "updating a consumer")
    await transport.commit([envelope(channel, n) for n in range(6) for channel in channels])
    for paused, served in ((1, 2), (2, 1)):
        found: list[tuple[int, str]] = []
        deadline = bed.now + bed.harness.patience
        while len(found) < 6 and bed.now < deadline:
            got = await consumer.fetch({paused: Demand(0), served: Demand(6 - len(found))}, SHORT)
            found.extend((each.interest, each.envelope.channel) for each in got)
        same(found, [(served, channels[served - 1])] * 6, "the subscriptions and channels of what was fetched")
    await consumer.close()


@promise("bounded", stores=True)
async def one_is_refused(bed: Bed) -> None:
    """A commit of which one item is refused stores and settles the others."""
    transport, channel, full = await bed.transport(), bed.channel(), bed.channel("full")
    await transport.declare(ChannelConfig(full, capacity=1, overflow="reject"))
    keeper, consumer = await reader(transport, bed, full), await reader(transport, bed, channel)
    await transport.commit([envelope(full, 0), envelope(channel, 0)])
    (delivery,) = await fetch(bed, consumer, 1, wanted=1)
    publishes = [envelope(channel, 1), envelope(full, 1), envelope(channel, 2)]
    result = await transport.commit(publishes, [Settlement(delivery, Outcome.ACK)])
    wanted = [PublishStatus.STORED, PublishStatus.REFUSED, PublishStatus.STORED]
    same(list(result.published), wanted, "the statuses of the publishes")
    same(list(result.settled), [SettleStatus.SETTLED], "the status of the settlement")
    same(numbers(await fetch(bed, consumer, 3, wanted=2)), [1, 2], "what was stored")
    await settle(transport, Outcome.ACK, *await fetch(bed, keeper, 1, wanted=1))
    await keeper.close()
    await consumer.close()
