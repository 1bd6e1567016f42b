"""Where this client's replies arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hiredis

from neuralcore.messaging.transport import Envelope, Inbox
from neuralcore_transports.redis.entries import envelope_of
from neuralcore_transports.redis.scripts import INBOX
from neuralcore_transports.waiting import woken

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["RedisInbox"]


class RedisInbox(Inbox):
    def __init__(self, transport: RedisTransport, address: str) -> None:
        self._transport = transport
        self._client = transport.client
        self._address = address
        self.base = self._client.layout.base(address)
        self._event = asyncio.Event()
        self._ready = True
        self._told: list[Envelope] = []

    async def open(self) -> None:
        await self._ask("open")

    async def _ask(self, what: str) -> Any:
        ttl = round(max(self._client.options.session_ttl, self._client.options.lease) * 1000)
        return await self._client.ask(INBOX, f"{self.base}:open", what, self.base, self._client.session, ttl)

    @property
    def address(self) -> str:
        return self._address

    def wake(self) -> None:
        self._ready = True
        self._event.set()

    async def fetch(self, timeout: float) -> Sequence[Envelope]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._event.clear()
            if self._told:
                told, self._told = self._told, []
                return told
            if self._ready:
                found = await self._take()
                if found:
                    return found
            left = deadline - loop.time()
            if left <= 0:
                self._ready = True  # whatever was told: the next call sees for itself
                return ()
            await woken(self._event, left)

    async def _take(self) -> list[Envelope]:
        self._ready = False
        try:
            alive, replies = await self._ask("take")
        except BaseException:
            self._ready = True  # also when cancelled: what was taken is lost, as a reply may be
            raise
        if not alive:
            await self.open()
            self._transport.data_lost(self._address, "the inbox ended while this process was not heard of")
        told, self._told = self._told, []
        for reply in replies:
            reader = hiredis.Reader()
            reader.feed(reply)
            _, priority, fields = reader.gets()
            told.append(self._read(priority, fields))
        return told

    def told(self, priority: int, fields: Sequence[bytes]) -> None:
        """A reply, without having been asked for."""
        self._told.append(self._read(priority, fields))
        self._event.set()

    def _read(self, priority: int, fields: Sequence[bytes]) -> Envelope:
        return envelope_of(self._address, priority, "0-0", fields)

    async def forget(self) -> None:
        await self._ask("close")

    async def close(self) -> None:
        self._transport.inboxes.pop(self.base, None)
        if self._transport.running:
            await self.forget()
