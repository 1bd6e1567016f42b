"""What a consumer was handed, and does not want, goes back to the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from neuralcore.messaging.errors import TransportError, Unavailable
from neuralcore.messaging.transport import Delivery, Outcome, Settlement, SettleStatus
from neuralcore_transports.redis.agenda import Agenda, Place
from neuralcore_transports.redis.coverage import Coverage
from neuralcore_transports.redis.fetcher import Fetcher
from neuralcore_transports.redis.leases import lease_of
from neuralcore_transports.redis.pipe import Broken, NotSent
from neuralcore_transports.redis.prefetched import Prefetched

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["UNWANTED", "Releasing"]

UNWANTED: Final = 0.1
"""Seconds after which what was handed out, and is not asked for, goes back."""
_AGAIN: Final = 1.0
"""Seconds after which that is tried again."""


class Releasing:
    """Of one consumer. When it is looked whether anything is unwanted is decided elsewhere."""

    def __init__(
        self, transport: RedisTransport, agenda: Agenda, coverage: Coverage, fetcher: Fetcher, prefetched: Prefetched
    ) -> None:
        self._transport = transport
        self._agenda = agenda
        self._coverage = coverage
        self._fetcher = fetcher
        self._prefetched = prefetched
        self._loop = asyncio.get_running_loop()
        self._resting = 0.0
        """Until when nothing is given back, because that has failed."""

    @property
    def rests(self) -> bool:
        return self._loop.time() < self._resting

    def unwanted(self, *, fetching: bool) -> list[Place]:
        """Where others may want what nobody has asked for yet, though it was handed out a while ago; and what was
        handed to a name that is no more, if nobody fetches there.
        """
        old = self._prefetched.since(time.monotonic() - UNWANTED * 0.9)
        if not fetching:
            old |= {(place.base, place.group) for place in self._coverage if place.broken}
        return [place for each in old if (place := self._coverage.get(*each)) is not None]

    async def give_back(self, places: Sequence[Place]) -> None:
        """No fetch is to hear what goes wrong: it has not asked for this."""
        try:
            await self._try_to_give_back(places)
        except (TransportError, NotSent, Broken) as error:
            self._resting = self._loop.time() + _AGAIN
            self._transport.background.failed(error)

    async def _try_to_give_back(self, places: Sequence[Place]) -> None:
        """All that is here of them, the newest too, or it would come before the others."""
        for place in places:
            await self._fetcher.recover(place)
            await self._fetcher.stop(place, "rest")
        gone = self._prefetched.remove(lambda delivery: self._place_of(delivery) in places)
        try:
            await self._commit(gone)
        except BaseException:
            for delivery in gone:
                self._transport.leases.end(delivery)
            for place in places:
                place.rename(self._transport.consumer_name())
            raise
        for place in places:
            place.credit = 0
            self._agenda.mark(place)
        await self.release(self.strays)

    @property
    def strays(self) -> list[Delivery]:
        """Their interests have ended, and they could not be released then."""
        return [each for each in self._prefetched if self._place_of(each) is None]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """What cannot be released stays, for the next try. Raises TransportError."""
        await self._commit(deliveries)
        gone = set(map(id, deliveries))
        self._prefetched.remove(lambda each: id(each) in gone)

    def _place_of(self, delivery: Delivery) -> Place | None:
        lease = lease_of(delivery)
        return None if lease is None else self._coverage.get(lease.base, lease.group)

    async def _commit(self, deliveries: Sequence[Delivery]) -> None:
        """Raises TransportError."""
        if not deliveries:
            return
        result = await self._transport.commit((), [Settlement(each, Outcome.RELEASE) for each in deliveries])
        if SettleStatus.UNKNOWN in result.settled:
            raise Unavailable("redis", "it does not say whether all of what was handed out has gone back")
