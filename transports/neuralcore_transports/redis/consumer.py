"""The readers of groups and broadcasts."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.transport import Consumer, Cursor, Delivery, Demand, Interest, Outcome, Settlement
from neuralcore_transports.redis.agenda import ANY, Agenda, Place
from neuralcore_transports.redis.client import Fetched
from neuralcore_transports.redis.coverage import Coverage
from neuralcore_transports.redis.fetcher import Fetcher
from neuralcore_transports.redis.leases import lease_of
from neuralcore_transports.redis.pipe import Broken, NotSent
from neuralcore_transports.redis.prefetched import Prefetched

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["RedisConsumer"]

_MOST: Final = 500
"""Entries that one fetch hands out."""
_MOST_UNASKED: Final = 100
"""What one place may be handed before it fetches again: it waits for a lease to end when its client falls silent."""
_PEEKS: Final = 64
_FRESH: Final = 0.2
"""Seconds for which it is believed what a peek has seen."""
_UNWANTED: Final = 0.1
"""Seconds after which what was handed out, and is not asked for, goes back."""
_AGAIN: Final = 1.0
"""Seconds after which that is tried again."""


class RedisConsumer(Consumer):
    def __init__(self, transport: RedisTransport, group: str | None) -> None:
        self._transport = transport
        self._client = transport.client
        self._loop = asyncio.get_running_loop()
        self._agenda = Agenda(transport.client.options.poll)
        self._prefetched = Prefetched(transport.leases)
        self._fetcher = Fetcher(transport, self._agenda, self._prefetched, self._came)
        self._coverage = Coverage(transport, self._agenda, self._fetcher, group)
        self._durable = group is not None
        self._event = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        """It looks everywhere, or gives back what nobody asks for."""
        self._watching: asyncio.TimerHandle | None = None
        """While something is here that nobody has asked for."""
        self._resting = 0.0
        """Until when nothing is given back, because that has failed."""
        self._fetching = 0
        transport.consumers.add(self)

    # What it is interested in

    async def update(self, interests: Sequence[Interest]) -> None:
        """Raises ValueError for a start that cannot be found."""
        if self._looking is not None:
            await asyncio.wait({self._looking})
        ended = await self._coverage.update(interests)
        self._event.set()
        ids = {interest.id for interest in ended.values()}
        gone = self._prefetched.remove(lambda delivery: delivery.interest in ids)
        if gone:
            await self._transport.commit((), [Settlement(delivery, Outcome.RELEASE) for delivery in gone])
        await self._coverage.leave(ended)

    async def rejoin(self) -> None:
        """The server may have forgotten what it is interested in."""
        await self._coverage.rejoin()

    async def end(self) -> None:
        """Its client leaves."""
        await self._coverage.end()

    def places(self) -> Iterable[Place]:
        return list(self._coverage)

    async def _find_places(self) -> None:
        """The channels that its patterns cover."""
        await self._coverage.find()
        self._event.set()

    def channels_came(self, channels: Sequence[str]) -> None:
        """They were made just now."""
        self._coverage.came(channels)
        self._event.set()

    # Fetching

    def heard(self, base: str, group: str) -> bool:
        """There may be something. Answers whether that is a place of its own."""
        place = self._coverage.get(base, group)
        if place is None:
            return False
        place.head = None
        self._agenda.mark(place)
        self._event.set()
        if not self._fetching:
            self._loop.call_later(_UNWANTED, self._pass_on, place)
        return True

    def _pass_on(self, place: Place) -> None:
        """It was told of something, and does not want it now: another member may."""
        if self._agenda.is_ready(place) and not self._fetching and self._durable and self._transport.running:
            self._transport.spawn(self._client.channel("ring", place.base, place.group))

    def given(self, base: str, group: str, consumer: str, fetched: Fetched) -> bool:
        """Handed out unasked. Answers whether that is a place of its own."""
        place = self._coverage.get(base, group)
        if place is None:
            return False
        self._fetcher.given(place, consumer, fetched)
        return True

    def _came(self) -> None:
        """Something was handed out unasked."""
        self._event.set()
        if not self._fetching:
            self._watch()

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = self._loop.call_later(_UNWANTED, self._give_back_unwanted)

    def _give_back_unwanted(self) -> None:
        self._watching = None
        if not self._transport.running:
            return
        places, looking = self._unwanted(), self._looking
        if self._prefetched or places:
            self._watch()
        if looking is not None and looking.done() and not self._fetching:  # nobody is here to be told how it went
            if not looking.cancelled() and (error := looking.exception()) is not None:
                self._transport.failed(error)
            self._looking = looking = None
        if places and looking is None and self._loop.time() >= self._resting:
            self._looking = self._loop.create_task(self._give_back(places))

    def _unwanted(self) -> list[Place]:
        """Where others may want what nobody has asked for yet, though it was handed out a while ago; and what was
        handed to a name that is no more, if nobody fetches there.
        """
        before = time.monotonic() - _UNWANTED * 0.9
        old = self._prefetched.since(before)
        if not self._fetching:
            old |= {(place.base, place.group) for place in self._coverage if place.broken}
        return [place for each in old if (place := self._coverage.get(*each)) is not None]

    async def _give_back(self, places: Sequence[Place]) -> None:
        """No fetch is to hear what goes wrong: it has not asked for this."""
        try:
            await self._try_to_give_back(places)
        except (TransportError, NotSent, Broken) as error:
            self._resting = self._loop.time() + _AGAIN
            self._transport.failed(error)

    async def _try_to_give_back(self, places: Sequence[Place]) -> None:
        """All that is here of them, the newest too, or it would come before the others."""
        for place in places:
            await self._fetcher.recover(place)
            await self._fetcher.stop(place, "rest")
        gone = self._prefetched.remove(lambda delivery: self._place_of(delivery) in places)
        try:
            if gone:
                await self._transport.commit((), [Settlement(each, Outcome.RELEASE) for each in gone])
        except BaseException:
            for delivery in gone:
                self._transport.leases.end(delivery)
            for place in places:
                place.rename(self._transport.consumer_name())
            raise
        for place in places:
            place.credit = 0
            self._agenda.mark(place)

    def _place_of(self, delivery: Delivery) -> Place | None:
        lease = lease_of(delivery)
        return None if lease is None else self._coverage.get(lease.base, lease.group)

    def look_again(self, *, channels: bool = False) -> None:
        """There may be something anywhere."""
        if channels:
            self._coverage.outdated()
        self._agenda.mark_all()
        self._event.set()
        self._watch()

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        deadline = self._loop.time() + timeout
        self._fetching += 1
        looked = False
        try:
            while True:
                self._event.clear()
                found = self._take(demand)
                if found:
                    return found
                own = self._looking is None and (self._coverage.stale or bool(self._wanted(demand)))
                if own:
                    self._looking = self._loop.create_task(self._look(dict(demand)))
                if self._looking is not None:
                    await self._looked(self._looking)
                    found = self._take(demand)
                    if found:
                        return found
                    looked = looked or own
                    if self._wanted(demand) and (not looked or self._loop.time() < deadline):
                        continue
                left = deadline - self._loop.time()
                if left <= 0:
                    return []
                await self._told(min(left, self._agenda.wait(self._loop.time())))
        finally:
            self._fetching -= 1

    async def _looked(self, looking: asyncio.Task[None]) -> None:
        """A caller that is cancelled leaves it running: what it brings is the next one's. Raises what it raised."""
        await asyncio.wait({looking})
        if self._looking is looking:
            self._looking = None
        looking.result()

    async def _told(self, timeout: float) -> None:
        timer = self._loop.call_later(timeout, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()

    def _take(self, demand: Mapping[int, Demand]) -> list[Delivery]:
        found = self._prefetched.take(demand)
        if self._prefetched:
            self._watch()
        return found

    def _wanted(self, demand: Mapping[int, Demand]) -> list[Place]:
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
        return (
            min(wanted.limit // self._coverage.crowd(place.interest), _MOST_UNASKED) if self._transport.listening else 0
        )

    async def _look(self, demand: dict[int, Demand]) -> None:
        if self._coverage.stale:
            await self._find_places()
        places = self._wanted(demand)
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
            fetched = await self._fetcher.fetch(place, limit, self._credit(place, wanted), _bound(wanted))
        if fetched.state != "ok":
            await self._coverage.restore(place, fetched.state)
        return place, limit, len(fetched.found)

    async def seek(self, interest: int, position: Cursor) -> None:
        """Raises ValueError for a position that cannot be found."""
        found = self._coverage.of(interest)
        places = [place for place in found if await self._client.has_group(place.channel, place.group)]
        start = await self._transport.places.start(position, [place.channel for place in places])
        for place in places:
            await self._client.channel("seek", place.base, place.group, start)
            held = self._transport.leases.of(place.base, place.group)
            self._prefetched.remove(held.__contains__)
            self._transport.leases.lose(held)
            place.rename(self._transport.consumer_name())
            self._agenda.mark(place)
        self._event.set()

    async def close(self) -> None:
        try:
            await self._close()
        finally:
            self._transport.consumers.discard(self)

    async def _close(self) -> None:
        if self._looking is not None:
            await asyncio.wait({self._looking})
            _ = self._looking.exception()  # nobody asks any more
        if not self._transport.running:
            return
        await self.update(())
        if self._prefetched:
            await self._transport.commit((), [Settlement(delivery, Outcome.RELEASE) for delivery in self._prefetched])
            self._prefetched.remove(lambda delivery: True)


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
