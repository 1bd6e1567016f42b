"""The counters of one channel's publish path."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from threading import Lock

from neuralcore._core import HISTOGRAM_BOUNDS_NS, Histogram, RouteStats

__all__ = ["Meter"]


class Meter:
    """From any thread; one lock a publish, which a store's round trip dwarfs."""

    __slots__ = ("_buckets", "_counts", "_lock", "_sum_ns")

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._buckets = [0] * (len(HISTOGRAM_BOUNDS_NS) + 1)
        self._sum_ns = 0
        self._lock = Lock()

    def count(self, what: str, duration_ns: int, amount: int = 1) -> None:
        """``published``, ``dropped`` or ``refused``, after so much time each."""
        with self._lock:
            self._counts[what] += amount
            self._buckets[bisect_left(HISTOGRAM_BOUNDS_NS, duration_ns)] += amount
            self._sum_ns += duration_ns * amount

    def stats(self) -> RouteStats:
        with self._lock:
            return RouteStats(
                published=self._counts["published"],
                unrouted=0,
                dropped=self._counts["dropped"],
                refused=self._counts["refused"],
                publish=Histogram(sum(self._buckets), self._sum_ns, tuple(self._buckets)),
            )
