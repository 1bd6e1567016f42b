"""A client without a bus: a transport as its contract has it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from neuralcore._core import Clock
from neuralcore.messaging.transport import (
    Consumer,
    Delivery,
    Demand,
    Envelope,
    Group,
    Interest,
    Outcome,
    Settlement,
    Transport,
)
from tests.faults.cancellation import every_point

__all__ = ["Runtime", "counted", "message", "points", "reader", "settle", "take"]


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

    def gauge(self, name: str, value: float) -> None: ...
    def revoking(self, deliveries: Sequence[object], deadline_ns: int) -> None: ...
    def reconnected(self) -> None: ...
    def channels_changed(self) -> None: ...
    def data_lost(self, channel: str, detail: str) -> None:
        self.told.append((channel, detail))


@asynccontextmanager
async def reader(made: Transport, group: str = "g", pattern: str = "work") -> AsyncIterator[Consumer]:
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


async def settle(made: Transport, deliveries: Sequence[Delivery], outcome: Outcome = Outcome.ACK) -> Any:
    return (await made.commit((), [Settlement(each, outcome) for each in deliveries])).settled


async def points(start: Callable[[], Awaitable[Any]]) -> list[bool]:
    """Whether it returned, for each point at which it was cancelled; the last one was not."""
    found = []
    async for _, outcome in every_point(start):
        assert outcome.error is None, outcome.error
        found.append(outcome.done)
    return found


def counted(attempted: Collection[str], acked: Collection[str], delivered: Collection[str]) -> dict[str, int]:
    return {
        "attempted": len(attempted),
        "acked": len(acked),
        "delivered": len(set(delivered)),
        "lost": len(set(acked) - set(delivered)),
        "duplicated": len(delivered) - len(set(delivered)),
        "phantom": len(set(delivered) - set(attempted)),
    }
