"""How many messages a mailbox takes, and what it does when it is full."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, get_args

from neuralcore._options import check_integers, check_required
from neuralcore.fallback.settler import Overflow

if TYPE_CHECKING:
    from neuralcore.fallback.effects import After
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.store import Store

__all__ = ["CLOSED", "DEADLOCK", "DESERTED", "DROPPED", "FULL", "GRANTED", "KINDS", "REJECTED", "Slots", "Waiter"]

GRANTED: Final = 0
DROPPED: Final = 1
FULL: Final = 2
REJECTED: Final = 3
CLOSED: Final = 4
DEADLOCK: Final = 5
DESERTED: Final = 6

KINDS: Final = {FULL: "full", REJECTED: "full", CLOSED: "closed", DEADLOCK: "deadlock", DESERTED: "loop_closed"}
"""What the router's errors are called."""

_SHUT: Final = 2**62
"""By how much the ceiling of a mailbox that takes nothing is lowered."""


class Waiter(Protocol):
    """A publish that waits for a slot. Its methods are called under the mailbox's lock."""

    pump: Pump | None
    """The worker of this same mailbox in whose handler it was published."""

    def granted(self, mailbox: Mailbox, after: After, /) -> None:
        """A slot is its own now."""

    def reconsider(self, mailbox: Mailbox, after: After, /) -> None:
        """The policy has changed, and it does not wait any more."""

    def closed(self, mailbox: Mailbox, after: After, /) -> None:
        """The mailbox takes nothing more."""


class Slots:
    """A slot is taken on entry and given back at the end; while publishers wait, none is free.

    Both directions are counted by numbers that only grow, so that hot paths change one each: a publish ``taken``, an
    acknowledgement ``ceiling``. There is room while ``taken < ceiling``.
    """

    __slots__ = (
        "capacity",
        "ceiling",
        "closed",
        "deserted",
        "dropped",
        "freed",
        "overflow",
        "reserved",
        "taken",
        "waiters",
    )

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.taken = 0
        self.ceiling = 0
        self.freed = 0
        """Slots given back by other ways than an acknowledgement."""
        self.reserved = 0
        """Slots of publishes that have not entered yet."""
        self.dropped = 0
        self.closed = False
        self.deserted = False
        """The loops of all workers that there were are closed."""
        self.capacity = 0
        self.waiters: deque[Waiter] = deque()
        self.configure(capacity, overflow)

    @property
    def used(self) -> int:
        return self.taken - self.acked - self.freed

    @property
    def acked(self) -> int:
        return self.ceiling - self.capacity - self.freed + (_SHUT if self.closed or self.deserted else 0)

    def configure(self, capacity: int, overflow: Overflow) -> None:
        check_integers(capacity=capacity)
        check_required(overflow=overflow)
        if capacity < 1:
            raise ValueError(f"a mailbox has a capacity of 1 or more, not {capacity}")
        if overflow not in get_args(Overflow):
            raise ValueError(f"{overflow!r} is no overflow policy; choose one of {', '.join(get_args(Overflow))}")
        self.ceiling += capacity - self.capacity
        self.capacity = capacity
        self.overflow: Overflow = overflow

    def close(self) -> None:
        self._shut()
        self.closed = True

    def desert(self) -> None:
        """Take nothing more before there is somebody again."""
        self._shut()
        self.deserted = True

    def resettle(self) -> None:
        if self.deserted:
            self.deserted = False
            self.ceiling += 0 if self.closed else _SHUT

    def _shut(self) -> None:
        if not (self.closed or self.deserted):
            self.ceiling -= _SHUT

    def take(self, store: Store) -> int:
        """A slot by the policy. One past the capacity is owed: something has to be evicted for it."""
        if self.taken < self.ceiling:
            self.taken += 1
            return GRANTED
        if self.closed:
            return CLOSED
        if self.deserted:
            return DESERTED
        if self.overflow == "block":
            return FULL
        if self.overflow == "reject":
            return REJECTED
        if self.overflow == "drop_old" and store.evictable() > self.reserved:
            self.taken += 1
            return GRANTED
        return DROPPED

    def owed(self) -> bool:
        return self.overflow == "drop_old" and self.taken > self.ceiling

    def free(self) -> None:
        """Give one back that is not acknowledged."""
        self.ceiling += 1
        self.freed += 1
