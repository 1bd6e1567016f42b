"""A client without a bus: the transport as its contract has it, and the server's keys beside it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from neuralcore._core import Clock
from neuralcore.messaging.transport import Consumer, Delivery, Demand, Envelope, Group, Interest, Outcome, Settlement
from neuralcore_transports.redis import RedisTransport
from tests.servers.redis import RedisServer

__all__ = ["Runtime", "message", "opened", "reader", "settle", "take"]


class Runtime:
    """As little of a bus as a transport needs."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bus_id = os.urandom(8).hex()
        self.counts: dict[str, int] = {}
        self.told: list[tuple[str, str]] = []
        """Channels and details of losses."""
        self.taken: list[Delivery] = []

    @property
    def executor(self) -> Any:
        raise NotImplementedError

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        self.taken += deliveries

    def revoking(self, deliveries: Sequence[object], deadline_ns: int) -> None: ...
    def reconnected(self) -> None: ...
    def channels_changed(self) -> None: ...
    def data_lost(self, channel: str, detail: str) -> None:
        self.told.append((channel, detail))


@asynccontextmanager
async def opened(
    server: RedisServer, query: str = "lease=1&timeout=2&patience=4", *, port: int | None = None
) -> AsyncIterator[tuple[RedisTransport, Runtime]]:
    made, runtime = RedisTransport.from_url(f"{server.url(port=port)}/0?{query}"), Runtime()
    await made.open(runtime)
    try:
        yield made, runtime
    finally:
        await made.close()


@asynccontextmanager
async def reader(made: RedisTransport, group: str = "g", pattern: str = "work") -> AsyncIterator[Consumer]:
    consumer = await made.consume(Group(group))
    await consumer.update([Interest(id=1, pattern=pattern)])
    yield consumer
    await consumer.close()


def message(number: object, *, key: str | None = None, channel: str = "work") -> Envelope:
    return Envelope(id=f"m-{number}", channel=channel, body=b"1", key=key)


async def take(consumer: Consumer, count: int = 1, timeout: float = 3.0) -> list[Delivery]:
    """Up to so many, from several fetches if need be."""
    found: list[Delivery] = []
    while len(found) < count:
        more = await consumer.fetch({1: Demand(count - len(found))}, timeout)
        if not more:
            break
        found += more
    return found


async def settle(made: RedisTransport, deliveries: Sequence[Delivery], outcome: Outcome = Outcome.ACK) -> Any:
    return (await made.commit((), [Settlement(each, outcome) for each in deliveries])).settled
