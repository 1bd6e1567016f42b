"""Latency histograms with fixed bounds."""

from bisect import bisect_left
from typing import Final, NamedTuple

__all__ = ["HISTOGRAM_BOUNDS_NS", "Histogram", "Recorder"]

HISTOGRAM_BOUNDS_NS: Final[tuple[int, ...]] = (
    *(step * 10**decade // 10 for decade in range(2, 10) for step in (10, 25, 50)),
    10**10,
)
"""Upper bounds of the latency buckets: 1, 2.5, 5 per decade from 100 ns to 10 s; one more bucket is above them."""


class Histogram(NamedTuple):
    count: int  # type: ignore[assignment]
    sum_ns: int
    buckets: tuple[int, ...]
    """Not cumulative; one entry per bound of HISTOGRAM_BOUNDS_NS and one above the last."""


class Recorder:
    """What a histogram is counted in."""

    __slots__ = ("_buckets", "_sum")

    def __init__(self) -> None:
        self._sum = 0
        self._buckets = [0] * (len(HISTOGRAM_BOUNDS_NS) + 1)

    def record(self, ns: int) -> None:
        elapsed = ns if ns > 0 else 0  # noqa: FURB136 - a call costs more than the comparison
        self._sum += elapsed
        self._buckets[bisect_left(HISTOGRAM_BOUNDS_NS, elapsed)] += 1

    def snapshot(self) -> Histogram:
        buckets = tuple(self._buckets)
        return Histogram(sum(buckets), self._sum, buckets)
