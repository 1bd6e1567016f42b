"""The deliveries that this client has in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from neuralcore.messaging.transport import Delivery, Outcome, Settlement, SettleStatus

__all__ = ["Lease", "Leases", "lease_of"]


class Lease(msgspec.Struct, frozen=True):
    """What names a delivery to the server: a pending entry of one consumer of one group."""

    base: str
    group: str
    consumer: str
    priority: int
    entry: str
    tried: bool
    """It came back: the server keeps count of its attempts."""
    since: float
    """Monotonic seconds."""

    @property
    def place(self) -> tuple[str, str, str]:
        return self.base, self.group, self.entry


class Leases:
    """On the client's loop; the keeper's thread reads."""

    def __init__(self, tell: Callable[[Sequence[Delivery]], None]) -> None:
        """``tell`` hears of those that were lost."""
        self._tell = tell
        self._held: dict[tuple[str, str, str], Delivery] = {}
        self._over: set[str] = set()

    def __len__(self) -> int:
        return len(self._held)

    def begin(self, delivery: Delivery) -> None:
        lease = lease_of(delivery)
        if lease is not None:
            self._held[lease.place] = delivery

    def holds(self, delivery: Delivery) -> bool:
        lease = lease_of(delivery)
        return lease is not None and self._held.get(lease.place) is delivery

    def end(self, delivery: Delivery) -> None:
        lease = lease_of(delivery)
        if lease is not None and self._held.get(lease.place) is delivery:
            del self._held[lease.place]

    def settle(self, settlement: Settlement, status: SettleStatus) -> SettleStatus:
        """What has become of it, when the server has answered so."""
        delivery = settlement.delivery
        lease = lease_of(delivery)
        if status is SettleStatus.SKIPPED:
            return status
        if settlement.outcome is Outcome.ATTEMPT and status is SettleStatus.SETTLED and lease is not None:
            delivery.lease = msgspec.structs.replace(lease, tried=True)
            return status
        if lease is not None and lease.group in self._over and self.holds(delivery):
            status = SettleStatus.SETTLED
        if status is SettleStatus.UNKNOWN:  # it is asked again, and is this client's until then
            return status
        self.end(delivery)
        return status

    def end_group(self, group: str) -> None:
        """Of a broadcast: what it has in flight is settled by itself."""
        self._over.add(group)

    def lose(self, deliveries: Iterable[Delivery]) -> None:
        lost = [delivery for delivery in deliveries if self.holds(delivery)]
        for delivery in lost:
            self.end(delivery)
        if lost:
            self._tell(lost)

    def doubtful(self, base: str, group: str) -> list[tuple[Delivery, Lease]]:
        """Those that another client may have by now."""
        if group in self._over:
            return []
        return [(each, lease) for each in self.of(base, group) if (lease := lease_of(each)) is not None]

    def of(self, base: str, group: str) -> list[Delivery]:
        return [d for (its_base, its_group, _), d in list(self._held.items()) if (its_base, its_group) == (base, group)]

    def places(self) -> set[tuple[str, str]]:
        return {(base, group) for base, group, _ in list(self._held)}

    def all(self) -> Iterator[Delivery]:
        yield from list(self._held.values())


def lease_of(delivery: Delivery) -> Lease | None:
    return delivery.lease if isinstance(delivery.lease, Lease) else None
