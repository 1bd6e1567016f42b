"""Which messages of a partition came twice, as far as its owner remembers."""

from __future__ import annotations

from collections import deque

__all__ = ["Seen"]


class Seen:
    """Ids by time, for a while, and so many of them at most."""

    __slots__ = ("_count", "_offsets", "_oldest", "_order", "_window_ns")

    def __init__(self, window_ns: int, count: int) -> None:
        self._window_ns = window_ns
        self._count = count
        self._offsets: dict[str, int] = {}
        self._order: deque[tuple[str, int]] = deque()
        """Ids and when they were seen, oldest first. An ordered dict is three times as slow."""
        self._oldest = 0
        """Nothing that is remembered was seen before."""

    def again(self, id: str, offset: int, now: int) -> bool:
        """Whether another message with this id was seen within the window, monotonic time; else it is remembered."""
        offsets = self._offsets
        if now - self._oldest > self._window_ns or len(offsets) >= self._count:
            self._forget(now)
        known = offsets.get(id)
        if known is not None:
            return known != offset
        offsets[id] = offset
        self._order.append((id, now))
        return False

    def _forget(self, now: int) -> None:
        """What is too old, or too much when one more comes."""
        order = self._order
        while order:
            id, seen = order[0]
            if now - seen <= self._window_ns and len(order) < self._count:
                self._oldest = seen
                return
            order.popleft()
            del self._offsets[id]
        self._oldest = now
