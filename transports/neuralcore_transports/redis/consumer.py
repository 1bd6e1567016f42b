"""The readers of groups and broadcasts: who waits for what, and when it is looked for or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from neuralcore.messaging.transport import Consumer, Cursor, Delivery, Demand, Interest
from neuralcore_transports.redis.agenda import Agenda, Place
from neuralcore_transports.redis.client import Fetched
from neuralcore_transports.redis.coverage import Coverage
from neuralcore_transports.redis.fetcher import Fetcher
from neuralcore_transports.redis.poller import Poller
from neuralcore_transports.redis.prefetched import Prefetched
from neuralcore_transports.redis.releasing import UNWANTED, Releasing

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["RedisConsumer"]


class RedisConsumer(Consumer):
    def __init__(self, transport: RedisTransport, group: str | None) -> None:
        self._transport = transport
        self._client = transport.client
        self._broadcast = group is None
        self._loop = asyncio.get_running_loop()
        self._agenda = agenda = Agenda(transport.client.options.poll)
        self._prefetched = prefetched = Prefetched(transport.leases)
        self._fetcher = fetcher = Fetcher(transport, agenda, prefetched, self._came)
        self._coverage = coverage = Coverage(transport, agenda, fetcher, group)
        self._poller = Poller(transport, agenda, coverage, fetcher, prefetched)
        self._releasing = Releasing(transport, agenda, coverage, fetcher, prefetched)
        self._event = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        """It looks everywhere, or gives back what nobody asks for."""
        self._watching: asyncio.TimerHandle | None = None
        """While something is here that nobody has asked for."""
        self._fetching = 0
        transport.consumers.add(self)

    # What it is interested in

    async def update(self, interests: Sequence[Interest]) -> None:
        """Raises ValueError for a start that cannot be found."""
        if self._working is not None:
            await asyncio.wait({self._working})
        await self._coverage.update(interests)
        self._event.set()
        ended = [each for each in self._prefetched if not self._coverage.wants(each.interest)]
        await self._releasing.release(ended)
        await self._coverage.leave()

    async def rejoin(self) -> None:
        """The server may have forgotten what it is interested in."""
        await self._coverage.rejoin()

    def places(self) -> Iterable[Place]:
        return list(self._coverage)

    async def find_places(self) -> None:
        """The channels may have changed. Raises TransportError."""
        await self._coverage.find()
        self._event.set()

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

    # What it is told

    def channels_came(self, channels: Sequence[str]) -> None:
        """They were made just now."""
        self._coverage.came(channels)
        self._event.set()

    def heard(self, base: str, group: str) -> bool:
        """There may be something. Answers whether that is a place of its own."""
        place = self._coverage.get(base, group)
        if place is None:
            return False
        place.head = None
        self._agenda.mark(place)
        self._event.set()
        if not self._fetching:
            self._loop.call_later(UNWANTED, self._pass_on, place)
        return True

    def _pass_on(self, place: Place) -> None:
        """It was told of something, and does not want it now: another member may."""
        if self._agenda.is_ready(place) and not self._fetching and not self._broadcast and self._transport.running:
            self._transport.background.spawn(self._client.channel("ring", place.base, place.group))

    def given(self, base: str, group: str, consumer: str, fetched: Fetched) -> bool:
        """Handed out unasked. Answers whether that is a place of its own."""
        place = self._coverage.get(base, group)
        if place is None:
            return False
        self._fetcher.given(place, consumer, fetched)
        return True

    def _came(self) -> None:
        self._event.set()
        if not self._fetching:
            self._watch()

    def look_again(self, *, channels: bool = False) -> None:
        """There may be something anywhere."""
        if channels:
            self._coverage.outdated()
        self._agenda.mark_all()
        self._event.set()
        self._watch()

    # Fetching

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
                own = self._working is None and (self._coverage.stale or bool(self._poller.wanted(demand)))
                if own:
                    self._working = self._loop.create_task(self._look(dict(demand)))
                if self._working is not None:
                    await self._worked(self._working)
                    found = self._take(demand)
                    if found:
                        return found
                    looked = looked or own
                    if self._poller.wanted(demand) and (not looked or self._loop.time() < deadline):
                        continue
                left = deadline - self._loop.time()
                if left <= 0:
                    return []
                await self._told(min(left, self._agenda.wait(self._loop.time())))
        finally:
            self._fetching -= 1

    def _take(self, demand: Mapping[int, Demand]) -> list[Delivery]:
        found = self._prefetched.take(demand)
        if self._prefetched:
            self._watch()
        return found

    async def _look(self, demand: Mapping[int, Demand]) -> None:
        if self._coverage.stale:
            await self.find_places()
        await self._poller.poll(demand)

    async def _worked(self, working: asyncio.Task[None]) -> None:
        """A caller that is cancelled leaves it running: what it brings is the next one's. Raises what it raised."""
        await asyncio.wait({working})
        if self._working is working:
            self._working = None
        working.result()

    async def _told(self, timeout: float) -> None:
        timer = self._loop.call_later(timeout, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()

    # What nobody asks for

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = self._loop.call_later(UNWANTED, self._give_back_unwanted)

    def _give_back_unwanted(self) -> None:
        self._watching = None
        if not self._transport.running:
            return
        places, working = self._releasing.unwanted(fetching=self._fetching > 0), self._working
        if self._prefetched or places:
            self._watch()
        if working is not None and working.done() and not self._fetching:  # nobody is here to be told how it went
            if not working.cancelled() and (error := working.exception()) is not None:
                self._transport.background.failed(error)
            self._working = working = None
        if (places or self._releasing.strays) and working is None and not self._releasing.rests:
            self._working = self._loop.create_task(self._releasing.give_back(places))

    # The end

    async def end(self) -> None:
        """Its client leaves."""
        await self._coverage.end()

    async def close(self) -> None:
        """If it fails, what is here goes back nevertheless, as what nobody asks for."""
        if self._working is not None:
            await asyncio.wait({self._working})
            _ = self._working.exception()  # nobody asks any more
        if self._transport.running:
            await self.update(())
            await self._releasing.release(list(self._prefetched))
        self._transport.consumers.discard(self)
