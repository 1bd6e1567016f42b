"""Fetches what one group's intakes (or the bus's broadcasts) have room for, for as long as there are any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.remote.backoff import Backoff
from neuralcore.messaging.remote.declarations import Declarations
from neuralcore.messaging.remote.polling import poll_seconds
from neuralcore.messaging.remote.refusal import refuses
from neuralcore.messaging.remote.settlement import RemoteSettlement
from neuralcore.messaging.remote.signal import Signal
from neuralcore.messaging.transport import Consumer, Cursor, Delivery, Demand, Group, Interest, Transport

__all__ = ["Feeder", "settlement_of"]


class Feeder:
    """One consumer. On the home loop; it never stops silently: what goes wrong is counted, logged and tried again."""

    def __init__(
        self,
        context: BusContext,
        transport: Transport,
        declarations: Declarations,
        group: str | None,
        *,
        release: Callable[[Delivery], None],
    ) -> None:
        self._context = context
        self._transport = transport
        self._declarations = declarations
        self._group = group
        self._release = release
        self._intakes: dict[int, Intake] = {}
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._told: tuple[int, ...] = ()
        """The interests that the transport knows of."""
        self._signal = Signal(context)
        self._consumer: Consumer | None = None
        self._paused = False
        self._poll = poll_seconds(context.clock)
        self._backoff = Backoff(f"fetching for {'broadcasts' if group is None else group}", context.rng)
        self._task = context.loop.create_task(self._run(), name=f"{context.bus_id} feeder of {group or 'broadcasts'}")

    # What it feeds

    def add(self, intake: Intake) -> None:
        self._intakes[intake.id] = intake
        self._ready[intake.id] = self._context.loop.create_future()
        settlement_of(intake).holding.on_room = self._signal.set
        self._signal.set()

    def remove(self, intake: Intake) -> None:
        self._intakes.pop(intake.id, None)
        self._forget_ready(intake.id)
        self._signal.set()

    async def ready(self, intake: Intake) -> None:
        """Returns once the transport has fixed the position. Raises what it has against that."""
        ready = self._ready.get(intake.id)
        if ready is not None:
            await asyncio.shield(ready)

    async def seek(self, intake: Intake, position: Cursor) -> None:
        """For one that is ready. Raises what the transport has against it."""
        assert self._consumer is not None, "the position of a ready one was fixed by the consumer"
        await self._consumer.seek(intake.id, position)
        self._signal.set()

    def pause(self) -> None:
        """Fetch nothing more."""
        self._paused = True
        self._signal.set()

    async def close(self) -> None:
        self._paused = True
        for id in list(self._ready):
            self._forget_ready(id)
        self._intakes.clear()
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._consumer is not None:
            await self._consumer.close()

    def _forget_ready(self, id: int) -> None:
        ready = self._ready.pop(id, None)
        if ready is not None and not ready.done():
            ready.cancel()

    # The loop

    async def _run(self) -> None:
        while True:
            await self._try()

    async def _try(self) -> None:
        try:
            await self._step()
            self._backoff.worked()
        except Exception as error:  # noqa: BLE001 - a feeder outlives whatever its transport raises
            self._context.count("reconnects")
            await self._backoff.wait(error)

    async def _step(self) -> None:
        self._signal.clear()
        if self._consumer is None:
            self._consumer = await self._transport.consume(Group(self._group))
        await self._tell(self._consumer)
        demand = {} if self._paused else self._demand()
        if any(wanted.limit for wanted in demand.values()):
            await self._fetch(self._consumer, demand)
        else:
            await self._signal.wait()

    async def _tell(self, consumer: Consumer) -> None:
        """Bring the transport's idea of the interests up to date."""
        if self._told == tuple(self._intakes):
            return
        await self._declarations.flush()
        known = dict(self._intakes)
        try:
            await self._update(consumer, known)
        except Exception as error:
            if not refuses(error):
                raise
            await self._find_refused(consumer, known, error)

    async def _update(self, consumer: Consumer, known: Mapping[int, Intake]) -> None:
        await consumer.update([_interest(intake) for intake in known.values()])
        self._told = tuple(known)
        for id in known:
            ready = self._ready.get(id)
            if ready is not None and not ready.done():
                ready.set_result(None)

    async def _find_refused(self, consumer: Consumer, known: Mapping[int, Intake], error: Exception) -> None:
        """One of the new ones is at fault: each is tried by itself, and the others go on. Raises when none is new."""
        good = {id: intake for id, intake in known.items() if id in self._told}
        new = {id: intake for id, intake in known.items() if id not in good}
        if not new:
            raise error
        for id, intake in new.items():
            if await self._takes(consumer, good, id, intake):
                good[id] = intake
        await self._update(consumer, good)

    async def _takes(self, consumer: Consumer, good: Mapping[int, Intake], id: int, intake: Intake) -> bool:
        try:
            await self._update(consumer, {**good, id: intake})
        except Exception as error:
            if not refuses(error):
                raise
            self._reject(id, error)
            return False
        return True

    def _reject(self, id: int, error: Exception) -> None:
        """Who waits for it is told."""
        intake = self._intakes.pop(id, None)
        if intake is None:  # ended meanwhile
            return
        log.error("the transport refuses the subscription to %r: %s", intake.terms.pattern, error)
        ready = self._ready.get(id)
        if ready is not None and not ready.done():
            ready.set_exception(error)
            ready.exception()  # nobody may ask; it was logged

    def _demand(self) -> dict[int, Demand]:
        return {
            id: settlement_of(intake).holding.demand(intake) for id, intake in self._intakes.items() if id in self._told
        }

    async def _fetch(self, consumer: Consumer, demand: Mapping[int, Demand]) -> None:
        """Fetch until something comes, or something else is wanted."""
        fetching = asyncio.ensure_future(self._fetch_and_accept(consumer, demand))
        try:
            await self._signal.wait(fetching)
        finally:
            fetching.cancel()
            await asyncio.wait({fetching})
            error = None if fetching.cancelled() else fetching.exception()
        if error is not None:
            raise error

    async def _fetch_and_accept(self, consumer: Consumer, demand: Mapping[int, Demand]) -> None:
        """In one task: who waits for it would be woken two turns of the loop later."""
        self._accept(await consumer.fetch(demand, self._poll))

    def _accept(self, deliveries: Sequence[Delivery]) -> None:
        windows = self._windows(len(deliveries))
        accepted = 0
        try:
            for delivery in deliveries:
                self._accept_one(delivery, windows)
                accepted += 1
        except BaseException:
            for left in deliveries[accepted:]:
                self._release(left)
            raise

    def _accept_one(self, delivery: Delivery, windows: Mapping[int, int]) -> None:
        intake = self._intakes.get(delivery.interest)
        if intake is None or intake.mailbox.closed:
            self._release(delivery)
            return
        settlement = settlement_of(intake)
        message = settlement.accept(delivery)
        window = windows.get(intake.id)
        if window is not None and message is not None and settlement.holding.exceeds(intake, window):
            _relax(intake, settlement, message.priority)

    def _windows(self, coming: int) -> dict[int, int]:
        """Of those that may have more than they want, once so many have come."""
        windows = {id: settlement_of(intake).holding.window(intake) for id, intake in self._intakes.items()}
        return {
            id: window
            for id, window in windows.items()
            if settlement_of(self._intakes[id]).holding.exceeds(self._intakes[id], window, coming)
        }


def _relax(intake: Intake, settlement: RemoteSettlement, rank: int) -> None:
    """Past its window, a mailbox gives back what is least urgent, if that is less urgent than what came."""
    victim = intake.mailbox.take_relaxed(rank)
    if victim is not None:
        settlement.give_back_soon(victim)


def settlement_of(intake: Intake) -> RemoteSettlement:
    assert isinstance(intake.settlement, RemoteSettlement), "a remote link's intakes have its settlements"
    return intake.settlement


def _interest(intake: Intake) -> Interest:
    terms = intake.terms
    return Interest(id=intake.id, pattern=terms.pattern, start=terms.start, hold_keys=terms.hold_keys)
