"""Which channels there are: in the registry, and as topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from neuralcore.messaging.channel import ChannelConfig
from neuralcore_transports.kafka.administration import Administration
from neuralcore_transports.kafka.making import Making
from neuralcore_transports.kafka.registrar import Registrar
from neuralcore_transports.kafka.registry import Channel, Forgotten, Removed
from neuralcore_transports.kafka.topics import Topics

__all__ = ["Declaring", "Run"]

T = TypeVar("T")


class Run(Protocol):
    """In a thread."""

    def __call__(self, what: Callable[..., T], *arguments: object) -> Awaitable[T]: ...


class Declaring:
    """On the loop. Everything raises TransportError."""

    def __init__(
        self,
        topics: Topics,
        registrar: Registrar,
        making: Making,
        administration: Administration,
        run: Run,
        *,
        changed: Callable[[Iterable[str]], None],
        lost: Callable[[str, str], None],
    ) -> None:
        """``changed`` hears of channels that are otherwise now, ``lost`` of those whose messages are gone, and why."""
        self._topics = topics
        self._registrar = registrar
        self._making = making
        self._administration = administration
        self._run = run
        self._changed = changed
        self._lost = lost
        self._ensuring = asyncio.Lock()

    async def declare(self, *configs: ChannelConfig, implied: bool = False) -> None:
        """``implied``: they are needed, and what was said of them stays."""
        known = self._registrar.registry.channels
        asked = [(config, known.get(config.name)) for config in configs]
        wanted = await self._run(partial(self._making.channels, asked, implied=implied))
        changed = [channel for channel in wanted if not _says(known.get(channel.channel), channel)]
        await self._registrar.append(*changed)
        self._changed(channel.channel for channel in changed)

    async def ensure(self, names: Collection[str]) -> None:
        """These are there."""
        channels = self._registrar.registry.channels
        if all(name in channels for name in names):
            return
        async with self._ensuring:  # who comes next finds them there
            await self.declare(*(ChannelConfig(name) for name in names if name not in channels), implied=True)

    async def count_partitions(self, names: Iterable[str]) -> None:
        """If somebody else has added some to the topics of these channels, the registry says so from now on."""
        known = [self._registrar.topics_of(name) for name in self._known(names)]
        if not known:
            return
        there = await self._partitions(topic for _, topics in known for topic in topics)
        counted = [(channel, min(there.get(topic, 0) for topic in topics)) for channel, topics in known]
        more = [(channel, count) for channel, count in counted if count > channel.partitions]
        await self._registrar.append(
            *(Channel(channel.channel, count, channel.bands, implied=True) for channel, count in more)
        )

    async def look_for(self, names: Iterable[str]) -> None:
        """Publishes to these were not answered: perhaps somebody has deleted their topics."""
        topics = {name: self._registrar.topics_of(name)[1] for name in self._known(names)}
        there = await self._partitions(topic for each in topics.values() for topic in each)
        await self._make_again([name for name in topics if any(topic not in there for topic in topics[name])])

    async def mend(self, names: Sequence[str]) -> None:
        """Topics of these are not there, or not with all their partitions."""
        await self.look_for(names)
        await self.declare(*(ChannelConfig(name) for name in self._known(names)), implied=True)

    async def _make_again(self, names: Sequence[str]) -> None:
        """Somebody has deleted their topics."""
        for name in names:
            self._lost(name, "its topic was deleted, with what was in it; it is made again")
        await self.declare(*(ChannelConfig(name) for name in names), implied=True)

    async def remove(self, name: str) -> None:
        await self._registrar.refresh()
        if self._known([name]):
            _, topics = self._registrar.topics_of(name)
            await self._registrar.append(Removed(name))
            await self._run(self._administration.remove, topics)

    async def forget(self, group: str, name: str | None) -> None:
        """A group, on one channel or altogether."""
        await self._registrar.refresh()
        await self._registrar.append(Forgotten(group, name))
        if name is None:
            await self._run(self._administration.forget, self._topics.group(group))

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._registrar.registry.channels]

    async def _partitions(self, topics: Iterable[str]) -> dict[str, int]:
        return await self._run(self._administration.partitions, list(topics))


def _says(known: Channel | None, channel: Channel) -> bool:
    """The registry says so already."""
    if known is not None and channel.implied:
        return channel.partitions <= known.partitions
    return channel == known
