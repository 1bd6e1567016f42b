"""Brings subscriptions to life and ends them: finds or makes their intake, starts and stops their workers."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from neuralcore._core import Mailbox
from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.link import Link
from neuralcore.messaging.loops import in_loop, on_loop
from neuralcore.messaging.metrics import SubscriptionMetrics
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.workers import Workers

if TYPE_CHECKING:
    from neuralcore.messaging.subscription import Subscription

__all__ = ["Intakes"]

_GRACE = 5.0
"""Seconds that a cancelled handler has to end."""


class Intakes:
    """Those of one bus."""

    def __init__(self, context: BusContext, link: Link) -> None:
        self._context = context
        self._link = link
        self._all: dict[Intake, None] = {}
        self._shared: dict[tuple[str, str], Intake] = {}
        """Those that take members, by group and pattern."""
        self._ended: dict[tuple[str, str | None], SubscriptionMetrics] = {}
        """What ended intakes counted, by pattern and group: counters never go back."""
        self._leaving: dict[Workers, None] = {}
        """Those of subscriptions that were ended and still have something to handle, oldest first."""
        self._background: set[asyncio.Task[None]] = set()
        """What brings these to their end, whether somebody waits for it or not."""
        self.released = 0
        """Messages that ended intakes gave back …"""
        self.lost = 0
        """… and that are gone with them."""
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Intake]:
        return iter(list(self._all))

    def open(self, terms: Terms) -> Intake:
        """The intake of a group on a pattern, shared; for a broadcast, one of its own."""
        self._link.check(terms)
        with self._lock:
            shared = terms.shared
            intake = None if shared is None else self._shared.get(shared)
            if intake is not None:
                intake.join(terms, self._context)
                return intake
            intake = self._make(terms)
            self._all[intake] = None
            if shared is not None:
                self._shared[shared] = intake
        self._link.attach(intake)
        return intake

    def start(
        self, subscription: Subscription, call: Callable[[Any], Any], loop: asyncio.AbstractEventLoop
    ) -> tuple[Intake, Workers]:
        intake = self.open(subscription.terms)
        intake.members.append(subscription)
        workers = Workers(
            self._context,
            intake,
            call,
            loop=loop,
            concurrency=subscription.concurrency,
            batch=subscription.batch,
            timeout=subscription.timeout,
            name=subscription.name,
        )
        on_loop(loop, workers.start)
        return intake, workers

    def open_stream(self, terms: Terms) -> Intake:
        intake = self.open(terms)
        intake.streams += 1
        return intake

    async def end_stream(self, intake: Intake) -> None:
        intake.streams -= 1
        if intake.deserted:
            await self.end(intake)

    async def stop(
        self, intake: Intake, subscription: Subscription, workers: Workers, *, drain: bool, timeout: float
    ) -> None:
        """Goes on in the background when one of these workers' own handlers asks for it, or its caller is cancelled."""
        intake.members.remove(subscription)
        self._leaving[workers] = None
        last = intake.deserted
        if last:
            self.retire(intake)
            if drain:
                intake.mailbox.close()
        if not (last and drain):
            await in_loop(workers.loop, workers.stop, cancel=not drain)
        ending = self._finish(intake if last else None, workers, timeout)
        task = asyncio.get_running_loop().create_task(ending, name=f"end of {workers.name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        if not workers.owns(asyncio.current_task()):
            await asyncio.shield(task)

    async def _finish(self, intake: Intake | None, workers: Workers, timeout: float) -> None:
        """Wait for the workers, and end the intake when they were its last ones."""
        try:
            if not await in_loop(workers.loop, workers.finish, timeout):
                await self.cancel(workers)
            if intake is not None:
                await self.discard(intake)
        finally:
            self._leaving.pop(workers, None)

    @property
    def leaving(self) -> list[Workers]:
        return list(self._leaving)

    async def end_background(self) -> None:
        """Once no worker is left to wait for."""
        for task in list(self._background):
            await in_loop(task.get_loop(), _end, task)

    async def cancel(self, workers: Workers) -> None:
        """End the workers now; what they handle is given back. One that resists cancellation is left behind."""
        await in_loop(workers.loop, workers.stop, cancel=True)
        if not await in_loop(workers.loop, workers.finish, _GRACE):
            log.error("%s ignores its cancellation; it is left behind", workers.name)

    async def end(self, intake: Intake) -> None:
        self.retire(intake)
        await self.discard(intake)

    def retire(self, intake: Intake) -> None:
        """Nothing more comes in; the next member opens an intake of its own."""
        self._link.detach(intake)
        with self._lock:
            intake.ending = True
            shared = intake.terms.shared
            if shared is not None and self._shared.get(shared) is intake:
                del self._shared[shared]

    async def discard(self, intake: Intake) -> None:
        """Give back what is in a retired intake without workers; what is lost counts as dropped.

        In process, a handler that could not be stopped takes its message with it.
        """
        with self._lock:
            if intake not in self._all:
                return
            del self._all[intake]
        intake.mailbox.close()
        stuck = intake.mailbox.stats().in_flight if self._link.capabilities.in_process else 0
        left = intake.mailbox.clear()
        final = intake.metrics()
        self._remember(final)
        released, lost = await self._link.discard(intake, left)
        lost += stuck
        self.released += released
        self.lost += lost
        self._remember(SubscriptionMetrics(pattern=final.pattern, group=final.group, dropped=lost))

    def reconfigure(self, channel: str) -> None:
        """A channel was configured: what its subscriptions left to it takes effect at once."""
        for intake in self:
            if intake.terms.pattern == channel:
                capacity, overflow = intake.terms.bounds(self._context)
                intake.mailbox.configure(capacity=capacity, overflow=overflow)

    def metrics(self) -> tuple[SubscriptionMetrics, ...]:
        """One for each living intake, and one for all ended ones of a pattern and group."""
        return tuple(intake.metrics() for intake in self) + tuple(self._ended.values())

    def _remember(self, final: SubscriptionMetrics) -> None:
        """Its counters: what is gone has no depth."""
        key = (final.pattern, final.group)
        past = self._ended.get(key) or SubscriptionMetrics(pattern=final.pattern, group=final.group)
        self._ended[key] = past.plus(final)

    def _make(self, terms: Terms) -> Intake:
        settlement = self._link.settlement(terms)
        capacity, overflow = terms.bounds(self._context)
        settlement.mailbox = Mailbox(
            self._context.clock,
            settlement,
            capacity=capacity,
            overflow=overflow,
            hold_keys=terms.hold_keys,
        )
        return Intake(next(self._ids), terms, settlement.mailbox, settlement)


async def _end(task: asyncio.Task[None]) -> None:
    if not (await asyncio.wait({task}, timeout=_GRACE))[0]:
        task.cancel()
        await asyncio.wait({task})
