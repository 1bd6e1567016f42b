"""What clients that fell silent had in flight goes to others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Set
from typing import Final

from neuralcore_transports.redis.client import Client

__all__ = ["Reclaiming"]

_AT_ONCE: Final = 50
"""Channels, before it is looked what others have done meanwhile."""


class Reclaiming:
    """All clients see at about the same time who is silent: whoever comes first does it, the others what is left."""

    def __init__(self, client: Client, consumed: Callable[[], Set[str]], trimmed: Callable[[str, int], None]) -> None:
        """``consumed``: the bases of this client's channels. ``trimmed`` hears of what somebody else has deleted."""
        self._client = client
        self._consumed = consumed
        self._trimmed = trimmed
        self._busy: set[str] = set()
        self.random = random.Random()

    async def reclaim(self, session: str, *, ended: bool) -> None:
        """Raises TransportError."""
        if session in self._busy:
            return
        self._busy.add(session)
        try:
            await asyncio.sleep(self.random.uniform(0, self._client.options.lease / 4))
            if await self._all(session, ended=ended) and ended:
                await self._client.registry("end", session)
        finally:
            self._busy.discard(session)

    async def _all(self, session: str, *, ended: bool) -> bool:
        """False when it lives again, or somebody else has cleared it up."""
        client = self._client
        bases = set(self._consumed())
        if ended:
            bases |= {client.layout.base(channel) for channel in await client.channels()}
        shuffled = self.random.sample(sorted(bases), len(bases))
        for first in range(0, len(shuffled), _AT_ONCE):
            some = shuffled[first : first + _AT_ONCE]
            left = await client.registry("unclaimed", session, int(ended), *some)
            if left is None:
                return False
            for base in left:
                await self.take_over(base.decode(), session, ended=ended)
            if left:
                lease = round(client.options.lease * 1000)
                await client.registry("reclaimed", session, int(ended), lease, *left)
        return True

    async def take_over(self, base: str, session: str, *, ended: bool) -> None:
        """On one channel. Raises TransportError."""
        while True:
            reply = await self._client.channel("reclaim", base, session, int(ended))
            if reply[0] != b"ok":
                return
            _, _, more, gone = reply
            if gone:
                self._trimmed(base, gone)
            if not more:
                return
