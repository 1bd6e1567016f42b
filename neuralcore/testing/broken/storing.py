"""Faults between a publish and the store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace as replace_fields

from msgspec.structs import replace

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.names import is_reserved
from neuralcore.messaging.transport import CommitResult, Delivery, Envelope, PublishStatus, Settlement, Transport
from neuralcore.testing.broken.wrapped import Wrapped

_HIDDEN = "x-hidden"


class LosesOneInAThousand(Wrapped):
    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._count = 0

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        self._count += 1
        return () if self._count % 1000 == 0 else (envelope,)


class Duplicates(Wrapped):
    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._count = 0

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        self._count += 1
        if self._count % 100:
            return (envelope,)
        return envelope, replace(envelope, dedup_key=secrets.token_hex(8))


class CrossesChannels(Wrapped):
    """Every twentieth message is also stored on the channel of the message before it."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._count = 0
        self._before: str | None = None

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        self._count += 1
        before, self._before = self._before, envelope.channel
        if self._count % 20 or before in (None, envelope.channel) or is_reserved(envelope.channel):
            return (envelope,)
        return envelope, replace(envelope, channel=before)


class ChangesIds(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        if is_reserved(envelope.channel):
            return (envelope,)
        return (replace(envelope, id=secrets.token_hex(16)),)


class CutsBodies(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace(envelope, body=bytes(envelope.body)[:100_000]),)


class DropsHeaders(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace(envelope, headers={}),)


class DropsExpiry(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace(envelope, expires_at_ns=None),)


class IgnoresDelay(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace(envelope, delay_ns=0, not_before_ns=None),)


class IgnoresDuplicates(Wrapped):
    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace(envelope, dedup_key=secrets.token_hex(8)),)


class ForgetsReplays(Wrapped):
    """Takes a replay for the message that it replays."""

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return (replace(envelope, replay=0),)


class TellsNoDuplicates(Wrapped):
    """Suppresses a duplicate, and says that it was stored."""

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        result = await super().commit(publishes, settlements)
        told = [PublishStatus.STORED if each is PublishStatus.DUPLICATE else each for each in result.published]
        return CommitResult(told, result.settled, result.reasons)


class ForgetsBounds(Wrapped):
    async def declare(self, channel: ChannelConfig) -> None:
        await super().declare(replace_fields(channel, capacity=None, overflow=None))


class _Hides(Wrapped):
    """Keeps something from the store, and shows it to the subscribers."""

    def hide(self, envelope: Envelope) -> tuple[str | None, Envelope]:
        raise TypeError(f"{type(self).__name__} hides nothing")

    def show(self, envelope: Envelope, hidden: str) -> Envelope:
        raise TypeError(f"{type(self).__name__} hides nothing")

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        hidden, rest = self.hide(envelope)
        return (rest if hidden is None else replace(rest, headers={**rest.headers, _HIDDEN: hidden}),)

    def delivering(self, delivery: Delivery) -> Delivery:
        headers = dict(delivery.envelope.headers)
        hidden = headers.pop(_HIDDEN, None)
        if hidden is None:
            return delivery
        return replace(delivery, envelope=self.show(replace(delivery.envelope, headers=headers), hidden))


class IgnoresPriority(_Hides):
    def hide(self, envelope: Envelope) -> tuple[str | None, Envelope]:
        return str(envelope.priority), replace(envelope, priority=50)

    def show(self, envelope: Envelope, hidden: str) -> Envelope:
        return replace(envelope, priority=int(hidden))


class IgnoresKeys(_Hides):
    def hide(self, envelope: Envelope) -> tuple[str | None, Envelope]:
        return envelope.key, replace(envelope, key=None)

    def show(self, envelope: Envelope, hidden: str) -> Envelope:
        return replace(envelope, key=hidden)
