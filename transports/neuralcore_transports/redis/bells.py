"""Listens for what the server tells this client, on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from neuralcore_transports.redis.deadline import within
from neuralcore_transports.redis.pipe import Broken, NotSent, Pipe
from neuralcore_transports.redis.servers import Servers

__all__ = ["Bells"]

log = logging.getLogger("neuralcore.redis")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0


class Bells:
    """What rings while the connection is down is not heard."""

    def __init__(
        self,
        servers: Servers,
        topics: tuple[str, ...],
        heard: Callable[[str, bytes], None],
        down: Callable[[], None],
        back: Callable[[], None],
    ) -> None:
        """``heard`` gets the first line of a message, and the rest. ``down`` is called when the connection is gone, and
        ``back`` when there is another.
        """
        self._servers = servers
        self._topics = topics
        self._heard = heard
        self._down = down
        self._back = back
        self.up = False
        self._pipe: Pipe | None = None
        self._task: asyncio.Task[None] | None = None
        self._subscribed = 0
        self._ready: asyncio.Future[None]

    async def open(self) -> None:
        """Raises RedisError, OSError."""
        await self._listen()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="redis bells")

    async def _listen(self) -> None:
        self._subscribed = 0
        self._ready = ready = asyncio.get_running_loop().create_future()
        pipe = await self._servers.listen(self._push)
        pipe.on_broken = lambda error: self._lost() if ready.done() else ready.set_exception(error)
        try:
            pipe.tell("SUBSCRIBE", *self._topics)
            await within(self._servers.options.timeout, ready)
        except BaseException:
            await pipe.close()
            raise
        self._pipe = pipe
        self.up = not pipe.broken

    def _lost(self) -> None:
        if self.up:
            self.up = False
            self._down()

    def _push(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == b"message":
            kind, _, rest = message[2].partition(b"\n")
            self._heard(kind.decode(), rest)
        elif kind == b"subscribe":
            self._subscribed += 1
            if self._subscribed == len(self._topics) and not self._ready.done():
                self._ready.set_result(None)

    async def _keep(self) -> None:
        """Find out when the connection is dead, though nothing is said on it, and make another."""
        wait = 0.0
        while True:
            assert self._pipe is not None
            try:
                while True:
                    await self._pipe.call("PING")
                    wait = 0.0
                    await asyncio.sleep(self._servers.options.timeout / 2)
            except (Broken, NotSent, RedisError) as error:
                log.debug("the connection for news is gone: %s", error)
            await self._pipe.close()
            while True:
                await asyncio.sleep(wait)
                wait = min(max(2 * wait, _FIRST_WAIT), _LONGEST_WAIT)
                try:
                    await self._listen()
                    break
                except (RedisError, OSError, asyncio.TimeoutError, NotSent, Broken) as error:
                    log.debug("no connection for news: %r", error)
            self._back()

    async def close(self) -> None:
        self.up = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._pipe is not None:
            await self._pipe.close()
