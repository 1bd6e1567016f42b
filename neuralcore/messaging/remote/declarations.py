"""What is known of channels: configurations made here, told to the transport before they matter, and its registry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.remote.backoff import Backoff
from neuralcore.messaging.remote.refusal import refuses
from neuralcore.messaging.transport import Envelope, Transport

__all__ = ["Declarations"]


class Declarations:
    def __init__(self, context: BusContext, transport: Transport) -> None:
        self._transport = transport
        self._configs: dict[str, ChannelConfig] = {}
        self._pending: dict[str, ChannelConfig] = {}
        self._refused: dict[str, Exception] = {}
        self._known: set[str] = set()
        self._busy = asyncio.Lock()
        self._backoff = Backoff("declaring channels", context.rng)

    def declare(self, config: ChannelConfig) -> None:
        """From any thread; told to the transport at the next ``flush``."""
        self._configs[config.name] = config
        self._refused.pop(config.name, None)
        self._pending[config.name] = config

    def config(self, channel: str) -> ChannelConfig:
        return self._configs.get(channel) or ChannelConfig(channel)

    def refusal(self, channel: str) -> Exception | None:
        """What the transport said against its configuration."""
        return self._refused.get(channel)

    def refuses_any(self, publishes: Iterable[Envelope]) -> bool:
        return bool(self._refused) and any(envelope.channel in self._refused for envelope in publishes)

    async def flush(self) -> None:
        """Tell the transport what is new, however long that takes. Conflicts are for the channel's users."""
        if not self._pending:
            return
        async with self._busy:
            while self._pending:
                name, config = next(iter(self._pending.items()))
                if await self._told(config) and self._pending.get(name) is config:
                    del self._pending[name]

    async def _told(self, config: ChannelConfig) -> bool:
        try:
            await self._transport.declare(config)
        except Exception as error:  # noqa: BLE001 - it is told apart
            if not refuses(error):
                await self._backoff.wait(error)
                return False
            log.error("the transport refuses the configuration of %s: %s", config.name, error)
            self._refused[config.name] = error
        self._backoff.worked()
        self._known.add(config.name)
        return True

    # The registry

    async def refresh(self) -> None:
        self._known.update(await self._transport.channels())

    def saw(self, channel: str) -> None:
        self._known.add(channel)

    def knows(self, channel: str) -> bool:
        return channel in self._known or channel in self._configs

    def names(self) -> set[str]:
        return self._known | self._configs.keys()
