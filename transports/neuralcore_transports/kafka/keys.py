"""One message of a key at a time, of what this process has of a partition."""

from __future__ import annotations

from heapq import heappop, heappush

__all__ = ["Keys"]

_Rank = tuple[int, int]


class Keys:
    """Messages are known by their offsets; who waits for a key comes in the order of its rank."""

    __slots__ = ("_holders", "_parked", "parked")

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}
        self._parked: dict[str, list[_Rank]] = {}
        self.parked = 0
        """How many wait for a key."""

    def admits(self, key: str | None, offset: int) -> bool:
        """The key is free, or this one's own."""
        return key is None or self._holders.get(key, offset) == offset

    def hold(self, key: str | None, offset: int) -> None:
        if key is not None:
            self._holders[key] = offset

    def park(self, key: str, rank: _Rank) -> None:
        heappush(self._parked.setdefault(key, []), rank)
        self.parked += 1

    def free(self, key: str | None, offset: int) -> _Rank | None:
        """Give it back; who is next."""
        if key is None or self._holders.get(key) != offset:
            return None
        del self._holders[key]
        waiting = self._parked.get(key)
        if waiting is None:
            return None
        following = heappop(waiting)
        self.parked -= 1
        if not waiting:
            del self._parked[key]
        return following
