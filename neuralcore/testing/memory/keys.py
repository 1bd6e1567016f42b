"""One message of a key at a time in one position: who holds each key, and who waits for it."""

from __future__ import annotations

from heapq import heappop, heappush

from neuralcore.testing.memory.records import Entry, State

__all__ = ["Keys"]


class Keys:
    __slots__ = ("_holders", "_parked")

    def __init__(self) -> None:
        self._holders: dict[str, Entry] = {}
        self._parked: dict[str, list[Entry]] = {}

    def admits(self, entry: Entry) -> bool:
        """Its key is free, or its own."""
        return entry.key is None or self._holders.get(entry.key, entry) is entry

    def hold(self, entry: Entry) -> None:
        if entry.key is not None:
            self._holders[entry.key] = entry

    def park(self, entry: Entry) -> None:
        assert entry.key is not None
        entry.state = State.PARKED
        heappush(self._parked.setdefault(entry.key, []), entry)

    def free(self, entry: Entry) -> Entry | None:
        """Give its key back; who is next of those that waited for it.

        Also of one whose turn it was, though it had not been taken yet.
        """
        if entry.key is None or not self.admits(entry):
            return None
        self._holders.pop(entry.key, None)
        waiting = self._parked.get(entry.key, [])
        while waiting:
            candidate = heappop(waiting)
            if candidate.state is State.PARKED:
                return candidate
        self._parked.pop(entry.key, None)
        return None
