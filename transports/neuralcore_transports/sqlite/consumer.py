"""The asynchronous shells of a store's reader and inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from neuralcore.messaging.transport import Consumer, Cursor, Delivery, Demand, Envelope, Inbox, Interest
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.store import Store

if TYPE_CHECKING:
    from neuralcore_transports.sqlite.transport import SqliteTransport

__all__ = ["SqliteConsumer", "SqliteInbox"]

T = TypeVar("T")


class _Waiting:
    """Takes at once, or as soon as there is something. What was taken for a cancelled caller is the next one's."""

    def __init__(self, client: SqliteTransport) -> None:
        self._client = client
        self._event = asyncio.Event()
        self._taking: asyncio.Task[Moment | None] | None = None
        client.attend(self._event.set)

    def close(self) -> None:
        self._client.ignore(self._event.set)

    async def until(
        self, ready: Callable[[], bool], take: Callable[[], Awaitable[Moment | None]], timeout: float
    ) -> None:
        """Take again and again until something is ready, or the time is over. ``take`` answers when to look again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._event.clear()
            due = await self._shared(take)
            left = deadline - loop.time()
            if ready() or left <= 0:
                return
            if due is not None:
                left = min(left, self._client.seconds_until(due))
            timer = loop.call_later(left, self._event.set)
            try:
                await self._event.wait()
            finally:
                timer.cancel()

    async def _shared(self, take: Callable[[], Awaitable[Moment | None]]) -> Moment | None:
        """One at a time; a caller that is cancelled leaves it running."""
        while self._taking is not None and not self._taking.done():
            await asyncio.wait({self._taking})
        taking = self._taking = asyncio.ensure_future(take())
        await asyncio.shield(taking)
        return taking.result()


class SqliteConsumer(Consumer):
    def __init__(self, client: SqliteTransport, group: str | None) -> None:
        self._client = client
        self._reader = Reader(client.owner, group)
        self._interests: Sequence[Interest] = ()
        self._fetched: list[Delivery] = []
        self._waiting = _Waiting(client)

    async def update(self, interests: Sequence[Interest]) -> None:
        wanted = list(interests)
        await self._run(lambda store, now: store.update(self._reader, wanted, now))
        self._interests = wanted

    async def _run(self, step: Callable[[Store, Moment], T]) -> T:
        self._reader.owner = self._client.owner
        return await self._client.run(step)

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        async def take() -> Moment | None:
            asked = _less(demand, self._fetched)
            deliveries, due, forgotten = await self._run(lambda store, now: _fetch(store, self._reader, asked, now))
            self._client.leases.begin(deliveries)
            self._fetched += deliveries
            if forgotten:
                await self._subscribe_again()
            return due

        await self._waiting.until(lambda: bool(self._within(demand)[0]), take, timeout)
        wanted, self._fetched = self._within(demand)
        return wanted

    def _within(self, demand: Mapping[int, Demand]) -> tuple[list[Delivery], list[Delivery]]:
        """What of that which was fetched is wanted, and what is not yet.

        What answers a subscription that is gone is the caller's to give back.
        """
        left = {id: wanted.limit for id, wanted in demand.items()}
        now: list[Delivery] = []
        later: list[Delivery] = []
        for delivery in self._fetched:
            wanted = demand.get(delivery.interest)
            bound = None if wanted is None else wanted.more_urgent_than
            if delivery.interest not in self._reader.interests:
                now.append(delivery)
            elif left.get(delivery.interest, 0) > 0 and (bound is None or delivery.envelope.priority < bound):
                left[delivery.interest] -= 1
                now.append(delivery)
            else:
                later.append(delivery)
        return now, later

    async def _subscribe_again(self) -> None:
        """The store forgot this client's broadcasts while it stood still."""
        interests = self._interests
        reader = Reader(self._client.owner, None)
        await self._client.run(lambda store, now: store.update(reader, interests, now))
        self._reader = reader
        for interest in interests:
            self._client.data_lost(interest.pattern, "the broadcast ended while this process was not running")

    async def seek(self, interest: int, position: Cursor) -> None:
        if interest not in self._reader.interests:
            raise ValueError(f"this consumer has no interest {interest}; update() it first")
        await self._run(lambda store, now: store.seek(self._reader, interest, position, now))

    async def close(self) -> None:
        self._waiting.close()
        if self._client.running:
            await self._run(lambda store, now: store.close_reader(self._reader, now))


def _fetch(
    store: Store, reader: Reader, demand: Mapping[int, Demand], now: Moment
) -> tuple[list[Delivery], Moment | None, bool]:
    deliveries, again = store.fetch(reader, demand, now)
    if deliveries or again:
        return deliveries, now if again else None, False
    return deliveries, store.next_due(), not store.is_open(reader)


def _less(demand: Mapping[int, Demand], fetched: Sequence[Delivery]) -> Mapping[int, Demand]:
    """What is left of a demand after what is here already."""
    if not fetched:
        return demand
    left = {id: wanted.limit for id, wanted in demand.items()}
    for delivery in fetched:
        if delivery.interest in left:
            left[delivery.interest] -= 1
    return {id: Demand(max(0, left[id]), wanted.more_urgent_than) for id, wanted in demand.items()}


class SqliteInbox(Inbox):
    def __init__(self, client: SqliteTransport, address: str) -> None:
        self._client = client
        self._address = address
        self._replies: list[Envelope] = []
        self._waiting = _Waiting(client)

    async def open(self) -> None:
        await self._client.run(lambda store, now: store.open_inbox(self._address, self._client.owner))

    @property
    def address(self) -> str:
        return self._address

    async def fetch(self, timeout: float) -> Sequence[Envelope]:
        await self._waiting.until(lambda: bool(self._replies), self._take, timeout)
        replies, self._replies = self._replies, []
        return replies

    async def _take(self) -> Moment | None:
        replies = await self._client.run(lambda store, now: store.take_replies(self._address))
        if replies is None:
            await self.open()
            self._client.data_lost(self._address, "the inbox ended while this process was not running")
        else:
            self._replies += replies
        return None

    async def close(self) -> None:
        self._waiting.close()
        if self._client.running:
            await self._client.run(lambda store, now: store.close_inbox(self._address))
