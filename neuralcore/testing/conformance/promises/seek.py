"""Reading again, or from somewhere else: seek, and browsing from a place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.errors import Unsupported
from neuralcore.messaging.transport import Consumer, Cursor, Outcome, Transport
from neuralcore.testing.conformance.bare import envelope, fetch, nothing, numbers, publish, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, Unproven, expect, promise, same

KEPT = Retention(count=1000)
APART = 1.0
"""Seconds between two messages that a time is to tell apart."""


@asynccontextmanager
async def read_to_the_end(bed: Bed, channel: str, transport: Transport) -> AsyncIterator[Consumer]:
    """The consumer of a group that has settled the messages 0 to 5, which are kept."""
    await transport.declare(ChannelConfig(channel, retention=KEPT))
    consumer = await reader(transport, bed, channel)
    await publish(transport, channel, range(6))
    await settle(transport, Outcome.ACK, *await fetch(bed, consumer, 6, wanted=6))
    await nothing(consumer, "what is left")
    yield consumer
    await consumer.close()


async def seek(bed: Bed, consumer: Consumer, position: Cursor) -> None:
    try:
        await bed.within(consumer.seek(1, position), "seeking")
    except Unsupported as error:
        raise Unproven("the transport does not seek") from error


@promise("groups", "retention", stores=True)
async def to_the_beginning(bed: Bed) -> None:
    """A group that seeks the beginning gets everything that is kept once more, and another group nothing."""
    transport, channel = await bed.transport(), bed.channel()
    async with read_to_the_end(bed, channel, transport) as consumer:
        other = await reader(transport, bed, channel)
        await seek(bed, consumer, "beginning")
        again = await fetch(bed, consumer, 10, wanted=6)
        same(numbers(again), list(range(6)), "what comes again")
        await settle(transport, Outcome.ACK, *again)
        await publish(transport, channel, [6])
        same(numbers(await fetch(bed, consumer, 10, wanted=1)), [6], "what follows")
        same(numbers(await fetch(bed, other, 10, wanted=1)), [6], "what the other group gets")
        await other.close()


@promise("groups", "retention", stores=True)
async def to_the_end(bed: Bed) -> None:
    """A group that seeks what is new skips what it has not settled."""
    transport, channel = await bed.transport(), bed.channel()
    async with read_to_the_end(bed, channel, transport) as consumer:
        await publish(transport, channel, range(6, 9))
        await seek(bed, consumer, "new")
        await publish(transport, channel, [9])
        same(numbers(await fetch(bed, consumer, 10, wanted=1)), [9], "what comes")
        await nothing(consumer, "what else comes")


@promise("groups", "retention", "seek_id", stores=True)
async def to_an_id(bed: Bed) -> None:
    """A group that seeks a message's id gets that message and all that follow, on its other clients too."""
    transport, channel, group = await bed.transport(), bed.channel(), bed.group()
    await transport.declare(ChannelConfig(channel, retention=KEPT))
    consumer = await reader(transport, bed, channel, group)
    await publish(transport, channel, range(6))
    await settle(transport, Outcome.ACK, *await fetch(bed, consumer, 6, wanted=6))
    await seek(bed, consumer, envelope(channel, 2).id)
    await consumer.close()
    another = await reader(await bed.transport(), bed, channel, group)
    same(numbers(await fetch(bed, another, 10, wanted=4)), [2, 3, 4, 5], "what comes again")
    await nothing(another, "what else comes")
    await another.close()


@promise("groups", "retention", "seek_time", stores=True)
async def to_a_time(bed: Bed) -> None:
    """A group that seeks a time gets again what was published since."""
    transport, channel = await bed.transport(), bed.channel()
    async with read_to_the_end(bed, channel, transport) as consumer:
        moment = await _between(bed)
        await publish(transport, channel, [6, 7])
        await settle(transport, Outcome.ACK, *await fetch(bed, consumer, 10, wanted=2))
        await seek(bed, consumer, moment)
        same(numbers(await fetch(bed, consumer, 10, wanted=2)), [6, 7], "what comes again")
        await nothing(consumer, "what else comes")


async def _between(bed: Bed) -> datetime:
    """A time well after all that has happened, and well before all that will."""
    await bed.advance(APART)
    moment = datetime.fromtimestamp(bed.harness.wall(), timezone.utc)
    await bed.advance(APART)
    return moment


async def browsed(transport: Transport, channel: str, start: Cursor) -> list[int]:
    """Everything from there on, page by page."""
    found: list[int] = []
    cursor: Cursor | None = start
    while cursor is not None:
        page = await transport.browse(channel, cursor, 4)
        found.extend(int(each.body) for each in page.envelopes)
        cursor = page.next
        if len(found) > 1000:
            raise Broken(f"browsing does not end: {found[:20]}…")
    return found


@promise("browse", "retention", "seek_id", stores=True)
async def browsing_from_an_id(bed: Bed) -> None:
    """Browsing from a message's id begins with that message."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=KEPT))
    await publish(transport, channel, range(12))
    same(await browsed(transport, channel, envelope(channel, 5).id), list(range(5, 12)), "what browsing read")
    page = await transport.browse(channel, "new", 4)
    same([int(each.body) for each in page.envelopes], [], "what is newer than the last message")


@promise("browse", "retention", "seek_time", stores=True)
async def browsing_from_a_time(bed: Bed) -> None:
    """Browsing from a time begins with what was published then."""
    transport, channel = await bed.transport(), bed.channel()
    await transport.declare(ChannelConfig(channel, retention=KEPT))
    await publish(transport, channel, range(5))
    moment = await _between(bed)
    await publish(transport, channel, range(5, 10))
    same(await browsed(transport, channel, moment), list(range(5, 10)), "what browsing read")
    expect(await browsed(transport, channel, "beginning") == list(range(10)), "browsing has changed something")
