"""Which places a consumer reads from: one for each of its groups on each channel that its interests cover."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neuralcore.messaging.names import matches, specificity
from neuralcore.messaging.transport import Interest
from neuralcore_transports.redis.agenda import Agenda, Place
from neuralcore_transports.redis.fetcher import Fetcher
from neuralcore_transports.redis.membership import Membership

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["Coverage"]

_numbers = itertools.count(1)


class Coverage:
    """It knows no message, and nothing of who asks for any."""

    def __init__(self, transport: RedisTransport, agenda: Agenda, fetcher: Fetcher, group: str | None) -> None:
        """Its places are on the ``agenda`` for as long as they are its. ``group``: None for broadcasts."""
        self._transport = transport
        self._client = transport.client
        self._agenda = agenda
        self._fetcher = fetcher
        self._group = group
        self._membership = Membership(transport.client, transport.places, broadcast=group is None)
        self._interests: dict[int, Interest] = {}
        self._groups: dict[int, str] = {}
        self._ended: list[tuple[str, Interest]] = []
        """They are still to be left: that may have failed."""
        self._places: dict[tuple[str, str], Place] = {}
        self._crowd: Counter[int] = Counter()
        self._stale = False
        self._news = 0
        """How often it was told which channels have come."""

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    def get(self, base: str, group: str) -> Place | None:
        return self._places.get((base, group))

    def crowd(self, interest: int) -> int:
        """How many places answer it."""
        return self._crowd[interest]

    def of(self, interest: int) -> list[Place]:
        """All on the channels that its pattern matches, though another interest may be answered there.

        Raises ValueError.
        """
        if interest not in self._interests:
            raise ValueError(f"this consumer has no interest {interest}; update() it first")
        pattern, group = self._interests[interest].pattern, self._groups[interest]
        return [place for place in self if place.group == group and matches(pattern, place.channel)]

    # Interests

    async def update(self, interests: Sequence[Interest]) -> None:
        """Raises ValueError for a start that cannot be found."""
        wanted = {interest.id: interest for interest in interests}
        groups = {id: self._groups.get(id) or self._new_group() for id in wanted}
        try:
            await self._membership.join(list(interests), groups)
        except BaseException:
            if self._group is None:  # it may have joined, and the next try is another group
                self._ended += [(groups[id], each) for id, each in wanted.items() if id not in self._interests]
            raise
        self._ended += [(self._groups[id], each) for id, each in self._interests.items() if id not in wanted]
        self._interests, self._groups = wanted, groups
        await self.find()

    def _new_group(self) -> str:
        return self._group if self._group is not None else f"_broadcast.{self._client.session}.{next(_numbers)}"

    async def rejoin(self) -> None:
        """The server may have forgotten the interests."""
        await self._membership.join(list(self._interests.values()), self._groups)

    def wants(self, interest: int) -> bool:
        return interest in self._interests

    async def leave(self) -> None:
        """A broadcast is over with its interest. What it has in flight may still be settled."""
        while self._ended:
            group, interest = self._ended[0]
            if self._group is None:
                self._transport.leases.end_group(group)
                await self._membership.end(group, interest.pattern)
            self._ended.pop(0)

    async def end(self) -> None:
        """The client leaves: nobody waits here any more, and its broadcasts are over."""
        for place in list(self):
            await self._client.channel("away", place.base, place.group, self._client.session)
        if self._group is None:
            for id, interest in self._interests.items():
                await self._membership.end(self._groups[id], interest.pattern)

    # Channels

    @property
    def stale(self) -> bool:
        """The channels have changed: find() them."""
        return self._stale

    def outdated(self) -> None:
        """There may be channels that it was not told of, or some may be gone."""
        self._stale = True

    async def find(self) -> None:
        """Have a place wherever the interests want one, and nowhere else."""
        channels = await self._channels()
        wanted: set[tuple[str, str]] = set()
        for channel in channels:
            wanted.update(self._cover(channel))
        for key in [key for key in self._places if key not in wanted]:
            place = self._places[key]
            if place.channel not in channels:
                self._client.known.gone(place.channel)
            await self._leave_place(place)
            self._agenda.remove(place)
            self._places.pop(key, None)
        self._crowd = Counter(place.interest for place in self)

    async def _channels(self) -> list[str]:
        """All that there are. What is told of new ones comes on another connection, and may overtake the answer."""
        self._stale = False
        while True:
            news = self._news
            try:
                channels = await self._client.channels()
            except BaseException:
                self._stale = True
                raise
            if news == self._news:
                return channels

    async def _leave_place(self, place: Place) -> None:
        try:
            await self._fetcher.stop(place, "away")
            await self._fetcher.recover(place)
        except BaseException:
            self._stale = True
            raise

    def came(self, channels: Sequence[str]) -> None:
        """They were made just now."""
        self._news += 1
        for channel in channels:
            self._cover(channel)

    def _cover(self, channel: str) -> list[tuple[str, str]]:
        """Have the places that the interests want there."""
        found = [interest for interest in self._interests.values() if matches(interest.pattern, channel)]
        if self._group is not None and found:
            found = [min(found, key=lambda interest: specificity(interest.pattern))]
        base = self._client.layout.base(channel)
        for interest in found:
            group = self._groups[interest.id]
            place = self._places.get((base, group))
            if place is None:
                place = Place(channel, base, group, interest.id, self._transport.consumer_name())
                self._places[base, group] = place
                self._agenda.add(place)
                self._crowd[interest.id] += 1
            place.interest = interest.id
        return [(base, self._groups[interest.id]) for interest in found]

    async def restore(self, place: Place, state: str) -> None:
        """The server has lost the group, or the channel, as a fetch's ``state`` says; or somebody has removed it."""
        interest = self._interests.get(place.interest)
        if interest is None:  # it has ended meanwhile
            return
        if await self._client.registry("removed", place.group, interest.pattern, place.channel):
            self._agenda.remove(self._places.pop((place.base, place.group), place))
            return
        if state == "no group":
            self._transport.data_lost(
                place.channel, f"the server had forgotten the group {place.group!r}; it begins with what is there"
            )
        await self._membership.restore(place.channel, place.group, list(self._interests.values()), self._groups)
        self._agenda.mark(place)
