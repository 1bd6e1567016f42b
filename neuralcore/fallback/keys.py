"""One message of a key at a time; the others of that key are parked."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralcore.fallback.message import Message

__all__ = ["KeyTable"]


class _Key:
    __slots__ = ("loose", "owner", "parked")

    def __init__(self) -> None:
        self.owner: Message | None = None
        """In flight, or waiting for its retry."""
        self.parked: list[tuple[int, int, Message]] = []
        """A heap by rank and age."""
        self.loose: list[tuple[int, int]] = []
        """Rank and age of those that are back in the queue, ahead of all that are parked in their rank."""


class KeyTable:
    __slots__ = ("_keys", "parked")

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}
        self.parked = 0

    def admit(self, key: str, message: Message) -> bool:
        """A message was popped: it owns its key now, or it is parked."""
        state = self._keys.get(key)
        if state is None:
            state = self._keys[key] = _Key()
        elif state.loose and (place := (message._rank, message._sequence)) in state.loose:
            state.loose.remove(place)
        if state.owner is None or state.owner is message:
            state.owner = message
            return True
        heappush(state.parked, (message._rank, message._sequence, message))
        self.parked += 1
        return False

    def hold(self, key: str, message: Message) -> None:
        """The retry takes the key over from the attempt that failed."""
        self._keys[key].owner = message

    def leave(self, key: str) -> Message | None:
        """The owner is done; answers the parked message that goes back into the queue."""
        state = self._keys[key]
        state.owner = None
        return self._successor(key, state)

    def give_back(self, key: str, message: Message) -> Message | None:
        """The owner goes back into the queue, before its equals."""
        state = self._keys[key]
        state.owner = None
        state.loose.append((message._rank, message._sequence))
        return self._successor(key, state)

    def forget(self, key: str, message: Message) -> Message | None:
        """A message left the queue without being handled."""
        state = self._keys.get(key)
        if state is None:
            return None
        if state.owner is message:
            state.owner = None
        elif (place := (message._rank, message._sequence)) in state.loose:
            state.loose.remove(place)
        else:
            return None
        return None if state.owner else self._successor(key, state)

    def evict(self, queued: int | None) -> Message | None:
        """Take out the oldest parked one of the least urgent rank, unless ``queued`` is less urgent than that."""
        parked = [entry for state in self._keys.values() for entry in state.parked]
        if not parked:
            return None
        last = max(rank for rank, _, _ in parked)
        if queued is not None and queued > last:
            return None
        entry = min((entry for entry in parked if entry[0] == last), key=_place)
        assert entry[2].key is not None
        waiting = self._keys[entry[2].key].parked
        waiting.remove(entry)
        heapify(waiting)
        self.parked -= 1
        return entry[2]

    def clear(self) -> list[Message]:
        """Take out all that are parked."""
        taken = [message for state in self._keys.values() for _, _, message in sorted(state.parked, key=_place)]
        self.parked = 0
        for key, state in list(self._keys.items()):
            state.parked.clear()
            self._successor(key, state)
        return taken

    def _successor(self, key: str, state: _Key) -> Message | None:
        if state.parked and (not state.loose or state.parked[0][:2] < min(state.loose)):
            rank, sequence, message = heappop(state.parked)
            self.parked -= 1
            state.loose.append((rank, sequence))
            return message
        if state.owner is None and not state.parked and not state.loose:
            del self._keys[key]
        return None


def _place(entry: tuple[int, int, Message]) -> tuple[int, int]:
    return entry[:2]
