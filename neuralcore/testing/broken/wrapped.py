"""A transport around another one, with a place for every fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import (
    ChannelRef,
    CommitResult,
    Consumer,
    Cursor,
    Delivery,
    Demand,
    Envelope,
    Group,
    GroupRef,
    Health,
    Inbox,
    Interest,
    Page,
    PublishStatus,
    Runtime,
    Settlement,
    SettleStatus,
    StoreStats,
    Transport,
)

__all__ = ["Deaf", "Wrapped", "WrappedConsumer", "WrappedInbox"]


class Wrapped(Transport):
    """By itself it changes nothing."""

    scheme: ClassVar[str] = "wrapped"

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities

    # The faults

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        """What is stored instead of an envelope; nothing pretends that it was stored."""
        return (envelope,)

    def settling(self, settlement: Settlement) -> Settlement | None:
        """What is settled instead; None pretends that it was settled."""
        return settlement

    def delivering(self, delivery: Delivery) -> Delivery:
        return delivery

    def grouped(self, group: Group) -> Group:
        return group

    def reading(self, interest: Interest) -> Interest:
        return interest

    def demanding(self, demand: Demand) -> Demand:
        return demand

    def seeking(self, position: Cursor) -> Cursor | None:
        """Where a group seeks instead; None pretends that it did."""
        return position

    async def leaving(self, group: Group) -> None:
        """Before a consumer of the group closes."""

    async def fetched(self, deliveries: list[Delivery]) -> Sequence[Delivery]:
        return deliveries

    def answered(self, replies: Sequence[Envelope]) -> Sequence[Envelope]:
        return replies

    # The contract

    async def open(self, runtime: Runtime) -> None:
        await self.inner.open(runtime)

    async def declare(self, channel: ChannelConfig) -> None:
        await self.inner.declare(channel)

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        await self.inner.remove(target)

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        stored = [list(self.publishing(envelope)) for envelope in publishes]
        settled = [self.settling(settlement) for settlement in settlements]
        result = await self.inner.commit(
            [envelope for envelopes in stored for envelope in envelopes],
            [settlement for settlement in settled if settlement is not None],
        )
        statuses, ends = iter(result.published), iter(result.settled)
        published = [[next(statuses) for _ in envelopes] for envelopes in stored]
        return CommitResult(
            [found[0] if found else PublishStatus.STORED for found in published],
            [SettleStatus.SETTLED if settlement is None else next(ends) for settlement in settled],
            result.reasons,
        )

    async def consume(self, group: Group) -> Consumer:
        group = self.grouped(group)
        return WrappedConsumer(self, await self.inner.consume(group), group)

    async def inbox(self) -> Inbox:
        return WrappedInbox(self, await self.inner.inbox())

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        return await self.inner.browse(channel, start, limit)

    async def channels(self) -> Sequence[str]:
        return await self.inner.channels()

    async def stats(self) -> Mapping[str, StoreStats]:
        return await self.inner.stats()

    async def health(self) -> Health:
        return await self.inner.health()

    async def close(self) -> None:
        await self.inner.close()


class WrappedConsumer(Consumer):
    def __init__(self, transport: Wrapped, inner: Consumer, group: Group) -> None:
        self._transport = transport
        self._inner = inner
        self._group = group

    async def update(self, interests: Sequence[Interest]) -> None:
        await self._inner.update([self._transport.reading(interest) for interest in interests])

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        wanted = {id: self._transport.demanding(one) for id, one in demand.items()}
        deliveries = await self._inner.fetch(wanted, timeout)
        return await self._transport.fetched([self._transport.delivering(one) for one in deliveries])

    async def seek(self, interest: int, position: Cursor) -> None:
        place = self._transport.seeking(position)
        if place is not None:
            await self._inner.seek(interest, place)

    async def close(self) -> None:
        await self._transport.leaving(self._group)
        await self._inner.close()


class WrappedInbox(Inbox):
    def __init__(self, transport: Wrapped, inner: Inbox) -> None:
        self._transport = transport
        self._inner = inner

    @property
    def address(self) -> str:
        return self._inner.address

    async def fetch(self, timeout: float) -> Sequence[Envelope]:
        return self._transport.answered(await self._inner.fetch(timeout))

    async def close(self) -> None:
        await self._inner.close()


class Deaf:
    """A runtime that does not hear one event."""

    def __init__(self, runtime: Runtime, event: str) -> None:
        self._runtime = runtime
        self._event = event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name) if name != self._event else _ignore


def _ignore(*told: object) -> None:
    """Nobody hears of it."""
