"""The transport's own contract, without a bus: envelopes, readers, fetches, settlements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from neuralcore.messaging.transport import (
    Consumer,
    Cursor,
    Delivery,
    Demand,
    Envelope,
    Group,
    Interest,
    Outcome,
    PublishStatus,
    Settlement,
    SettleStatus,
    Transport,
)
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, same

__all__ = ["SHORT", "envelope", "fetch", "nothing", "numbers", "publish", "reader", "settle"]

SHORT = 0.05
"""Seconds that one fetch waits."""


def envelope(channel: str, number: int, **attributes: Any) -> Envelope:
    return Envelope(
        id=f"id-{channel}-{number}",
        channel=channel,
        body=str(number).encode(),
        timestamp_ns=1_750_000_000_000_000_000 + number,
        **attributes,
    )


async def publish(transport: Transport, channel: str, published: Iterable[int]) -> None:
    """Envelopes with these numbers, each of them stored."""
    envelopes = [envelope(channel, number) for number in published]
    result = await transport.commit(envelopes)
    same(list(result.published), [PublishStatus.STORED] * len(envelopes), "statuses")


async def reader(
    transport: Transport, bed: Bed, channel: str, group: str | None = None, *, start: Cursor | None = None
) -> Consumer:
    """The consumer of a group, by default a new one, on one channel."""
    consumer = await transport.consume(Group(group or bed.group()))
    await bed.within(consumer.update([Interest(id=1, pattern=channel, start=start)]), "updating a consumer")
    return consumer


async def fetch(
    bed: Bed, consumer: Consumer, limit: int, *, wanted: int, urgent: int | None = None, beyond: float = 0.0
) -> list[Delivery]:
    """Fetch until that many came, and see that no fetch answers more than it was asked for."""
    found: list[Delivery] = []
    deadline = bed.now + bed.harness.patience + beyond
    while len(found) < wanted and bed.now < deadline:
        got = await consumer.fetch({1: Demand(limit - len(found), urgent)}, SHORT)
        expect(len(got) <= limit - len(found), f"{len(got)} deliveries, {limit - len(found)} asked")
        found.extend(got)
    same(len(found), wanted, "deliveries fetched")
    return found


async def nothing(consumer: Consumer, what: str) -> None:
    """See that a fetch brings nothing."""
    same(numbers(await consumer.fetch({1: Demand(10)}, SHORT)), [], what)


async def settle(transport: Transport, outcome: Outcome, *deliveries: Delivery, delay: float = 0.0) -> None:
    """All of them, which must succeed."""
    settlements = [Settlement(delivery, outcome, delay_ns=round(delay * 1e9)) for delivery in deliveries]
    result = await transport.commit([], settlements)
    same(list(result.settled), [SettleStatus.SETTLED] * len(deliveries), f"statuses of {outcome.value}")


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.envelope.body) for delivery in deliveries]
