"""What retention no longer keeps is deleted, a little every second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.transport import Runtime
from neuralcore_transports.redis.client import Client
from neuralcore_transports.redis.reclaiming import Reclaiming

__all__ = ["Tidying"]

log = logging.getLogger("neuralcore.redis")

_PAUSE: Final = 1.0
_AT_ONCE: Final = 50
"""Channels."""


class Tidying:
    """All clients do it, each on the channels that it declares or consumes."""

    def __init__(
        self, client: Client, reclaiming: Reclaiming, runtime: Runtime, consumed: Callable[[], Iterable[str]]
    ) -> None:
        """``consumed``: the bases of this client's channels."""
        self._client = client
        self._reclaiming = reclaiming
        self._runtime = runtime
        self._consumed = consumed

    async def keep(self) -> None:
        """Until it is cancelled."""
        turn = 0
        while True:
            await asyncio.sleep(_PAUSE)
            declared = map(self._client.layout.base, self._client.configs)
            bases = list(dict.fromkeys((*declared, *self._consumed())))
            some = [bases[(turn + n) % len(bases)] for n in range(min(_AT_ONCE, len(bases)))]
            turn += len(some)
            try:
                for base in some:
                    await self.tidy(base)
            except TransportError as error:
                self._runtime.count("upkeep_failed")
                where = self._client.options.shown
                log.debug("tidying up on Redis at %s failed, it is tried again: %s", where, error)

    async def tidy(self, base: str) -> None:
        """One channel, to its end. Raises TransportError."""
        while True:
            reply = await self._client.channel("tidy", base)
            if reply[0] != b"ok":
                return
            if not reply[1]:
                await self._end_strays(base, set(reply[2]))
                return

    async def _end_strays(self, base: str, sessions: set[bytes]) -> None:
        """Broadcasts of clients that ended while the channel was made. A client registers before it subscribes."""
        if sessions - {self._client.session.encode()}:
            for session in sessions - set(await self._client.registry("sessions")):
                await self._reclaiming.take_over(base, session.decode(), ended=True)
