"""The deliveries that this client has in flight, by the numbers of their leases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from neuralcore.messaging.transport import Delivery
from neuralcore_transports.sqlite.store.entries import Lease

__all__ = ["Leases"]

_EARLY = 10_000


class Leases:
    """On the client's loop."""

    def __init__(self, tell: Callable[[Sequence[Delivery]], None]) -> None:
        """``tell`` hears of those that were lost."""
        self._tell = tell
        self._held: dict[int, Delivery] = {}
        self._early: dict[int, None] = {}
        """Lost before the fetch that brings them has returned, or after they were settled."""

    def begin(self, deliveries: Iterable[Delivery]) -> None:
        lost = []
        for delivery in deliveries:
            number = _number(delivery)
            if number in self._early:
                lost.append(delivery)
            else:
                self._held[number] = delivery
        if lost:
            self._tell(lost)

    def end(self, delivery: Delivery) -> None:
        self._held.pop(_number(delivery), None)

    def lose(self, numbers: Iterable[int]) -> None:
        lost = []
        for number in numbers:
            delivery = self._held.pop(number, None)
            if delivery is None:
                self._early[number] = None
            else:
                lost.append(delivery)
        while len(self._early) > _EARLY:
            del self._early[next(iter(self._early))]
        if lost:
            self._tell(lost)

    def lose_all(self) -> None:
        self.lose(list(self._held))


def _number(delivery: Delivery) -> int:
    return delivery.lease.number if isinstance(delivery.lease, Lease) else -1
