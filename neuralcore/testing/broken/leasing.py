"""Faults in who owns a delivery, and in what becomes of it when its owner is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from msgspec.structs import replace

from neuralcore.messaging.errors import Unavailable
from neuralcore.messaging.transport import (
    CommitResult,
    Delivery,
    Envelope,
    Outcome,
    PublishStatus,
    Runtime,
    Settlement,
    SettleStatus,
    Transport,
)
from neuralcore.testing.broken.wrapped import Wrapped
from neuralcore.testing.memory import MemoryTransport


def _name(delivery: Delivery) -> tuple[str, str]:
    return delivery.envelope.channel, delivery.envelope.id


def _memory(transport: Transport) -> MemoryTransport:
    assert isinstance(transport, MemoryTransport), "this fault is one of the memory transport"
    return transport


class CountsFetches(Wrapped):
    """Takes a message's deliveries for its attempts, as far as their leases ran out."""

    _seen: ClassVar[Counter[tuple[str, str]]] = Counter()

    def delivering(self, delivery: Delivery) -> Delivery:
        self._seen[_name(delivery)] += delivery.suspect
        return replace(delivery, attempt=delivery.attempt + self._seen[_name(delivery)])


class TakesSuspectsForPoison(Wrapped):
    """Whatever a dead client had fetched has used up its attempts."""

    def delivering(self, delivery: Delivery) -> Delivery:
        return replace(delivery, attempt=delivery.attempt + 5 * delivery.suspect)


class SettlesByMessage(Wrapped):
    """Looks at a settlement's message only, not at whose delivery of it is settled."""

    _last: ClassVar[dict[tuple[str, str], Delivery]] = {}

    def delivering(self, delivery: Delivery) -> Delivery:
        self._last[_name(delivery)] = delivery
        return delivery

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        await _memory(self.inner).awake()
        return await super().commit(publishes, settlements)

    def settling(self, settlement: Settlement) -> Settlement | None:
        return replace(settlement, delivery=self._last[_name(settlement.delivery)])


class KeepsAttempts(Wrapped):
    """An attempt that was stored before the handler stays, though the message is released."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._stored: set[Delivery] = set()

    def settling(self, settlement: Settlement) -> Settlement | None:
        if settlement.outcome is Outcome.ATTEMPT:
            self._stored.add(settlement.delivery)
        elif settlement.outcome is Outcome.RELEASE and settlement.delivery in self._stored:
            return replace(settlement, outcome=Outcome.NACK)
        return settlement


class SuspectsEverybody(Wrapped):
    def delivering(self, delivery: Delivery) -> Delivery:
        return replace(delivery, suspect=True)


class DiesInsteadOfClosing(Wrapped):
    """Closing leaves its leases to run out."""

    async def close(self) -> None:
        _memory(self.inner).kill()


class NeverReclaims(Wrapped):
    """What a dead client held stays with it."""

    async def open(self, runtime: Runtime) -> None:
        await super().open(runtime)
        _memory(self.inner).store._leases.lease_ns = 10**18


class GivesBackForEver(Wrapped):
    """Whatever becomes of a message, it comes again at once."""

    def settling(self, settlement: Settlement) -> Settlement | None:
        return replace(settlement, outcome=Outcome.RELEASE)


class HoldsRetries(Wrapped):
    """Keeps what waits for its retry in the client, which takes that with it."""

    def settling(self, settlement: Settlement) -> Settlement | None:
        if settlement.outcome is not Outcome.NACK or not settlement.delay_ns:
            return settlement
        self._task = asyncio.ensure_future(self._later(settlement))
        return None

    async def _later(self, settlement: Settlement) -> None:
        await asyncio.sleep(settlement.delay_ns / 1e9)
        await self.inner.commit([], [replace(settlement, delay_ns=0)])

    async def close(self) -> None:
        if hasattr(self, "_task"):
            self._task.cancel()
        await super().close()


class SplitsCommits(Wrapped):
    """Stores first, and settles a little later."""

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        if not publishes or not settlements:
            return await super().commit(publishes, settlements)
        stored = await super().commit(publishes)
        await asyncio.sleep(0.01)
        settled = await super().commit([], [replace(each, after=None) for each in settlements])
        return CommitResult(stored.published, settled.settled, stored.reasons)


class StopsAtARefusal(Wrapped):
    """What comes after a publish that is refused is refused too."""

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        published: list[PublishStatus] = []
        for envelope in publishes:
            if PublishStatus.REFUSED in published:
                published.append(PublishStatus.REFUSED)
            else:
                published.extend((await super().commit([envelope])).published)
        if PublishStatus.REFUSED in published:
            return CommitResult(published, [SettleStatus.SKIPPED] * len(settlements))
        return CommitResult(
            published, (await super().commit([], [replace(s, after=None) for s in settlements])).settled
        )


class StoresLater(Wrapped):
    """Says that something is stored when it has only been told to store it."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._tasks: set[asyncio.Task[None]] = set()

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        self._tasks.add(asyncio.ensure_future(self._later(publishes)))
        settled = await super().commit([], [replace(each, after=None) for each in settlements])
        return CommitResult([PublishStatus.STORED] * len(publishes), settled.settled)

    async def _later(self, publishes: Sequence[Envelope]) -> None:
        await asyncio.sleep(0.01)
        with suppress(Unavailable):
            await self.inner.commit(publishes)
