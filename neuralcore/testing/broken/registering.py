"""Faults in what a store knows of channels and groups."""

from __future__ import annotations

from collections.abc import Sequence

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import ChannelRef, Envelope, GroupRef, Transport
from neuralcore.testing.broken.wrapped import Wrapped


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
