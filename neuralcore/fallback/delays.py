"""Messages that wait for a time."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from neuralcore.fallback.clock import Clock
    from neuralcore.fallback.message import Message

__all__ = ["Delays", "Due"]

WALL_CHECK_NS: Final = 1_000_000_000
"""The wall clock may jump, so it is looked at again after so long."""


class Due(NamedTuple):
    """A time on the clock that does not jump, or on the one that people read."""

    ns: int
    wall: bool


class Delays:
    __slots__ = ("_announced", "_clock", "_entries", "_monotonic", "_wall")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries = 0
        self._monotonic: list[tuple[int, int, Message]] = []
        self._wall: list[tuple[int, int, Message]] = []
        self._announced: int | None = None

    def __len__(self) -> int:
        return len(self._monotonic) + len(self._wall)

    def passed(self, due: Due) -> bool:
        return due.ns <= (self._clock._wall() if due.wall else self._clock._monotonic())

    def add(self, due: Due, message: Message) -> int | None:
        """Answers the earliest time of all when it changed."""
        self._entries += 1
        heappush(self._wall if due.wall else self._monotonic, (due.ns, self._entries, message))
        earliest = self._earliest()
        if self._announced is not None and earliest is not None and earliest >= self._announced:
            return None
        self._announced = earliest
        return earliest

    def pop(self) -> list[Message]:
        """All that are due, the earliest first."""
        due = _pop(self._monotonic, self._clock._monotonic()) + _pop(self._wall, self._clock._wall())
        self._announced = self._earliest()
        return due

    def next(self) -> int | None:
        return self._announced

    def clear(self) -> list[Message]:
        taken = [message for _, _, message in sorted(self._monotonic + self._wall, key=_age)]
        self._monotonic = []
        self._wall = []
        self._announced = None
        return taken

    def _earliest(self) -> int | None:
        times = [self._monotonic[0][0]] if self._monotonic else []
        if self._wall:
            times.append(self._clock._monotonic() + min(self._wall[0][0] - self._clock._wall(), WALL_CHECK_NS))
        return min(times, default=None)


def _pop(heap: list[tuple[int, int, Message]], now: int) -> list[Message]:
    due = []
    while heap and heap[0][0] <= now:
        due.append(heappop(heap)[2])
    return due


def _age(entry: tuple[int, int, Message]) -> int:
    return entry[1]
