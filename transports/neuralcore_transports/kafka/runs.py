"""Sets of offsets, as the runs that they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["Runs"]


class Runs:
    """Neighbours are one run: messages that are settled nearly in order take a few numbers, however many they are."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        """``runs``: starts and ends (which are not in), ascending, with gaps between them."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in runs:
            self._starts.append(start)
            self._ends.append(end)

    def __len__(self) -> int:
        """How many runs."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def add(self, start: int, end: int | None = None) -> None:
        """One offset, or a run of which none is in yet."""
        end = start + 1 if end is None else end
        at = bisect_right(self._starts, start)
        joins_before = at > 0 and self._ends[at - 1] == start
        joins_after = at < len(self._starts) and self._starts[at] == end
        if joins_before and joins_after:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif joins_before:
            self._ends[at - 1] = end
        elif joins_after:
            self._starts[at] = start
        else:
            self._starts.insert(at, start)
            self._ends.insert(at, end)

    def take_from(self, position: int) -> int:
        """Take the run that begins there, if there is one: where it ends."""
        if self._starts and self._starts[0] == position:
            del self._starts[0]
            return self._ends.pop(0)
        return position

    @property
    def end(self) -> int | None:
        """Behind the last of them."""
        return self._ends[-1] if self._ends else None
