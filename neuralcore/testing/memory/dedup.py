"""The window in which a message is stored only once."""

from __future__ import annotations

from collections import OrderedDict

from neuralcore.messaging.transport import Envelope

__all__ = ["DedupWindow"]


class DedupWindow:
    """Keys seen within ``window_ns``. A replay is a message of its own."""

    __slots__ = ("_seen", "window_ns")

    def __init__(self, window_ns: int) -> None:
        self.window_ns = window_ns
        self._seen: OrderedDict[tuple[str, int], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def has(self, envelope: Envelope, mono: int) -> bool:
        self._forget(mono)
        return _key(envelope) in self._seen

    def add(self, envelope: Envelope, mono: int) -> None:
        self._seen[_key(envelope)] = mono

    def _forget(self, mono: int) -> None:
        while self._seen:
            key, seen = next(iter(self._seen.items()))
            if mono - seen < self.window_ns:
                return
            del self._seen[key]


def _key(envelope: Envelope) -> tuple[str, int]:
    return envelope.dedup_key or envelope.id, envelope.replay
