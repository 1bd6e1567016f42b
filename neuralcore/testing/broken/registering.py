"""Faults in what a store knows of channels and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import ChannelRef, Envelope, GroupRef, Health, Runtime, StoreStats, Transport
from neuralcore.testing.broken.wrapped import Deaf, Wrapped


class KeepsRemoved(Wrapped):
    """Says that something is removed, and keeps it."""

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        """Nothing."""


class ListsItsOwn(Wrapped):
    """Knows only the channels that this client has used, and one that nobody has."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._used = {"nobodys"}

    async def declare(self, channel: ChannelConfig) -> None:
        self._used.add(channel.name)
        await super().declare(channel)

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        self._used.add(envelope.channel)
        return (envelope,)

    async def channels(self) -> Sequence[str]:
        return sorted(self._used)


class HidesChannels(Wrapped):
    """Tells nobody of new channels."""

    async def open(self, runtime: Runtime) -> None:
        await super().open(cast("Runtime", Deaf(runtime, "channels_changed")))


class TellsNothing(Wrapped):
    """Its statistics are all zero."""

    async def stats(self) -> Mapping[str, StoreStats]:
        return dict.fromkeys(await super().stats(), StoreStats())


class FeelsIll(Wrapped):
    async def health(self) -> Health:
        return Health(ok=False, detail="it always is")
