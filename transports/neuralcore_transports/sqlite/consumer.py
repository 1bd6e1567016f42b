"""The asynchronous shells of a store's reader and inbox."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from neuralcore.messaging.transport import (
    Consumer,
    Cursor,
    Delivery,
    Demand,
    Envelope,
    Inbox,
    Interest,
    Outcome,
    Settlement,
)
from neuralcore_transports.sqlite.store.fetch import Ask, Fetched, Reader
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.store import Store

if TYPE_CHECKING:
    from neuralcore_transports.sqlite.transport import SqliteTransport

__all__ = ["SqliteConsumer", "SqliteInbox", "Waiting"]

T = TypeVar("T")

_TURNS = 4
"""Of the loop, between a commit and a look: who was answered by it may publish again."""


class Waiting:
    """Takes at once, or as soon as there is something. What was taken for a cancelled caller is the next one's."""

    def __init__(
        self,
        client: SqliteTransport,
        ask: Callable[[], Ask] | None = None,
        accept: Callable[[Ask, Fetched], None] = lambda ask, fetched: None,
    ) -> None:
        """``ask``: what the client's own commits are to fetch; ``accept`` gets what they have."""
        self._client = client
        self._ask = ask
        self._accept = accept
        self._event = asyncio.Event()
        self._taking: asyncio.Future[Any] | None = None
        self._quieting = 0
        """Callers who wait until nobody takes anything."""
        self._stale = True
        """There may be something that the last look has not seen."""
        self._surely = False
        """He has to look himself, whatever commits may bring."""
        self.due: Moment | None = None
        """When there may be something although nobody tells."""
        client.attend(self)

    def close(self) -> None:
        self._client.ignore(self)

    def wake(self, *, surely: bool = False) -> None:
        """There may be something new."""
        self._stale = True
        self._surely |= surely
        self._event.set()

    async def until(
        self,
        ready: Callable[[], bool],
        take: Callable[[], Awaitable[None]],
        timeout: float,
        covered: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take again and again until something is ready, or the time is over; not at all while the last look tells that
        there is nothing. ``covered``: it has looked for all that is wanted.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._event.clear()
            await self._leave_it_to_commits()
            until_due = None if self.due is None else self._client.seconds_until(self.due)
            if self._stale or until_due == 0 or not covered():
                if self._taking is not None:
                    await asyncio.wait({self._taking})
                    if not ready() and loop.time() < deadline:
                        continue
                else:
                    await self._look(take)
                until_due = None if self.due is None else self._client.seconds_until(self.due)
            left = deadline - loop.time()
            if ready():
                return
            if left <= 0:
                self._stale = True  # whatever was told: the next call sees for itself
                return
            await self._told(left if until_due is None else min(left, until_due))

    async def _leave_it_to_commits(self) -> None:
        """One that is under way takes the store's thread anyway, and the next one brings along what there is."""
        for _ in range(_TURNS if self._ask is not None else 0):
            if self._stale and not self._surely and self._taking is None:
                await self._client.no_commit.wait()
                await asyncio.sleep(0)

    async def _told(self, timeout: float) -> None:
        timer = asyncio.get_running_loop().call_later(timeout, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()

    async def _look(self, take: Callable[[], Awaitable[None]]) -> None:
        """A caller that is cancelled leaves it running."""
        self._stale = self._surely = False
        await asyncio.shield(self._taken(asyncio.ensure_future(take())))

    async def quiet(self) -> None:
        """Nobody takes anything now."""
        self._quieting += 1
        try:
            while self._taking is not None:
                await asyncio.wait({self._taking})
        finally:
            self._quieting -= 1

    def _taken(self, taking: asyncio.Future[T]) -> asyncio.Future[T]:
        def done(taking: asyncio.Future[T]) -> None:
            self._taking = None
            self._stale |= taking.cancelled() or taking.exception() is not None

        self._taking = taking
        taking.add_done_callback(done)
        return taking

    # What the client's own commits fetch

    @property
    def for_replies(self) -> bool:
        return self._ask is None

    def ask(self) -> Ask | None:
        """None: nothing is wanted, or it is being fetched."""
        if self._ask is None or self._taking is not None or self._quieting:
            return None
        ask = self._ask()
        return ask if any(wanted.limit > 0 for wanted in ask.demand.values()) else None

    def expect(self) -> None:
        """What it asked for is on its way."""
        self._stale = self._surely = False
        self._taking = asyncio.get_running_loop().create_future()

    def hand_over(self, ask: Ask, fetched: Fetched | None) -> None:
        """None: nothing was fetched, and it has to look itself."""
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.set_result(None)
        if fetched is None:
            self.wake(surely=True)
        else:
            self._accept(ask, fetched)
            self._event.set()


class SqliteConsumer(Consumer):
    def __init__(self, client: SqliteTransport, group: str | None) -> None:
        self._client = client
        self._reader = Reader(client.owner, group)
        self._interests: Sequence[Interest] = ()
        self._fetched: list[Delivery] = []
        self._demand: Mapping[int, Demand] = {}
        """What the caller of ``fetch`` wants, or once it has returned can still take."""
        self._covered: dict[int, int | None] = {}
        """Interests of which there is nothing more in the store, as far as it was told; and up to which priority."""
        self._waiting = Waiting(client, self._ask, self._accept)

    async def update(self, interests: Sequence[Interest]) -> None:
        wanted = list(interests)
        self._demand = {}
        await self._run(partial(self._update, wanted))
        self._interests = wanted
        self._waiting.wake()
        if not wanted:
            await self._give_back()

    async def _give_back(self) -> None:
        """What was fetched ahead, and nobody will ask for any more."""
        left, self._fetched = self._fetched, []
        if left:
            await self._client.commit((), [Settlement(delivery, Outcome.RELEASE) for delivery in left])

    async def _run(self, step: Callable[[Store, Moment], T]) -> T:
        self._reader.owner = self._client.owner
        return await self._client.run(step)

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        self._demand = demand
        try:
            await self._waiting.until(
                lambda: bool(self._within(demand)[0]), self._take, timeout, lambda: self._covers(self._ask().demand)
            )
        except BaseException:
            self._demand = {}  # nobody is known to want anything
            raise
        wanted, self._fetched = self._within(demand)
        self._demand = _less(demand, wanted)
        return wanted

    def _ask(self) -> Ask:
        self._reader.owner = self._client.owner
        return Ask(self._reader, _less(self._demand, self._fetched))

    async def _take(self) -> None:
        ask = self._ask()
        fetched = await self._client.run(partial(self._fetch, ask))
        self._accept(ask, fetched)
        if not fetched.open:
            await self._subscribe_again()

    def _update(self, interests: Sequence[Interest], store: Store, now: Moment) -> None:
        self._client.room.await_moving(store.connection)
        store.update(self._reader, interests, now)

    def _fetch(self, ask: Ask, store: Store, now: Moment) -> Fetched:
        self._client.room.await_moving(store.connection)
        return store.fetch(*ask, now)

    def _accept(self, ask: Ask, fetched: Fetched) -> None:
        self._client.leases.begin(fetched.deliveries)
        self._fetched += fetched.deliveries
        self._waiting.due = fetched.due
        self._covered = {}
        if fetched.again or not fetched.open:
            self._waiting.wake(surely=True)
            return
        came = Counter(delivery.interest for delivery in fetched.deliveries)
        self._covered = {id: wanted.more_urgent_than for id, wanted in ask.demand.items() if wanted.limit > came[id]}

    def _covers(self, demand: Mapping[int, Demand]) -> bool:
        """The last look has found nothing more that would answer this."""
        for id, wanted in demand.items():
            if wanted.limit > 0:
                if id not in self._covered:
                    return False
                bound, asked = self._covered[id], wanted.more_urgent_than
                if bound is not None and (asked is None or asked > bound):
                    return False
        return True

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
        await self._waiting.quiet()
        lost = {delivery for delivery in self._fetched if delivery.interest == interest}
        await self._run(lambda store, now: store.seek(self._reader, interest, position, now))
        self._fetched = [delivery for delivery in self._fetched if delivery not in lost]
        self._waiting.wake()

    async def close(self) -> None:
        self._waiting.close()
        if self._client.running:
            await self._waiting.quiet()
            await self._give_back()
            await self._run(lambda store, now: store.close_reader(self._reader, now))


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
        self._waiting = Waiting(client)

    async def open(self) -> None:
        await self._client.run(lambda store, now: store.open_inbox(self._address, self._client.owner))

    @property
    def address(self) -> str:
        return self._address

    async def fetch(self, timeout: float) -> Sequence[Envelope]:
        await self._waiting.until(lambda: bool(self._replies), self._take, timeout)
        replies, self._replies = self._replies, []
        return replies

    async def _take(self) -> None:
        replies = await self._client.run(lambda store, now: store.take_replies(self._address))
        if replies is None:
            await self.open()
            self._client.data_lost(self._address, "the inbox ended while this process was not running")
        else:
            self._replies += replies

    async def close(self) -> None:
        self._waiting.close()
        if self._client.running:
            await self._client.run(lambda store, now: store.close_inbox(self._address))
