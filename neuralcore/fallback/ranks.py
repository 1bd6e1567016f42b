"""A priority FIFO: lower rank first, first in first out inside a rank."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralcore.fallback.message import Message

__all__ = ["RankQueue"]


class RankQueue:
    """The most urgent rank's messages in ``top``, the others in ``rest``, their ranks sorted in ``order``.

    Traffic of one rank touches ``top`` alone: hot paths append to it and pop from it directly, and call ``advance``
    after they emptied it. ``top`` is empty only when everything is.
    """

    __slots__ = ("order", "rest", "top", "top_rank")

    def __init__(self) -> None:
        self.top: deque[Message] = deque()
        self.top_rank = 50
        self.rest: dict[int, deque[Message]] = {}
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.top) + sum(map(len, self.rest.values()))

    def __bool__(self) -> bool:
        return bool(self.top)

    def __iter__(self) -> Iterator[Message]:
        yield from self.top
        for rank in self.order:
            yield from self.rest[rank]

    def push(self, rank: int, message: Message) -> None:
        self._level(rank).append(message)

    def push_front(self, rank: int, message: Message) -> None:
        self._level(rank).appendleft(message)

    def insert(self, rank: int, message: Message) -> None:
        """Before its equals, but behind those at the front that are older or were released."""
        level = self._level(rank)
        place = 0
        while place < len(level) and getattr(level[place], "_sequence", message._sequence) < message._sequence:
            place += 1
        level.insert(place, message)

    def pop(self) -> Message:
        message = self.top.popleft()
        if not self.top:
            self.advance()
        return message

    def advance(self) -> None:
        if self.order:
            self.top_rank = self.order.pop(0)
            self.top = self.rest.pop(self.top_rank)

    def last_rank(self) -> int | None:
        if self.order:
            return self.order[-1]
        return self.top_rank if self.top else None

    def pop_last(self, *, newest: bool) -> Message:
        """Take one out of the least urgent rank."""
        level = self.rest[self.order[-1]] if self.order else self.top
        message = level.pop() if newest else level.popleft()
        if not level and self.order:
            del self.rest[self.order.pop()]
        return message

    def depths(self) -> dict[int, int]:
        depths = {self.top_rank: len(self.top)} if self.top else {}
        depths.update((rank, len(self.rest[rank])) for rank in self.order)
        return depths

    def clear(self) -> list[Message]:
        messages = list(self)
        self.top = deque()
        self.rest = {}
        self.order = []
        return messages

    def _level(self, rank: int) -> deque[Message]:
        if rank == self.top_rank:
            return self.top
        if not self.top and not self.order:
            self.top_rank = rank
            return self.top
        if rank < self.top_rank:
            self.rest[self.top_rank] = self.top
            insort(self.order, self.top_rank)
            self.top_rank = rank
            self.top = deque()
            return self.top
        level = self.rest.get(rank)
        if level is None:
            level = self.rest[rank] = deque()
            insort(self.order, rank)
        return level
