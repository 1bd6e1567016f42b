"""Leases and their owners.

A transport extends its leases from a thread of its own for as long as its process lives. The store models that
without a timer: an owner beats until it falls silent, and its leases run out one lease time after that moment, or when
they were held for too long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from neuralcore.messaging.transport import Delivery
from neuralcore.testing.memory.records import Entry, State

__all__ = ["Lease", "Leases", "Owner"]


@dataclass(eq=False, slots=True)
class Owner:
    """One client of the store: a process, as far as the store can tell."""

    name: str
    wake: Callable[[], None]
    """There are events to take, or the next one is due at another time than before."""
    silent_since: int | None = None
    leases: OrderedDict[int, Lease] = field(default_factory=OrderedDict)
    """Oldest first."""
    lost: list[Delivery] = field(default_factory=list)
    channels_changed: bool = False


@dataclass(eq=False, slots=True)
class Lease:
    number: int
    entry: Entry
    owner: Owner
    delivery: Delivery
    since: int
    charged: bool = False
    """Its attempt is stored already, because it was suspect."""


class Leases:
    def __init__(self, *, lease_ns: int, max_hold_ns: int) -> None:
        self.lease_ns = lease_ns
        self.max_hold_ns = max_hold_ns
        self._by_number: dict[int, Lease] = {}
        self._last = 0

    def grant(self, entry: Entry, owner: Owner, interest: int, mono: int) -> Delivery:
        self._last += 1
        delivery = Delivery(
            envelope=entry.record.envelope,
            interest=interest,
            attempt=entry.failed + 1,
            suspect=entry.suspect,
            lease=self._last,
        )
        lease = Lease(self._last, entry, owner, delivery, mono)
        self._by_number[lease.number] = owner.leases[lease.number] = lease
        entry.lease, entry.state = lease, State.LEASED
        return delivery

    def find(self, delivery: Delivery) -> Lease | None:
        return self._by_number.get(delivery.lease) if isinstance(delivery.lease, int) else None

    def end(self, lease: Lease) -> None:
        del self._by_number[lease.number]
        del lease.owner.leases[lease.number]
        lease.entry.lease = None

    def deadline(self, lease: Lease) -> int:
        """Monotonic."""
        held = lease.since + self.max_hold_ns
        silent = lease.owner.silent_since
        return held if silent is None else min(held, silent + self.lease_ns)

    def expired(self, owner: Owner, mono: int) -> Iterator[Lease]:
        """End and yield the leases whose time has run out."""
        while owner.leases:
            oldest = next(iter(owner.leases.values()))
            if self.deadline(oldest) > mono:
                return
            self.end(oldest)
            yield oldest

    def next(self, owner: Owner) -> int | None:
        return self.deadline(next(iter(owner.leases.values()))) if owner.leases else None
