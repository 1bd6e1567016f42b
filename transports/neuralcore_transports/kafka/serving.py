"""Which of a consumer's interests a channel answers, and how the partitions share what they demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from neuralcore.messaging.names import is_pattern, matches, specificity
from neuralcore.messaging.transport import Delivery, Demand, Interest
from neuralcore_transports.kafka.partition import Partition

__all__ = ["Answering", "Serving"]

_TURN: Final = 32
"""Messages that one partition hands out before the next one is asked."""


class Answering:
    """The most specific of a group's interests in a channel."""

    def __init__(self, interests: Sequence[Interest]) -> None:
        self._names: dict[str, Interest] = {}
        self._wild: list[Interest] = []
        for interest in sorted(interests, key=lambda interest: specificity(interest.pattern)):
            if is_pattern(interest.pattern):
                self._wild.append(interest)
            else:
                self._names.setdefault(interest.pattern, interest)

    def __call__(self, channel: str) -> Interest | None:
        exact = self._names.get(channel)
        if exact is not None:
            return exact
        return next((interest for interest in self._wild if matches(interest.pattern, channel)), None)


class Serving:
    """Asks in turn the partitions that may have something."""

    def __init__(self) -> None:
        self._active: dict[Partition, None] = {}
        self._waiting: dict[Partition, None] = {}
        """Those with messages whose time has not come."""
        self.asked: list[Partition] = []
        """Those that might have had something, the last time."""

    def ready(self, partition: Partition) -> None:
        self._active[partition] = None

    def remove(self, partition: Partition) -> None:
        self._active.pop(partition, None)
        self._waiting.pop(partition, None)

    def take(
        self, demand: Mapping[int, Demand], answers: Mapping[str, int], bounds: Mapping[str, Sequence[int]], now: int
    ) -> list[Delivery]:
        """``answers``: the interest of each channel; ``bounds``: the most urgent priority of each of its bands."""
        for partition in [each for each in self._waiting if each.due is not None and each.due <= now]:
            self._active[partition] = None
        left = {id: wanted.limit for id, wanted in demand.items()}
        self.asked = list(self._active)
        found: list[Delivery] = []
        urgent_first = sorted(self._active, key=lambda partition: partition.band) if self._active else ()
        band = 0
        asked: list[Partition] = []
        blocked: set[str] = set()
        for partition in urgent_first:
            if partition.band != band:
                self._take_turns(asked, demand, answers, bounds, left, found, now)
                blocked.update(each.channel for each in asked if each.blocked)
                asked, band = [], partition.band
            if partition.channel not in blocked:  # else it waits with what is more urgent
                asked.append(partition)
        self._take_turns(asked, demand, answers, bounds, left, found, now)
        return found

    def _take_turns(
        self,
        asked: list[Partition],
        demand: Mapping[int, Demand],
        answers: Mapping[str, int],
        bounds: Mapping[str, Sequence[int]],
        left: dict[int, int],
        found: list[Delivery],
        now: int,
    ) -> None:
        while asked:
            again = []
            for partition in asked:
                id = answers.get(partition.channel)
                if id is None or left.get(id, 0) <= 0 or not _urgent(partition, demand[id], bounds):
                    continue
                count = min(_TURN, left[id])
                taken = partition.take(id, count, now)
                left[id] -= len(taken)
                partition.demanded = left[id]
                found += taken
                self._active.pop(partition, None)
                if len(taken) == count:
                    self._active[partition] = None  # behind the others
                    again.append(partition)
                elif partition.blocked:
                    self._active[partition] = None
                if partition.due is not None:
                    self._waiting[partition] = None
                else:
                    self._waiting.pop(partition, None)
            asked = again

    @property
    def due(self) -> int | None:
        """Monotonic time at which something is ready that is not now."""
        return min((each.due for each in self._waiting if each.due is not None), default=None)


def _urgent(partition: Partition, demand: Demand, bounds: Mapping[str, Sequence[int]]) -> bool:
    """A band may have what is more urgent than demanded if all of it is."""
    if demand.more_urgent_than is None:
        return True
    following = bounds.get(partition.channel, ())[partition.band + 1 : partition.band + 2]
    return bool(following) and following[0] <= demand.more_urgent_than
