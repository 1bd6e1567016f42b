"""The asynchronous shells of a store's reader and inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from neuralcore.messaging.transport import (
    Consumer,
    Cursor,
    Delivery,
    Demand,
    Envelope,
    Inbox,
    Interest,
)
from neuralcore.testing.memory.wakeup import Wakeup

if TYPE_CHECKING:
    from neuralcore.testing.memory.transport import MemoryTransport

__all__ = ["MemoryConsumer", "MemoryInbox"]

T = TypeVar("T")


class MemoryConsumer(Consumer):
    def __init__(self, client: MemoryTransport, group: str | None) -> None:
        self._client = client
        self._wakeup = client.wakeup()
        self._interests: Sequence[Interest] = ()
        self._reader = client.run(lambda store, owner, now: store.reader(owner, group, self._wakeup.set))

    async def update(self, interests: Sequence[Interest]) -> None:
        interests = list(interests)
        self._client.run(lambda store, owner, now: store.update(self._reader, interests, now))
        self._interests = interests

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        return await _poll(self._client, self._wakeup, lambda: self._fetch(demand), timeout)

    def _fetch(self, demand: Mapping[int, Demand]) -> list[Delivery]:
        forgotten, deliveries = self._client.run(
            lambda store, owner, now: (
                not store.is_open(self._reader),
                store.fetch(self._reader, demand, now),
            )
        )
        if forgotten:
            self._subscribe_again()
        return deliveries

    def _subscribe_again(self) -> None:
        """The store forgot this client while it was silent."""
        self._client.run(lambda store, owner, now: store.update(self._reader, self._interests, now))
        if self._reader.group is None:
            for interest in self._interests:
                self._client.data_lost(interest.pattern, "the broadcast ended while this process was not running")

    async def seek(self, interest: int, position: Cursor) -> None:
        if interest not in self._reader.interests:
            raise ValueError(f"this consumer has no interest {interest}; update() it first")
        self._client.run(lambda store, owner, now: store.seek(self._reader, interest, position, now))

    async def close(self) -> None:
        if self._client.running:
            self._client.run(lambda store, owner, now: store.close_reader(self._reader, now))


class MemoryInbox(Inbox):
    def __init__(self, client: MemoryTransport) -> None:
        self._client = client
        self._wakeup = client.wakeup()
        self._address = self._open(None)

    def _open(self, address: str | None) -> str:
        return self._client.run(lambda store, owner, now: store.open_inbox(owner, self._wakeup.set, address))

    @property
    def address(self) -> str:
        return self._address

    async def fetch(self, timeout: float) -> Sequence[Envelope]:
        return await _poll(self._client, self._wakeup, self._take, timeout)

    def _take(self) -> list[Envelope]:
        replies = self._client.run(lambda store, owner, now: store.take_replies(self._address, now))
        if replies is None:
            self._client.data_lost(self._address, "the inbox ended while this process was not running")
            self._open(self._address)
        return replies or []

    async def close(self) -> None:
        if self._client.running:
            self._client.run(lambda store, owner, now: store.close_inbox(self._address))


async def _poll(client: MemoryTransport, wakeup: Wakeup, take: Callable[[], list[T]], timeout: float) -> list[T]:
    """Take at once, or as soon as there is something, without an await between taking and returning."""
    deadline = client.monotonic_ns() + round(timeout * 1e9)
    while True:
        await client.awake()
        wakeup.clear()
        taken = take()
        left = deadline - client.monotonic_ns()
        if taken or left <= 0:
            return taken
        await wakeup.wait(left / 1e9)
