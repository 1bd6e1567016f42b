"""Where a consumer has to look next, and when: at a thousand channels it costs what it costs at one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from neuralcore.messaging.transport import Demand
from neuralcore_transports.redis.turns import Turns

__all__ = ["ANY", "Agenda", "Place"]

ANY: Final = 256
"""Less urgent than every priority."""
_A_POLL: Final = 0.005
"""Seconds of every poll interval that one channel may take: a thousand are polled less often."""


@dataclass(eq=False, slots=True)
class Place:
    """One group on one channel, as one consumer sees it."""

    channel: str
    base: str
    group: str
    interest: int
    consumer: str
    """The name under which entries are pending: a new one whenever old leases may be lost."""
    head: int | None = None
    """The priority of what is next, as far as it is known."""
    seen: float = 0.0
    """When that was known."""
    looked: float = 0.0
    due: float | None = None
    """When something becomes due: loop time."""
    credit: int = 0
    """How many messages the server may still hand out unasked …"""
    promised: int = 0
    """… of so many at first …"""
    below: int = ANY
    """… of priorities below this."""
    asked: bool = False
    """Something may have been handed to its name."""
    turns: Turns = field(default_factory=Turns)
    broken: set[str] = field(default_factory=set)
    """Names that it has had. What was handed out under them and is not known is to be given back."""

    def rename(self, consumer: str) -> None:
        """Leases of the old name may be lost, or what it was handed may not have come."""
        if self.asked:
            self.broken.add(self.consumer)
        self.consumer, self.asked, self.credit = consumer, False, 0
        self.turns.end()
        self.turns = Turns()


class Agenda:
    def __init__(self, poll: float) -> None:
        """``poll``: seconds after which a place is looked at although nobody says that there is something."""
        self._poll = poll
        self._ready: dict[Place, None] = {}
        self._oldest: dict[Place, None] = {}
        """In the order in which they were looked at."""
        self._due: list[tuple[float, int, Place]] = []
        self._numbers = itertools.count()

    def add(self, place: Place) -> None:
        """To be looked at for the first time."""
        self._oldest[place] = None
        self._ready[place] = None

    def remove(self, place: Place) -> None:
        self._oldest.pop(place, None)
        self._ready.pop(place, None)

    def mark(self, place: Place) -> None:
        """There may be something."""
        if place in self._oldest:
            self._ready[place] = None

    def mark_all(self) -> None:
        self._ready.update(self._oldest)

    def is_ready(self, place: Place) -> bool:
        return place in self._ready

    def looking(self, place: Place, now: float) -> None:
        """It is being looked at: what is said from here on is news."""
        self._ready.pop(place, None)
        if self._oldest.pop(place, 0) is None:
            self._oldest[place] = None
        place.looked = now

    def set_due(self, place: Place, due: float | None) -> None:
        place.due = due
        if due is not None:
            heappush(self._due, (due, next(self._numbers), place))

    def ready(self, demand: Mapping[int, Demand], now: float) -> Iterator[Place]:
        """Those that something is wanted from."""
        self._collect(now)
        for place in list(self._ready):
            wanted = demand.get(place.interest)
            if wanted is not None and wanted.limit > 0:
                yield place

    def wait(self, now: float) -> float:
        """Seconds until that may change by itself; never none."""
        self._collect(now)
        times = [now + self._interval]
        oldest = next(iter(self._oldest), None)
        if oldest is not None and oldest not in self._ready:
            times.append(oldest.looked + self._interval)
        if self._due:
            times.append(self._due[0][0])
        return max(0.001, min(times) - now)

    def _collect(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, _, place = heappop(self._due)
            if place.due == due:
                place.due = None
                self.mark(place)
        interval = self._interval
        for place in self._oldest:
            if place.looked + interval > now:
                break
            self._ready[place] = None

    @property
    def _interval(self) -> float:
        return max(self._poll, _A_POLL * len(self._oldest))
