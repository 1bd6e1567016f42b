"""Which messages that nobody has left to settle are still kept."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from neuralcore.messaging.channel import Retention
from neuralcore.testing.memory.records import Record

__all__ = ["Kept"]


class Kept:
    """The idle records of one channel, oldest first."""

    __slots__ = ("_heap", "_records", "size")

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._heap: list[int] = []
        self.size = 0
        """Bytes."""

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        self._records[record.seq] = record
        self.size += record.size
        heappush(self._heap, record.seq)

    def remove(self, record: Record) -> None:
        if self._records.pop(record.seq, None) is not None:
            self.size -= record.size

    def excess(self, retention: Retention | None, mono: int) -> Iterator[Record]:
        """Take out what is not to be kept: without a retention, everything."""
        while self._heap:
            oldest = self._records.get(self._heap[0])
            if oldest is None:
                heappop(self._heap)
            elif retention is None or self._exceeds(retention, oldest, mono):
                heappop(self._heap)
                self.remove(oldest)
                yield oldest
            else:
                return

    def _exceeds(self, retention: Retention, oldest: Record, mono: int) -> bool:
        return (
            (retention.age is not None and mono - oldest.stored.mono >= retention.age * 1e9)
            or (retention.count is not None and len(self) > retention.count)
            or (retention.bytes is not None and self.size > retention.bytes)
        )
