"""Faults in what a store keeps, for how long, and what it drops."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from msgspec.structs import replace as replace_in

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import (
    CommitResult,
    Delivery,
    Envelope,
    Outcome,
    PublishStatus,
    Settlement,
    Transport,
)
from neuralcore.testing.broken.wrapped import Wrapped

N = TypeVar("N", int, float)


class NeverTrims(Wrapped):
    async def declare(self, channel: ChannelConfig) -> None:
        await super().declare(replace(channel, retention=channel.retention and Retention(count=10**9)))


class TrimsTooMuch(Wrapped):
    """Keeps a tenth."""

    async def declare(self, channel: ChannelConfig) -> None:
        kept = channel.retention
        if kept is not None:
            kept = Retention(age=_tenth(kept.age), count=_tenth(kept.count), bytes=_tenth(kept.bytes))
        await super().declare(replace(channel, retention=kept))


def _tenth(value: N | None) -> N | None:
    return value and type(value)(value / 10)


class TrimsUnsettled(Wrapped):
    """Counts the newest only, whoever still wants the others."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._counts: dict[str, int] = {}
        self._stored: defaultdict[str, list[str]] = defaultdict(list)

    async def declare(self, channel: ChannelConfig) -> None:
        self._counts[channel.name] = (channel.retention and channel.retention.count) or 10**9
        await super().declare(channel)

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        self._stored[envelope.channel].append(envelope.id)
        return (envelope,)

    async def fetched(self, deliveries: list[Delivery]) -> Sequence[Delivery]:
        return [each for each in deliveries if self._keeps(each.envelope)]

    def _keeps(self, envelope: Envelope) -> bool:
        count = self._counts.get(envelope.channel, 10**9)
        return envelope.id in self._stored[envelope.channel][-count:]


class NeverForgetsIds(Wrapped):
    async def declare(self, channel: ChannelConfig) -> None:
        await super().declare(replace(channel, dedup_window=1e6))


class ForgetsIdsEarly(Wrapped):
    async def declare(self, channel: ChannelConfig) -> None:
        await super().declare(replace(channel, dedup_window=channel.dedup_window and channel.dedup_window / 10))


class ForgetsIdsOnClose(Wrapped):
    """Each client has a window of its own."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._own = secrets.token_hex(4)

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace_in(envelope, dedup_key=f"{self._own}{envelope.dedup_key or envelope.id}"),)


class DropsNewInstead(Wrapped):
    async def declare(self, channel: ChannelConfig) -> None:
        await super().declare(replace(channel, overflow="drop_new") if channel.overflow == "drop_old" else channel)


class DropsInFlight(Wrapped):
    """Makes room by ending what is in flight or waits for its retry."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._leased: list[Delivery] = []

    async def fetched(self, deliveries: list[Delivery]) -> Sequence[Delivery]:
        self._leased += deliveries
        return deliveries

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        result = await super().commit(publishes, settlements)
        if PublishStatus.DROPPED not in result.published or not self._leased:
            return result
        await super().commit([], [Settlement(each, Outcome.ACK) for each in self._leased])
        return await super().commit(publishes)


class OverflowsDelays(Wrapped):
    """Keeps a delay in milliseconds, of 31 bits."""

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace_in(envelope, delay_ns=envelope.delay_ns if envelope.delay_ns < 2**31 * 10**6 else 0),)


class CapsDelays(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace_in(envelope, delay_ns=min(envelope.delay_ns, 3600 * 10**9)),)


class TakesOneTime(Wrapped):
    """With a delay it forgets not_before."""

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace_in(envelope, not_before_ns=None if envelope.delay_ns else envelope.not_before_ns),)
