"""Ending a bus: drain inside a deadline, give back the rest, and say what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.intakes import Intakes
from neuralcore.messaging.link import Link
from neuralcore.messaging.stream import Stream

if TYPE_CHECKING:
    from neuralcore.messaging.subscription import Subscription

__all__ = ["CloseReport", "Closing"]

_SHORTEST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseReport:
    """What ``close`` achieved."""

    drained: bool
    """Everything was handled inside the deadline."""
    handled: int
    """Messages settled while closing."""
    released: int
    """Given back to the transport, which delivers them again."""
    abandoned: int
    """Gone with the process: only on a transport that does not outlive it."""


class Closing:
    """One shutdown, on the bus's home loop, after publishers are refused."""

    def __init__(self, context: BusContext, link: Link, intakes: Intakes, *, hurried: Callable[[], bool]) -> None:
        self._context = context
        self._link = link
        self._intakes = intakes
        self._hurried = hurried

    async def run(
        self, subscriptions: Iterable[Subscription], streams: Iterable[Stream], *, timeout: float | None
    ) -> CloseReport:
        """Without a timeout nothing is waited for."""
        before = self._handled()
        await self._link.quiesce()
        drained = timeout is not None and await self._drain(timeout)
        self._link.refuse()
        intakes = list(self._intakes)
        for workers in [subscription.workers for subscription in subscriptions]:
            if workers is not None:
                await self._intakes.cancel(workers)
        handled = self._handled() - before
        for stream in list(streams):
            await stream.give_back()
        left = [await self._intakes.end(intake) for intake in intakes]
        released, abandoned = sum(gave for gave, _ in left), sum(lost for _, lost in left)
        return CloseReport(
            drained=drained and not released and not abandoned,
            handled=handled,
            released=released,
            abandoned=abandoned,
        )

    async def _drain(self, timeout: float) -> bool:
        """Wait until nothing is left to handle; False when the deadline, or a hurry, came first."""
        clock = self._context.clock
        deadline = clock.monotonic_ns() + int(timeout * 1e9)
        pause = 0.0
        while self._link.outstanding(deadline):
            if self._hurried() or clock.monotonic_ns() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2 or _SHORTEST_PAUSE)
        return True

    def _handled(self) -> int:
        return sum(intake.mailbox.stats().acked for intake in self._intakes)
