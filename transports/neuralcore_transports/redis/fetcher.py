"""How messages of one place come to a consumer: because it asks, or without being asked, while it has credit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from neuralcore_transports.redis.agenda import Agenda, Place
from neuralcore_transports.redis.client import Fetched
from neuralcore_transports.redis.pipe import Broken, NotSent
from neuralcore_transports.redis.prefetched import Prefetched

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["Fetcher"]


class Fetcher:
    """Of one consumer. Which place is asked, and for how much, is decided elsewhere."""

    def __init__(
        self, transport: RedisTransport, agenda: Agenda, prefetched: Prefetched, came: Callable[[], None]
    ) -> None:
        """``came`` is called when something has come unasked."""
        self._transport = transport
        self._client = transport.client
        self._agenda = agenda
        self._prefetched = prefetched
        self._came = came
        self._loop = asyncio.get_running_loop()

    async def peek(self, place: Place, credit: int, below: int) -> None:
        """See how urgent what is next there is. Raises TransportError."""
        self._agenda.looking(place, self._loop.time())
        place.credit = place.promised = credit
        place.below = below
        place.asked = True
        try:
            place.head, due = await self._client.peek(
                place.base, place.group, place.consumer, credit, below, place.turns.last
            )
        except (NotSent, Broken) as error:
            self._agenda.mark(place)
            raise self._transport.unavailable(error) from error
        except BaseException:
            self._agenda.mark(place)
            raise
        place.seen = self._loop.time()
        self._set_due(place, due)
        if place.head is not None:
            self._agenda.mark(place)

    async def fetch(self, place: Place, limit: int, credit: int, below: int) -> Fetched | None:
        """None when its name was given up meanwhile, with all that was handed to it. Raises TransportError."""
        self._agenda.looking(place, self._loop.time())
        consumer, turns = place.consumer, place.turns
        place.asked = True
        try:
            fetched = await self._client.fetch(
                place.channel, place.base, place.group, consumer, limit, credit, below, turns.last
            )
            self._tell_lost(place, fetched)
            if fetched.turn:
                await turns.reach(fetched.turn)
            if fetched.state == "stale":
                self._rename(place, consumer)
            if place.consumer == consumer:
                self._take(place, fetched, credit, below)
        except (NotSent, Broken) as error:
            self._agenda.mark(place)
            if isinstance(error, Broken):
                self._rename(place, consumer)
            raise self._transport.unavailable(error) from error
        except BaseException:
            self._agenda.mark(place)
            self._rename(place, consumer)
            raise
        return fetched if place.consumer == consumer else None

    def _rename(self, place: Place, consumer: str) -> None:
        """Unless it has another name by now."""
        if place.consumer == consumer:
            place.rename(self._transport.consumer_name())

    def _take(self, place: Place, fetched: Fetched, credit: int, below: int) -> None:
        self._set_due(place, fetched.due)
        place.promised = credit
        place.credit = 0 if fetched.more else max(0, credit - len(fetched.found))
        place.below = below
        place.head = fetched.found[-1].priority if fetched.found and fetched.more else None
        place.seen = self._loop.time()
        if fetched.more:
            self._agenda.mark(place)
        self._prefetched.add(place, fetched.found)
        if fetched.turn:
            place.turns.took(fetched.turn)

    def given(self, place: Place, consumer: str, fetched: Fetched) -> None:
        """It was handed out unasked."""
        self._tell_lost(place, fetched)
        if place.consumer == consumer:  # what an old name was handed goes back
            place.turns.came(fetched.turn, partial(self._take_given, place, fetched))

    def _take_given(self, place: Place, fetched: Fetched) -> None:
        place.credit -= len(fetched.found)
        if 2 * place.credit < place.promised:
            self._agenda.mark(place)
        self._set_due(place, fetched.due)
        self._prefetched.add(place, fetched.found)
        self._came()

    def _set_due(self, place: Place, seconds: float | None) -> None:
        self._agenda.set_due(place, None if seconds is None else self._loop.time() + seconds)

    def _tell_lost(self, place: Place, fetched: Fetched) -> None:
        if fetched.recreated:
            detail = f"the group {place.group!r} was missing on a stream, and begins with what is there"
            self._transport.data_lost(place.channel, detail)
        if fetched.trimmed:
            self._transport.trimmed(place.channel, fetched.trimmed)

    async def recover(self, place: Place) -> None:
        """Give back what was handed to names that it had, and has not come. Raises TransportError."""
        for name in list(place.broken):
            await self._transport.recover(place.base, place.group, name)
            place.broken.discard(name)

    async def stop(self, place: Place, how: str) -> None:
        """Be handed nothing unasked, for now (``rest``) or for ever (``away``). What was on its way has come then.

        Raises TransportError.
        """
        turns = place.turns
        reply = await self._client.channel(how, place.base, place.group, self._client.session, place.consumer)
        if reply[0] == b"ok":
            await turns.reach(reply[1] + 1)
