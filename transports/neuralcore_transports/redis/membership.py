"""How groups and broadcasts come to be on channels, and leave them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Interest
from neuralcore_transports.redis.client import Client
from neuralcore_transports.redis.places import Places

__all__ = ["Membership"]

_AT_ONCE = 50


class Membership:
    """Of one consumer. Patterns are in the registry, so that channels that are made later have their groups at once."""

    def __init__(self, client: Client, places: Places, *, broadcast: bool) -> None:
        self._client = client
        self._places = places
        self._session = client.session if broadcast else ""
        """What the groups of broadcasts end with."""

    async def join(self, interests: Sequence[Interest], groups: Mapping[int, str]) -> None:
        """Be on all channels there are. Raises ValueError for a start that cannot be found; then nothing is done."""
        if not interests:
            return
        channels = await self._client.channels()
        claimed: set[tuple[str, str]] = set()
        starts = [await self._start(interest, groups[interest.id], channels, claimed) for interest in interests]
        states, names = await self._subscribe(interests, groups, starts)
        joined: list[str] = []
        for interest, state in zip(interests, states, strict=True):
            text = state.decode()
            if text.startswith("+"):  # whoever began may not have come to the end
                group, start = groups[interest.id], text[1:].partition("\n")[2]
                covered = [name for name in map(bytes.decode, names) if matches(interest.pattern, name)]
                await _in_parts(self.attach(channel, group, start) for channel in covered)
                joined += (interest.pattern, group)
        if joined:
            await self._client.registry("joined", self._session, *joined)

    async def _subscribe(
        self, interests: Iterable[Interest], groups: Mapping[int, str], starts: Iterable[str]
    ) -> tuple[list[bytes], list[bytes]]:
        asked: list[str] = []
        for interest, start in zip(interests, starts, strict=True):
            asked += (interest.pattern, groups[interest.id], start)
        states, names = await self._client.registry("subscribe", self._session, *asked)
        return states, names

    async def _start(
        self, interest: Interest, group: str, channels: Sequence[str], claimed: set[tuple[str, str]]
    ) -> str:
        """Where it begins on channels that it is not on, and that no interest before it takes along."""
        covered = [channel for channel in channels if matches(interest.pattern, channel)]
        new = [channel for channel in covered if (channel, group) not in claimed]
        claimed.update((channel, group) for channel in new)
        if interest.start is None or (await self._client.registry("subscribed", interest.pattern, group))[0]:
            return ""
        for channel in new:
            if not await self._client.has_group(channel, group):
                return await self._places.start(interest.start, covered)
        return ""

    async def attach(self, channel: str, group: str, start: str) -> None:
        base = self._client.layout.base(channel)
        reply = await self._client.channel("attach", base, group, self._session, start)
        if reply[0] == b"no channel":
            await self._client.ensure(channel)
            await self._client.channel("attach", base, group, self._session, start)

    async def restore(self, channel: str, group: str, interests: Sequence[Interest], groups: Mapping[int, str]) -> None:
        """The server has lost the group, and perhaps all it knew: a lasting one begins with what is there."""
        await self._client.ensure(channel)
        await self._subscribe(interests, groups, [""] * len(interests))
        await self.attach(channel, group, "" if self._session else "beginning")

    async def end(self, group: str, pattern: str) -> None:
        """A broadcast is over."""
        names = await self._client.registry("left", group)
        covered = [name for name in map(bytes.decode, names) if matches(pattern, name)]
        await _in_parts(self._client.channel("leave", self._client.layout.base(channel), group) for channel in covered)


async def _in_parts(steps: Iterable[object]) -> None:
    """Many of them at once, but not all."""
    waiting = list(steps)
    for first in range(0, len(waiting), _AT_ONCE):
        await asyncio.gather(*waiting[first : first + _AT_ONCE])  # type: ignore[call-overload]
