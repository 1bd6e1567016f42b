"""Several publishes, and the end of a message, happen together or not at all."""

from __future__ import annotations

from neuralcore._core import Message
from neuralcore.messaging.errors import AlreadySettled
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, promise, same

FAST = RetryPolicy(max_attempts=5, base=0.01, cap=0.02)


@promise("transactions")
async def all_at_the_end(bed: Bed) -> None:
    """What a transaction publishes, into whichever channels, is there when its block ends, and not before."""
    bus, channels = await bed.bus(), [bed.channel("first"), bed.channel("second")]
    got = bed.collector()
    for channel in channels:
        await bed.subscribe(bus, channel, got.handle)
    async with bus.transaction() as transaction:
        for n in range(4):
            await transaction.publish(channels[n % 2], n)
        await got.exactly(0, "messages of a transaction that has not ended")
    await got.every(range(4))


@promise("transactions")
async def nothing_of_what_failed(bed: Bed) -> None:
    """A block that raises has published nothing; the next one publishes as ever."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    try:
        async with bus.transaction() as transaction:
            await transaction.publish(channel, "never")
            raise RuntimeError("on purpose")
    except RuntimeError:
        pass
    async with bus.transaction() as transaction:
        await transaction.publish(channel, "after")
    await got.exactly(1)
    same(got.payloads, ["after"], "what was published")


@promise("transactions", "groups")
async def with_the_end_of_a_message(bed: Bed) -> None:
    """A message and what its handler publishes end together: attempts that fail publish nothing, the last one once."""
    bus, source, sink, results = await bed.bus(), bed.channel("in"), bed.channel("out"), bed.collector()
    await bed.subscribe(bus, sink, results.handle)

    async def work(message: Message) -> None:
        async with message.transaction() as transaction:
            await transaction.publish(sink, [message.payload, message.attempt])
            if message.attempt <= message.payload:
                raise RuntimeError("on purpose")
        try:
            await message.ack()
        except AlreadySettled:
            return
        raise Broken("a message whose transaction has ended could be settled again")

    got = bed.collector(work)
    await bed.subscribe(bus, source, got.handle, retry=FAST, concurrency=4)
    for failures in range(4):
        await bus.publish(source, failures)
    await results.count(4)
    await got.exactly(1 + 2 + 3 + 4)
    await results.exactly(4)
    same(sorted(results.payloads), [[n, n + 1] for n in range(4)], "what was published, by which attempt")


@promise("transactions", "groups", stores=True)
async def done_for_good(bed: Bed) -> None:
    """What ended in a transaction is not delivered again after its client has left."""
    first, second, channel = await bed.fresh(), await bed.fresh(), bed.channel()
    group, results, again = bed.group(), bed.collector(), bed.collector()

    async def work(message: Message) -> None:
        async with message.transaction() as transaction:
            await transaction.publish(f"{channel}.done", message.payload)

    got = bed.collector(work)
    await bed.subscribe(second, f"{channel}.done", results.handle)
    await bed.subscribe(first, channel, got.handle, group=group, concurrency=4)
    for n in range(10):
        await second.publish(channel, n)
    await results.every(range(10))
    await bed.within(first.close(), "closing")
    await bed.subscribe(second, channel, again.handle, group=group)
    await bed.advance(1.5 * bed.harness.lease)
    await again.exactly(0, "messages that had ended before, and came again")
    await results.exactly(10)
