"""Several publishes, and the end of a message, in one transaction: all of it happens, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from neuralcore.messaging.loops import in_loop
from neuralcore.messaging.middleware import Publication, compose_publish
from neuralcore.messaging.remote.work import Done
from neuralcore.messaging.transport import Settlement, SettleStatus, Transaction

if TYPE_CHECKING:
    from neuralcore.messaging.remote.link import RemoteLink

__all__ = ["BusTransaction", "transaction"]


class BusTransaction:
    """What ``bus.transaction`` and ``message.transaction`` give to their block."""

    def __init__(self, link: RemoteLink, inner: Transaction) -> None:
        self._link = link
        self._inner = inner
        middleware = link.context.middleware
        self._steps: Callable[[Publication], Any] = (
            compose_publish(middleware, self._store) if middleware else self._store
        )

    async def publish(self, channel: str, payload: Any, **options: Any) -> str | None:
        """As ``bus.publish``; nobody gets the message before the transaction is committed, or ever if it is not.

        It does not wait for room: ChannelFull where ``bus.publish`` would.
        """
        result: str | None = await self._steps(Publication(channel, payload, **options))
        return result

    async def _store(self, publication: Publication) -> str | None:
        outlet = self._link.outlet(publication.channel)
        envelope = await outlet.prepared(publication.payload, **publication.options())
        result = await self._inner.commit([envelope])
        done = Done(result.published[0], reason=result.reasons.get(0, ""))
        return outlet.result(envelope, publication.payload, done)

    async def settle(self, settlement: Settlement) -> SettleStatus:
        result = await self._inner.commit([], [settlement])
        return result.settled[0]


@asynccontextmanager
async def transaction(link: RemoteLink, connection: Any | None) -> AsyncIterator[BusTransaction]:
    """Raises TransportError when it could not be committed: then nothing of it has happened."""
    await in_loop(link.context.loop, link.declared)
    async with link.transport.transaction(connection) as inner:
        yield BusTransaction(link, inner)
