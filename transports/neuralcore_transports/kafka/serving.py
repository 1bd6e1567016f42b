"""Which of a consumer's interests a channel answers, and how the partitions share what they demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
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

    def take(self, demand: Mapping[int, Demand], answers: Mapping[str, int], now: int) -> list[Delivery]:
        """``answers``: the interest of each channel."""
        for partition in [each for each in self._waiting if each.due is not None and each.due <= now]:
            self._active[partition] = None
        self.asked = list(self._active)
        asking = _Asking(demand, answers, now)
        blocked: set[str] = set()
        for _, partitions in groupby(sorted(self.asked, key=_band), key=_band):
            band = [each for each in partitions if each.channel not in blocked]  # who is less urgent waits as well
            self._take_turns(band, asking)
            blocked.update(each.channel for each in band if each.blocked)
        return asking.found

    def _take_turns(self, asked: Sequence[Partition], asking: _Asking) -> None:
        while asked:
            asked = [partition for partition in asked if self._has_more(partition, asking)]

    def _has_more(self, partition: Partition, asking: _Asking) -> bool:
        """Whether it may have, after its turn."""
        if not asking.wants(partition):
            return False
        full = asking.take(partition)
        self._active.pop(partition, None)
        if full or partition.blocked:
            self._active[partition] = None  # behind the others
        if partition.due is not None:
            self._waiting[partition] = None
        else:
            self._waiting.pop(partition, None)
        return full

    @property
    def due(self) -> int | None:
        """Monotonic time at which something is ready that is not now."""
        return min((each.due for each in self._waiting if each.due is not None), default=None)


def _band(partition: Partition) -> int:
    return partition.band


class _Asking:
    """One fetch's demand, as far as it is not met yet."""

    __slots__ = ("_answers", "_demand", "_left", "_now", "found")

    def __init__(self, demand: Mapping[int, Demand], answers: Mapping[str, int], now: int) -> None:
        self._demand = demand
        self._answers = answers
        self._now = now
        self._left = {id: wanted.limit for id, wanted in demand.items()}
        self.found: list[Delivery] = []

    def wants(self, partition: Partition) -> bool:
        id = self._answers.get(partition.channel)
        if id is None or self._left.get(id, 0) <= 0:
            return False
        urgent = self._demand[id].more_urgent_than
        return urgent is None or (partition.below is not None and partition.below <= urgent)

    def take(self, partition: Partition) -> bool:
        """Whether it had all that it was asked for."""
        id = self._answers[partition.channel]
        count = min(_TURN, self._left[id])
        taken = partition.take(id, count, self._now)
        self._left[id] = partition.demanded = self._left[id] - len(taken)
        self.found += taken
        return len(taken) == count
