"""How many messages a mailbox takes, and who waits for room."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, get_args

from neuralcore.fallback.settler import Overflow

if TYPE_CHECKING:
    from neuralcore.fallback.reservation import Reservation
    from neuralcore.fallback.workers import Workers

__all__ = ["CLOSED", "DEADLOCK", "DROPPED", "FULL", "GRANTED", "REJECTED", "Slots"]

GRANTED: Final = 0
DROPPED: Final = 1
FULL: Final = 2
REJECTED: Final = 3
CLOSED: Final = 4
DEADLOCK: Final = 5


class Slots:
    """A slot is taken on entry and given back at the end; while publishers wait, none is free."""

    __slots__ = ("_workers", "capacity", "dropped", "limit", "overflow", "reserved", "used", "waiters")

    def __init__(self, capacity: int, overflow: Overflow, workers: Workers) -> None:
        self.used = 0
        self.reserved = 0
        """Of those, how many belong to publishes that have not entered yet."""
        self.dropped = 0
        self.waiters: deque[Reservation] = deque()
        self._workers = workers
        self.configure(capacity, overflow)

    def configure(self, capacity: int, overflow: Overflow) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox has a capacity of 1 or more, not {capacity}")
        if overflow not in get_args(Overflow):
            raise ValueError(f"{overflow!r} is no overflow policy; choose one of {', '.join(get_args(Overflow))}")
        self.capacity = capacity
        self.overflow: Overflow = overflow
        self.limit = capacity
        """What hot paths compare with: below zero once the mailbox is closed."""

    def close(self) -> None:
        self.limit = -1

    def reserve(self, reservation: Reservation | None, evictable: int) -> int:
        """A slot by the policy, or for a reservation a place among those that wait."""
        if self.limit < 0:
            return CLOSED
        if self.used < self.limit or (self.overflow == "drop_old" and evictable > self.reserved):
            self.used += 1
            self.reserved += 1
            return GRANTED
        if self.overflow == "reject":
            return REJECTED
        if self.overflow != "block":
            self.dropped += 1
            return DROPPED
        if reservation is None:
            return FULL
        if reservation.pump is not None and not self._workers.block(reservation.pump, self.used):
            return DEADLOCK
        self.waiters.append(reservation)
        return FULL

    def owes(self) -> bool:
        """A slot past the capacity was granted, for which an older message has to go."""
        return self.overflow == "drop_old" and self.used > self.limit

    def free(self) -> list[Reservation]:
        """Give one back. Answers whose it is now."""
        self.used -= 1
        return self.grant() if self.waiters else []

    def grant(self) -> list[Reservation]:
        granted = []
        while self.waiters and self.used < self.limit:
            self.used += 1
            self.reserved += 1
            granted.append(self.leave(self.waiters[0]))
        return granted

    def leave(self, reservation: Reservation) -> Reservation:
        """It waits no longer."""
        self.waiters.remove(reservation)
        if reservation.pump is not None:
            self._workers.unblock(reservation.pump)
        return reservation
