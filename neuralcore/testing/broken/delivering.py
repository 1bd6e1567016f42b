"""Faults between the store and the handlers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from msgspec.structs import replace as replace_in

from neuralcore.messaging.transport import (
    Delivery,
    Demand,
    Envelope,
    Group,
    Interest,
    Outcome,
    Runtime,
    Settlement,
    Transport,
)
from neuralcore.testing.broken.wrapped import Deaf, Wrapped


class AcksEarly(Wrapped):
    """Settles at the fetch, and pretends to settle later."""

    async def fetched(self, deliveries: list[Delivery]) -> Sequence[Delivery]:
        await self.inner.commit([], [Settlement(delivery, Outcome.ACK) for delivery in deliveries])
        return deliveries

    def settling(self, settlement: Settlement) -> Settlement | None:
        return None


class ForgetsAttempts(Wrapped):
    def delivering(self, delivery: Delivery) -> Delivery:
        return replace_in(delivery, attempt=1)


class ForgetsCrashes(Wrapped):
    """What was lost with its process looks fresh, and its attempts are not stored."""

    def delivering(self, delivery: Delivery) -> Delivery:
        return replace_in(delivery, suspect=False)

    def settling(self, settlement: Settlement) -> Settlement | None:
        return None if settlement.outcome is Outcome.ATTEMPT else settlement


class IgnoresDemand(Wrapped):
    def demanding(self, demand: Demand) -> Demand:
        return replace(demand, limit=demand.limit + 1)


class LosesCancelledFetches(Wrapped):
    """Forgets what it has when the one who fetches is cancelled."""

    async def fetched(self, deliveries: list[Delivery]) -> Sequence[Delivery]:
        for _ in range(3):
            await asyncio.sleep(0)
        return deliveries


class ReversesBatches(Wrapped):
    async def fetched(self, deliveries: list[Delivery]) -> Sequence[Delivery]:
        return deliveries[::-1]


class DeliversToTwoMembers(Wrapped):
    """Every client has the group for itself."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._own = secrets.token_hex(4)

    def grouped(self, group: Group) -> Group:
        return group if group.name is None else Group(f"{group.name}-{self._own}")


class CrossesGroups(Wrapped):
    """All groups are one."""

    def grouped(self, group: Group) -> Group:
        return group if group.name is None else Group("everybody")


class MatchesTooMuch(Wrapped):
    """``*`` is taken for ``>``."""

    def reading(self, interest: Interest) -> Interest:
        if not interest.pattern.endswith(".*"):
            return interest
        return replace(interest, pattern=f"{interest.pattern[:-1]}>")


class StartsAtTheEnd(Wrapped):
    def reading(self, interest: Interest) -> Interest:
        return interest if interest.start is not None else replace(interest, start="new")


class AnswersTwice(Wrapped):
    def answered(self, replies: Sequence[Envelope]) -> Sequence[Envelope]:
        return [reply for reply in replies for _ in range(2)]


class ForgetsExpiryOnRetry(Wrapped):
    def delivering(self, delivery: Delivery) -> Delivery:
        if delivery.attempt > 1:
            delivery.envelope = replace_in(delivery.envelope, expires_at_ns=None)
        return delivery


class HidesLosses(Wrapped):
    """Tells nobody that a lease was lost."""

    async def open(self, runtime: Runtime) -> None:
        await super().open(cast("Runtime", Deaf(runtime, "lost")))
