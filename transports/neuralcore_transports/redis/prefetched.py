"""What a consumer was handed, and nobody has asked for yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from neuralcore.messaging.transport import Delivery, Demand
from neuralcore_transports.redis.agenda import Place
from neuralcore_transports.redis.client import Found
from neuralcore_transports.redis.entries import envelope_of
from neuralcore_transports.redis.leases import Lease, Leases, lease_of

__all__ = ["Prefetched"]


class Prefetched:
    """It asks no server. Whatever is here is leased, and somebody has to take it or give it back."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._deliveries: list[Delivery] = []

    def __len__(self) -> int:
        return len(self._deliveries)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._deliveries)

    def add(self, place: Place, entries: Iterable[Found]) -> None:
        """Their leases begin."""
        for priority, entry, failed, suspect, fields, tried in entries:
            id = entry.decode()
            delivery = Delivery(
                envelope=envelope_of(place.channel, priority, id, fields),
                interest=place.interest,
                attempt=failed + 1,
                suspect=bool(suspect),
                lease=Lease(place.base, place.group, place.consumer, priority, id, bool(tried), time.monotonic()),
            )
            self._leases.begin(delivery)
            self._deliveries.append(delivery)

    def take(self, demand: Mapping[int, Demand]) -> list[Delivery]:
        """Of what is here what is asked for, most urgent first."""
        if not self._deliveries:
            return []
        left = {id: wanted.limit for id, wanted in demand.items()}
        taken, kept = [], []
        for delivery in sorted(self._deliveries, key=lambda each: each.envelope.priority):
            id = delivery.interest
            bound = demand[id].more_urgent_than if id in demand else None
            if left.get(id, 0) > 0 and (bound is None or delivery.envelope.priority < bound):
                left[id] -= 1
                taken.append(delivery)
            else:
                kept.append(delivery)
        self._deliveries = kept
        return taken

    def remove(self, which: Callable[[Delivery], bool]) -> list[Delivery]:
        """Those, and they are no longer here. What becomes of their leases is the caller's to say."""
        gone: list[Delivery] = []
        kept: list[Delivery] = []
        for delivery in self._deliveries:
            (gone if which(delivery) else kept).append(delivery)
        self._deliveries = kept
        return gone

    def missing(self, demand: Mapping[int, Demand]) -> dict[int, int]:
        """How much of each demand is not here."""
        left = {id: wanted.limit for id, wanted in demand.items()}
        for delivery in self._deliveries:
            if delivery.interest in left:
                left[delivery.interest] -= 1
        return left

    def since(self, moment: float) -> set[tuple[str, str]]:
        """Bases and groups of what has been here since then, or longer."""
        leases = [lease for each in self._deliveries if (lease := lease_of(each)) is not None]
        return {(lease.base, lease.group) for lease in leases if lease.since <= moment}
