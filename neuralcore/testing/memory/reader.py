"""A consumer as the store sees it: which interests it has, and what a fetch hands it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

from neuralcore.messaging.names import matches, specificity
from neuralcore.messaging.transport import Demand, Interest
from neuralcore.testing.memory.group import GroupState
from neuralcore.testing.memory.leases import Owner

if TYPE_CHECKING:
    from neuralcore.testing.memory.position import Position
    from neuralcore.testing.memory.records import Entry

__all__ = ["Reader"]


class Reader:
    def __init__(self, owner: Owner, group: str | None, wake: Callable[[], None]) -> None:
        self.owner = owner
        self.group = group
        self.wake = wake
        self.interests: dict[int, Interest] = {}
        self.groups: dict[int, GroupState] = {}
        """The group of each interest: one for all of them, or a broadcast's own."""
        self._answers: dict[str, int | None] = {}

    def set(self, interests: dict[int, Interest], groups: dict[int, GroupState]) -> None:
        for group in self.groups.values():
            group.readers.pop(self, None)
        self.interests, self.groups = interests, groups
        self._answers.clear()
        for group in groups.values():
            group.readers[self] = None

    def select(self, demand: Mapping[int, Demand]) -> Iterator[tuple[int, Entry]]:
        """Take the most urgent entries within the demand, with the interest that each answers."""
        left = {id: wanted.limit for id, wanted in demand.items() if id in self.interests}
        heads = [(entry.rank, id, entry) for id, entry in self._heads(left)]
        heapify(heads)
        while heads:
            rank, id, entry = heads[0]
            bound = demand[id].more_urgent_than
            if left[id] <= 0 or (bound is not None and rank[0] >= bound):
                heappop(heads)
                continue
            left[id] -= 1
            position = entry.position
            yield id, position.take()
            following = self._head(position)
            if following is None:
                heappop(heads)
            else:
                heapreplace(heads, (following.rank, id, following))

    def _heads(self, demand: Mapping[int, int]) -> Iterator[tuple[int, Entry]]:
        for id, position in list(self._positions(demand)):
            entry = self._head(position)
            if entry is not None:
                yield id, entry

    def _head(self, position: Position) -> Entry | None:
        entry = position.head()
        if entry is None:
            position.group.active.pop(position, None)
        return entry

    def _positions(self, demand: Mapping[int, int]) -> Iterator[tuple[int, Position]]:
        if self.group is None:
            for id in demand:
                yield from ((id, position) for position in self.groups[id].active)
        elif self.groups:
            for position in next(iter(self.groups.values())).active:
                answered = self._answered(position.channel.name)
                if answered is not None and demand.get(answered, 0) > 0:
                    yield answered, position

    def _answered(self, channel: str) -> int | None:
        """The most specific of a group's interests in the channel."""
        if channel not in self._answers:
            found = [i for i in self.interests.values() if matches(i.pattern, channel)]
            best = min(found, key=lambda interest: specificity(interest.pattern), default=None)
            self._answers[channel] = None if best is None else best.id
        return self._answers[channel]
