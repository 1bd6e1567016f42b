"""What is not to be delivered yet: by the monotonic clock (delays, back-off) and by the wall clock (not_before)."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from neuralcore.testing.memory.records import Entry, Moment, State

__all__ = ["Delays"]


class Delays:
    """Two queues, because the wall clock may jump and the other never does."""

    __slots__ = ("_mono", "_wall")

    def __init__(self) -> None:
        self._mono: list[tuple[int, int, Entry]] = []
        self._wall: list[tuple[int, int, Entry]] = []

    def hold(self, entry: Entry, now: Moment) -> bool:
        """Keep it until both of its times have come; False when they have."""
        if entry.due > now.mono:
            heappush(self._mono, (entry.due, entry.rank[1], entry))
        elif entry.not_before is not None and entry.not_before > now.wall:
            heappush(self._wall, (entry.not_before, entry.rank[1], entry))
        else:
            return False
        entry.state = State.DELAYED
        return True

    def due(self, now: Moment) -> Iterator[Entry]:
        """Take out what may be delivered."""
        for heap, reached in ((self._mono, now.mono), (self._wall, now.wall)):
            while heap and (heap[0][0] <= reached or heap[0][2].state is not State.DELAYED):
                entry = heappop(heap)[2]
                if entry.state is State.DELAYED and not self.hold(entry, now):
                    yield entry

    def next(self, now: Moment) -> int | None:
        """The monotonic time at which something may be due, if the wall clock does not jump."""
        times = [heap[0][0] + shift for heap, shift in ((self._mono, 0), (self._wall, now.mono - now.wall)) if heap]
        return min(times, default=None)
