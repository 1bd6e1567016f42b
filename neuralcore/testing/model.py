"""What a mailbox should do, in the plainest words: the model that simulations compare the bus with.

Slow and obvious on purpose: lists, and one rule for each promise.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Entry", "ModelMailbox"]

Verdict = Literal["taken", "dropped", "refused"]


@dataclass(eq=False)
class Entry:
    """One message in one mailbox."""

    payload: int
    rank: int
    key: str | None = None
    attempt: int = 1
    due: float = 0.0
    """Not handled before this time."""
    order: tuple[int, int] = (0, 0)
    """Among its equals."""


@dataclass
class ModelMailbox:
    capacity: int
    overflow: Literal["block", "drop_new", "drop_old", "reject"]
    hold_keys: bool = True
    waiting: list[Entry] = field(default_factory=list)
    """Queued, parked and delayed."""
    in_flight: list[Entry] = field(default_factory=list)
    held: dict[str, Entry] = field(default_factory=dict)
    """Keys that a failed message keeps until it is done."""
    dropped: int = 0
    acked: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def used(self) -> int:
        """Slots: what is in flight or delayed keeps its own."""
        return len(self.waiting) + len(self.in_flight)

    def asks(self) -> Verdict:
        """What a publisher is told, before anything changes."""
        if self.used < self.capacity:
            return "taken"
        if self.overflow == "drop_new":
            return "dropped"
        if self.overflow == "drop_old":
            return "taken" if self._victim() is not None else "dropped"
        return "refused"

    def enter(self, entry: Entry, now: float) -> None:
        """After ``asks`` said what: take it, or count it as dropped."""
        if self.asks() == "dropped":
            self.dropped += 1
            return
        if self.used >= self.capacity:
            victim = self._victim()
            assert victim is not None
            self.waiting.remove(victim)
            self.dropped += 1
        entry.order = (1, next(self._numbers))
        self.waiting.append(entry)
        self.wake(now)

    def _victim(self) -> Entry | None:
        """The least urgent waiting message, the oldest of those; what is delayed or in flight keeps its slot."""
        queued = [entry for entry in self.waiting if not entry.due]
        return min(queued, key=lambda entry: (-entry.rank, entry.order), default=None)

    def wake(self, now: float) -> None:
        """What has become due takes its place behind its equals."""
        for entry in sorted(self.waiting, key=lambda other: (other.due, other.order)):
            if entry.due and entry.due <= now:
                entry.due, entry.order = 0.0, (1, next(self._numbers))

    def next_due(self) -> float | None:
        return min((entry.due for entry in self.waiting if entry.due), default=None)

    def candidates(self) -> list[Entry]:
        """What may be handled next: of the most urgent rank, the first without a key, and the first of each key."""
        ready = [entry for entry in self.waiting if not entry.due and not self._blocked(entry)]
        best = min((entry.rank for entry in ready), default=None)
        firsts: dict[str | None, Entry] = {}
        for entry in sorted((e for e in ready if e.rank == best), key=lambda other: other.order):
            firsts.setdefault(entry.key, entry)
        return list(firsts.values())

    def _blocked(self, entry: Entry) -> bool:
        if entry.key is None:
            return False
        holder = self.held.get(entry.key)
        if holder is not None and holder is not entry:
            return True
        return any(other.key == entry.key for other in self.in_flight)

    def start(self, entry: Entry) -> None:
        self.waiting.remove(entry)
        self.in_flight.append(entry)

    def ack(self, entry: Entry) -> None:
        self.in_flight.remove(entry)
        self.acked += 1
        self._free(entry)

    def fail(self, entry: Entry, now: float, delay: float) -> None:
        self.in_flight.remove(entry)
        entry.attempt += 1
        entry.due = now + delay if delay else 0.0
        entry.order = (1, next(self._numbers))
        if entry.key is not None and self.hold_keys:
            self.held[entry.key] = entry
        self.waiting.append(entry)

    def release(self, entry: Entry) -> None:
        """Before its equals; its key is free for what is more urgent."""
        self.in_flight.remove(entry)
        self._free(entry)
        entry.order = (0, -next(self._numbers))
        self.waiting.append(entry)

    def _free(self, entry: Entry) -> None:
        if entry.key is not None and self.held.get(entry.key) is entry:
            del self.held[entry.key]
