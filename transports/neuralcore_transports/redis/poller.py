"""Which places are asked for what a consumer wants, in which order, and for how much of it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from neuralcore.messaging.transport import Demand
from neuralcore_transports.redis.agenda import ANY, Agenda, Place
from neuralcore_transports.redis.coverage import Coverage
from neuralcore_transports.redis.fetcher import Fetcher
from neuralcore_transports.redis.prefetched import Prefetched

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["Poller"]

_MOST: Final = 500
"""Entries that one fetch hands out."""
_MOST_UNASKED: Final = 100
"""What one place may be handed before it fetches again: it waits for a lease to end when its client falls silent."""
_PEEKS: Final = 64
_FRESH: Final = 0.2
"""Seconds for which it is believed what a peek has seen."""


class Poller:
    """Of one consumer. It remembers nothing: what is known of a place is in the place and on the agenda."""

    def __init__(
        self, transport: RedisTransport, agenda: Agenda, coverage: Coverage, fetcher: Fetcher, prefetched: Prefetched
    ) -> None:
        self._transport = transport
        self._agenda = agenda
        self._coverage = coverage
        self._fetcher = fetcher
        self._prefetched = prefetched
        self._loop = asyncio.get_running_loop()

    def wanted(self, demand: Mapping[int, Demand]) -> list[Place]:
        """Where something may be that is asked for."""
        for place in self._coverage if len(self._coverage) <= _PEEKS else ():
            wanted = demand.get(place.interest)
            if wanted is not None and self._starves(place, wanted):
                self._agenda.mark(place)
        return list(self._agenda.ready(demand, self._loop.time()))

    def _starves(self, place: Place, wanted: Demand) -> bool:
        """The server would hand out too little of what is wanted."""
        credit = self._credit(place, wanted)
        return credit > 0 and (2 * place.credit < credit or place.below < _bound(wanted))

    def _credit(self, place: Place, wanted: Demand) -> int:
        """Of the demand, what one of the interest's places may be given unasked: all together, no more than that."""
        if not self._transport.listening:
            return 0
        return min(wanted.limit // max(1, self._coverage.crowd(place.interest)), _MOST_UNASKED)

    async def poll(self, demand: Mapping[int, Demand]) -> None:
        """Have what is wanted among what was prefetched, as far as there is any. Raises TransportError."""
        places = self.wanted(demand)
        if len(places) > 1:
            places = await self._by_urgency(places, demand)
        left = self._prefetched.missing(demand)
        for together in _equals(places):
            crowd = Counter(place.interest for place in together)
            tasks = []
            for place in together:
                share = -(-left[place.interest] // crowd[place.interest])
                crowd[place.interest] -= 1
                limit = min(share, _MOST)
                if limit > 0:
                    left[place.interest] -= limit
                    tasks.append(self._fetch(place, limit, demand[place.interest]))
            for place, asked, given in await _all(tasks):
                left[place.interest] += asked - given

    async def _by_urgency(self, places: list[Place], demand: Mapping[int, Demand]) -> list[Place]:
        """Most urgent first; those that turn out to have nothing are left out."""
        now = self._loop.time()
        unknown = [place for place in places if place.head is None or now - place.seen > _FRESH]
        await asyncio.gather(*(self._peek(place, demand[place.interest]) for place in unknown[:_PEEKS]))
        left = set(map(id, unknown[:_PEEKS]))
        found = [place for place in places if place.head is not None or id(place) not in left]
        return sorted(found, key=lambda place: (ANY if place.head is None else place.head, place.looked))

    async def _peek(self, place: Place, wanted: Demand) -> None:
        await self._fetcher.peek(place, self._credit(place, wanted), _bound(wanted))

    async def _fetch(self, place: Place, limit: int, wanted: Demand) -> tuple[Place, int, int]:
        fetched = None
        while fetched is None:
            await self._fetcher.recover(place)
            credit = self._credit(place, wanted)  # not before: it may hear nothing any more
            fetched = await self._fetcher.fetch(place, limit, credit, _bound(wanted))
        if fetched.state != "ok":
            await self._coverage.restore(place, fetched.state)
        return place, limit, len(fetched.found)


def _bound(demand: Demand) -> int:
    return ANY if demand.more_urgent_than is None else demand.more_urgent_than


def _equals(places: Sequence[Place]) -> Iterable[list[Place]]:
    for _, together in itertools.groupby(places, key=lambda place: place.head):
        yield list(together)


async def _all(tasks: Sequence[object]) -> list[tuple[Place, int, int]]:
    """Like gather, but what has come is kept, and the first error raised when all are through."""
    results = await asyncio.gather(*tasks, return_exceptions=True)  # type: ignore[call-overload]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
