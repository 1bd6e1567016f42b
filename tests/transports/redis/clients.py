"""Transports without a bus, and what one does with them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from neuralcore._core import Clock
from neuralcore.messaging.transport import (
    CommitResult,
    Consumer,
    Delivery,
    Demand,
    Envelope,
    Group,
    Interest,
    Outcome,
    PublishStatus,
    Settlement,
)
from neuralcore.testing.conformance.runtime import BareRuntime
from neuralcore_transports.redis import RedisTransport
from neuralcore_transports.redis.keeper import Beat
from tests.servers.redis import RedisServer
from tests.transports.clients import eventually, new_prefix

__all__ = [
    "Member",
    "Runtime",
    "ack",
    "beats",
    "counted",
    "envelope",
    "eventually",
    "ids",
    "left_over",
    "new_prefix",
    "opened",
    "pair",
    "publish",
    "with_options",
    "works",
]

CHANNEL = "orders"
_numbers = itertools.count(1)


def with_options(url: str, **options: object) -> str:
    text = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{text}" if text else url


def envelope(id: str | None = None, channel: str = CHANNEL, **more: Any) -> Envelope:
    return Envelope(id=id or f"m{next(_numbers)}", channel=channel, **{"body": b'"x"', **more})


class Runtime(BareRuntime):
    def __init__(self) -> None:
        super().__init__(Clock())

    def told(self, text: str) -> bool:
        return any(text in event for event in self.events)


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisTransport]:
    """``transport._runtime`` remembers what it was told."""
    transport = RedisTransport.from_url(with_options(url, **options))
    runtime = Runtime()
    await transport.open(runtime)
    try:
        yield transport
    finally:
        await transport.close()
        runtime.executor.shutdown()


@asynccontextmanager
async def pair(
    server: RedisServer, *, lease: float = 5, **options: object
) -> AsyncIterator[tuple[RedisTransport, RedisTransport]]:
    """One to publish, and one to consume."""
    prefix = new_prefix()
    async with (
        opened(server.url(), prefix=prefix, lease=lease, **options) as one,
        opened(server.url(), prefix=prefix, lease=lease, **options) as other,
    ):
        await one.client.ensure("orders")
        yield one, other


async def publish(transport: RedisTransport, *envelopes: Envelope) -> list[PublishStatus]:
    return list((await transport.commit(envelopes or (envelope(),))).published)


async def ack(transport: RedisTransport, *deliveries: Delivery) -> CommitResult:
    return await transport.commit((), [Settlement(delivery, Outcome.ACK) for delivery in deliveries])


class Member:
    """A consumer with one interest."""

    def __init__(self, transport: RedisTransport, consumer: Consumer) -> None:
        self.transport = transport
        self.consumer = consumer

    @classmethod
    async def of(cls, transport: RedisTransport, group: str | None = "g", pattern: str = CHANNEL) -> Member:
        consumer = await transport.consume(Group(group))
        await consumer.update([Interest(id=1, pattern=pattern)])
        return cls(transport, consumer)

    async def fetch(self, limit: int = 100, timeout: float = 5.0) -> Sequence[Delivery]:
        return await self.consumer.fetch({1: Demand(limit)}, timeout)

    async def waits(self) -> None:
        """Until what is stored would be handed to it."""
        await eventually(lambda: any(place.credit for place in self.consumer.places()), "it to wait")  # type: ignore[attr-defined]

    async def fetch_all(self, count: int) -> list[Delivery]:
        """So many, and what comes with them."""
        got: list[Delivery] = []
        while len(got) < count:
            found = await self.fetch()
            assert found, f"only {ids(got)} came"
            got += found
        return got

    async def drain(self, *ids: str, timeout: float = 20.0, silence: float = 0.1) -> list[Delivery]:
        """Fetch and settle until all of the ids have come, and then nothing any more. Goes on whatever is raised."""
        got: list[Delivery] = []

        async def all_of_them() -> None:
            while not set(ids) <= {each.envelope.id for each in got}:
                try:
                    found = await self.fetch(timeout=1.0)
                    await ack(self.transport, *found)
                except Exception:
                    await asyncio.sleep(0.05)
                else:
                    got.extend(found)

        try:
            await asyncio.wait_for(all_of_them(), timeout)
        except asyncio.TimeoutError:
            missing = set(ids) - {each.envelope.id for each in got}
            raise AssertionError(f"{len(missing)} never came: {sorted(missing)[:10]}") from None
        while found := await self.fetch(timeout=silence):
            await ack(self.transport, *found)
            got.extend(found)
        return got


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.envelope.id for each in deliveries]


def counted(transport: RedisTransport) -> dict[str, int]:
    """How often it fetches, and how often it is handed something."""
    counts = {"fetched": 0, "handed": 0}
    fetch, given = transport.client.fetch, transport._news._given

    async def fetches(*parts):
        counts["fetched"] += 1
        return await fetch(*parts)

    def is_given(*parts):
        counts["handed"] += 1
        given(*parts)

    transport.client.fetch, transport._news._given = fetches, is_given
    return counts


async def beats(transport: RedisTransport, count: int = 1) -> None:
    """Until its keeper has told the server so often that this client lives."""
    keeper, seen = transport._keeper, list[object]()
    heard = keeper._events.beat

    def beat(told: Beat) -> None:
        seen.append(told)
        heard(told)

    keeper._events = replace(keeper._events, beat=beat)
    await eventually(lambda: len(seen) >= count, f"{count} beats of the keeper")


async def works(transport: RedisTransport, member: Member, *, timeout: float = 20.0) -> None:
    """What is published arrives, and nothing else has been left."""
    others = await left_over(transport, member, timeout=timeout)
    assert not others, f"there were also {others}"


async def left_over(transport: RedisTransport, member: Member, *, timeout: float = 20.0) -> list[str]:
    """What else comes when one that is published now arrives."""
    sent = envelope()

    async def stored() -> bool:
        return (await publish(transport, sent))[0] in (PublishStatus.STORED, PublishStatus.DUPLICATE)

    await eventually(stored, "a publish to work again", timeout)
    came = ids(await member.drain(sent.id, timeout=timeout))
    came.remove(sent.id)
    return came
