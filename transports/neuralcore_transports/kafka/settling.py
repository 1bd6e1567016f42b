"""Settlements go to those whose deliveries they are: a group's member, or the broadcasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from neuralcore.messaging.transport import Settlement, SettleStatus

__all__ = ["Settler", "Settling"]


class Settler(Protocol):
    async def settle(self, settlements: Sequence[Settlement]) -> list[SettleStatus]: ...


class Settling:
    def __init__(self, late: Callable[[Iterable[str]], None]) -> None:
        """``late`` hears of the channels of those that came after their lease was lost."""
        self._late = late

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleStatus]:
        """Mostly they are one's."""
        owners: list[Settler] = [each.delivery.lease.partition.owner for each in settlements]  # type: ignore[attr-defined]
        if len(set(owners)) == 1:
            return self._counted(settlements, await owners[0].settle(settlements))
        statuses = [SettleStatus.UNKNOWN] * len(settlements)

        async def settle(owner: Settler) -> None:
            its = [index for index, each in enumerate(owners) if each is owner]
            for index, status in zip(its, await owner.settle([settlements[i] for i in its]), strict=True):
                statuses[index] = status

        await asyncio.gather(*map(settle, set(owners)))
        return self._counted(settlements, statuses)

    def _counted(self, settlements: Sequence[Settlement], statuses: Sequence[SettleStatus]) -> Sequence[SettleStatus]:
        if SettleStatus.LEASE_LOST in statuses:
            self._late(
                settlement.delivery.envelope.channel
                for settlement, status in zip(settlements, statuses, strict=True)
                if status is SettleStatus.LEASE_LOST
            )
        return statuses
