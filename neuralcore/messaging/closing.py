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
    from neuralcore.messaging.workers import Workers

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
    interrupted: int = 0
    """Handlers that still ran at the deadline and were cancelled, also those that had settled their message early."""


class Closing:
    """One shutdown, on the bus's home loop, after publishers are refused."""

    def __init__(self, context: BusContext, link: Link, intakes: Intakes, *, hurried: Callable[[], bool]) -> None:
        self._context = context
        self._link = link
        self._intakes = intakes
        self._hurried = hurried

    async def run(
        self, workers: Callable[[], list[Workers]], streams: Iterable[Stream], *, timeout: float | None
    ) -> CloseReport:
        """Without a timeout nothing is waited for."""
        intakes = self._intakes
        before = self._handled(), intakes.released, intakes.lost
        await self._link.quiesce()
        drained = timeout is not None and await self._drain(timeout, workers)
        self._link.refuse()
        interrupted = _busy(workers())
        for each in workers():
            await intakes.cancel(each)
        await intakes.end_background()
        handled = self._handled() - before[0]
        for stream in list(streams):
            await stream.give_back()
        for intake in intakes:
            await intakes.end(intake)
        released, abandoned = intakes.released - before[1], intakes.lost - before[2]
        return CloseReport(
            drained=drained and not released and not abandoned and not interrupted,
            handled=handled,
            released=released,
            abandoned=abandoned,
            interrupted=interrupted,
        )

    async def _drain(self, timeout: float, workers: Callable[[], list[Workers]]) -> bool:
        """Wait until nothing is left to handle and no handler runs; False when the deadline, or a hurry, came first."""
        clock = self._context.clock
        deadline = clock.monotonic_ns() + int(timeout * 1e9)
        pause = 0.0
        while self._link.outstanding(deadline) or _busy(workers()):
            if self._hurried() or clock.monotonic_ns() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2 or _SHORTEST_PAUSE)
        return True

    def _handled(self) -> int:
        return sum(metrics.acked for metrics in self._intakes.metrics())


def _busy(workers: Iterable[Workers]) -> int:
    """Handlers that run; one that has settled its message early is not outstanding, but not done either."""
    return sum(each.busy for each in workers)
