"""What is kept beyond the last group that wanted it, for how long, and that nothing else is thrown away."""

from __future__ import annotations

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import Consumer, Envelope, Outcome, PublishStatus, Transport
from neuralcore.testing.conformance.bare import fetch, numbers, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, expect, promise, same
from neuralcore.testing.conformance.promises.seek import browsed

MANY = 300
LEAST = 20
"""Messages that are to be kept; a store may keep more, such as a whole block."""
MOST = 150
SIZE = 1000
"""Bytes of one body."""
AGE = 2.0


def padded(channel: str, number: int) -> Envelope:
    """A message of SIZE bytes."""
    return Envelope(id=f"id-{channel}-{number}", channel=channel, body=str(number).encode().rjust(SIZE))


async def settled(bed: Bed, transport: Transport, channel: str, consumer: Consumer, which: range) -> None:
    """These messages more, which the consumer's group has settled."""
    for begin in range(0, len(which), 50):
        batch = [padded(channel, n) for n in which[begin : begin + 50]]
        result = await transport.commit(batch)
        same(set(result.published), {PublishStatus.STORED}, "statuses")
        await settle(transport, Outcome.ACK, *await fetch(bed, consumer, 50, wanted=len(batch)))


async def shrinks(bed: Bed, transport: Transport, channel: str, most: int) -> list[int]:
    """What is kept, once that is no more than this."""
    await bed.advance(bed.harness.trimming)
    deadline = bed.now + bed.harness.patience
    while len(kept := await browsed(transport, channel, "beginning")) > most:
        if bed.now > deadline:
            raise Broken(f"{len(kept)} messages are kept, where {most} would be too many")
        await bed.advance(0.1)
    return kept


async def trimmed(bed: Bed, retention: Retention) -> None:
    """Of many settled messages, about LEAST are kept."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=retention))
    consumer = await reader(transport, bed, channel)
    await settled(bed, transport, channel, consumer, range(MANY))
    kept = await shrinks(bed, transport, channel, MOST)
    expect(len(kept) >= LEAST, f"only {len(kept)} messages are kept, where {LEAST} would have to be")
    same(kept, list(range(MANY - len(kept), MANY)), "the newest")
    await consumer.close()


@promise("groups", "retention", "browse", stores=True)
async def by_count(bed: Bed) -> None:
    """Of what every group has settled, so many of the newest are kept, and not everything."""
    await trimmed(bed, Retention(count=LEAST))


@promise("retention", "browse", stores=True)
async def before_any_group(bed: Bed) -> None:
    """Of what no group has asked for yet, so many of the newest are kept, and not everything."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=Retention(count=LEAST)))
    for begin in range(0, MANY, 50):
        await transport.commit([padded(channel, n) for n in range(begin, begin + 50)])
    kept = await shrinks(bed, transport, channel, MOST)
    expect(len(kept) >= LEAST, f"only {len(kept)} messages are kept, where {LEAST} would have to be")
    same(kept, list(range(MANY - len(kept), MANY)), "the newest")


@promise("groups", "retention", "browse", stores=True)
async def by_bytes(bed: Bed) -> None:
    """Of what every group has settled, so many bytes of the newest are kept, and not everything."""
    await trimmed(bed, Retention(bytes=2 * LEAST * SIZE))


@promise("groups", "retention", "browse", stores=True)
async def by_age(bed: Bed) -> None:
    """What every group has settled is kept until it has that age, and not for ever."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=Retention(age=AGE)))
    consumer = await reader(transport, bed, channel)
    began = bed.now
    await settled(bed, transport, channel, consumer, range(50))
    await bed.advance(AGE / 2)
    kept = await browsed(transport, channel, "beginning")
    expect(bed.now - began > AGE or len(kept) == 50, f"{50 - len(kept)} messages were gone before their age")
    await bed.advance(AGE)
    await settled(bed, transport, channel, consumer, range(50, 51))
    await shrinks(bed, transport, channel, 1)
    await consumer.close()


@promise("groups", "retention", stores=True)
async def unsettled_is_kept(bed: Bed) -> None:
    """What some group has not settled is kept, whatever retention says."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=Retention(age=AGE / 2, count=2, bytes=2 * SIZE)))
    quick, slow = await reader(transport, bed, channel), await reader(transport, bed, channel)
    await settled(bed, transport, channel, quick, range(50))
    await bed.advance(AGE)
    await settled(bed, transport, channel, quick, range(50, 100))
    await bed.advance(min(bed.harness.trimming, bed.harness.patience / 2))
    same(sorted(numbers(await fetch(bed, slow, 100, wanted=100))), list(range(100)), "what the slow group gets")
    await quick.close()
    await slow.close()
