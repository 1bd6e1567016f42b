"""Looks after what is stored: deletes what nobody needs, and says how much there is."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from neuralcore.messaging.transport import StoreStats
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.trimming import Groups, Progress, groups_of

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Upkeep"]


class Upkeep:
    def __init__(self, transport: KafkaTransport) -> None:
        self._transport = transport
        self._touched: set[str] = set()
        """Channels of which there may be something to delete."""
        self._late: Counter[str] = Counter()
        """Settlements by channel that came after their lease was lost."""

    def touched(self, channels: Iterable[str]) -> None:
        """Something has happened there."""
        self._touched.update(channels)

    def settled_late(self, channels: Iterable[str]) -> None:
        self._late.update(channels)

    async def run(self) -> None:
        """Until it is cancelled."""
        options = self._transport.options
        while options.trim:
            await asyncio.sleep(options.upkeep * (0.75 + 0.5 * random.random()))  # not all clients at once
            touched, self._touched = self._touched, set()
            for member in self._transport.members:
                touched.update(partition.channel for partition in member.owned if partition.window.position)
            try:
                await self._trim(touched)
            except Exception as error:  # noqa: BLE001 - it is tried again, whatever it was
                self._touched |= touched
                self._transport.count("upkeep_failed")
                log.warning("what nobody needs could not be deleted, it is tried again: %s", error)

    async def _trim(self, names: Collection[str]) -> None:
        if not names:
            return
        registrar = self._transport.registrar
        await registrar.refresh()  # a group that has just come may want what nobody else does
        channels = [found for name in names if (found := registrar.registry.channels.get(name)) is not None]
        await self._transport.run(self._delete, channels, groups_of(registrar.registry, channels))
        self.touched(channel.channel for channel in channels if channel.kept)  # time alone ends that

    def _delete(self, channels: Sequence[Channel], groups: Groups) -> None:
        """Blocks."""
        transport = self._transport
        progress = Progress(transport, channels, groups)
        wall_ms = transport.clock.time_ns() // 1_000_000
        trims = {place: offset for each in channels for place, offset in progress.trims(each, wall_ms).items()}
        if trims:
            transport.administration.delete_before(trims)

    async def stats(self) -> Mapping[str, StoreStats]:
        registrar = self._transport.registrar
        await registrar.refresh()
        channels = list(registrar.registry.channels.values())
        progress = await self._transport.run(
            Progress, self._transport, channels, groups_of(registrar.registry, channels)
        )
        in_flight: Counter[str] = Counter()
        for member in self._transport.members:
            in_flight.update(member.in_flight)
        return {each.channel: self._stats(each.channel, progress, in_flight[each.channel]) for each in channels}

    def _stats(self, channel: str, progress: Progress, in_flight: int) -> StoreStats:
        lag, stored = progress.lag(channel), progress.stored(channel)
        return StoreStats(
            depth=max(lag.values(), default=stored),
            in_flight=in_flight,
            stored=stored,
            lag=lag,
            rejected_settlements=self._late[channel],
        )
