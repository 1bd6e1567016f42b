"""Which messages of a partition came twice, as far as its owner remembers."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Seen"]


class Seen:
    """Ids by time, for a while, and so many of them at most."""

    __slots__ = ("_count", "_ids", "_window_ns")

    def __init__(self, window_ns: int, count: int) -> None:
        self._window_ns = window_ns
        self._count = count
        self._ids: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def again(self, id: str, offset: int, now: int) -> bool:
        """Whether another message with this id was seen within the window, monotonic time; else it is remembered."""
        ids = self._ids
        while ids:
            oldest = next(iter(ids.values()))
            if now - oldest[1] <= self._window_ns and len(ids) < self._count:
                break
            ids.popitem(last=False)
        known = ids.get(id)
        if known is not None:
            return known[0] != offset
        ids[id] = (offset, now)
        return False
