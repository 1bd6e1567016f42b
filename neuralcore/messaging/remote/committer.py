"""Group commit: publishers and settlements that come together share one call of the transport.

One that comes alone waits for nobody. There is one commit at a time, so that a publisher's messages stay in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from neuralcore._core import Message
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import Closed, NotStored, TransportError, Unavailable
from neuralcore.messaging.remote.acks import Acks
from neuralcore.messaging.remote.backoff import Backoff
from neuralcore.messaging.remote.batch import MOST_BYTES, MOST_ITEMS, Batch
from neuralcore.messaging.remote.declarations import Declarations
from neuralcore.messaging.remote.lanes import Lanes
from neuralcore.messaging.remote.signal import Signal
from neuralcore.messaging.remote.work import Done, Work
from neuralcore.messaging.transport import (
    CommitResult,
    Delivery,
    Envelope,
    PublishStatus,
    Settlement,
    SettleStatus,
    Transport,
)

__all__ = ["Committer"]

_PATIENCE_NS = 5_000_000_000
"""How long a closing bus goes on trying what the transport does not answer."""
_LEAST = 64
"""Items that are tried together, however often there was no room for more: nothing may be stored at all for a while."""


class Committer:
    """``submit`` from any thread; everything else on the home loop."""

    def __init__(self, context: BusContext, transport: Transport, declarations: Declarations) -> None:
        self._context = context
        self._transport = transport
        self._declarations = declarations
        self._queue: deque[Work] = deque()
        self._lanes = Lanes(context, self._offer_first)
        self._signal = Signal(context)
        self._task: asyncio.Task[None] | None = None
        self._unfinished = 0
        """Persistent works that are not done yet."""
        self._quiet: asyncio.Future[None] | None = None
        self._closing = False
        self._closed = False
        self._backoff = Backoff("a commit", context.rng)
        self._most = MOST_ITEMS
        """Items that are tried again together: fewer after each time that there was no room for them."""

    @property
    def unfinished(self) -> int:
        """Settlements and dead letters that the transport has not confirmed."""
        return self._unfinished

    def start(self) -> None:
        self._task = self._context.loop.create_task(self._run(), name=f"{self._context.bus_id} committer")

    def submit(self, work: Work) -> None:
        self._context.call_home(self._enter, work)

    def ack(self, message: Message, delivery: Delivery) -> None:
        self._context.call_home(self._acked, message, delivery)

    def _acked(self, message: Message, delivery: Delivery) -> None:
        """What is acknowledged one after the other is one work."""
        if self._closed:
            return
        queue = self._queue
        acks = queue[-1] if queue else None
        if type(acks) is not Acks or acks.failed or acks.items >= MOST_ITEMS:
            acks = Acks(self._context)
            queue.append(acks)
            self._signal.set()
        acks.add(message, delivery)
        self._unfinished += 1

    def _enter(self, work: Work) -> None:
        if self._closed:
            work.done(Done(error=Closed()))
            return
        self._unfinished += work.persistent
        self._queue.append(work)
        self._signal.set()

    def _offer_first(self, works: Sequence[Work]) -> None:
        """They were here before what is in the queue."""
        self._queue.extendleft(reversed(works))
        self._signal.set()

    def _offer(self, works: Iterable[Work]) -> None:
        self._queue.extend(works)
        self._signal.set()

    def hurry(self) -> None:
        """The bus is closing: nothing is tried for ever from here on."""
        self._closing = True

    async def flush(self, timeout: float) -> bool:
        """Wait until everything persistent is done; False when it takes longer."""
        deadline = self._context.loop.time() + timeout
        while self._unfinished:
            self._quiet = self._context.loop.create_future()
            left = deadline - self._context.loop.time()
            if left <= 0 or not (await asyncio.wait({self._quiet}, timeout=left))[0]:
                return False
        return True

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._end()

    # The loop

    async def _run(self) -> None:
        try:
            while True:
                await self._step()
        finally:
            self._end()  # also when its loop cancels everything: nobody is to wait for an answer that nobody gives

    async def _step(self) -> None:
        while not self._queue:
            await self._signal.wait()
            self._signal.clear()
        await self._declarations.flush()
        batch = self._batch()
        if batch:
            await self._commit(batch)

    def _end(self) -> None:
        """Refuse what is left, and what comes."""
        self._closed = True
        for work in [*self._queue, *self._lanes.clear()]:
            self._finish(work, Done(error=Closed()))
        self._queue.clear()

    def _batch(self) -> list[Work]:
        """What failed before has one of its own: a publish that cannot be stored may be why."""
        batch: list[Work] = []
        count = size = 0
        queue = self._queue
        again = bool(queue) and queue[0].failed
        most = self._most if again else MOST_ITEMS
        while queue and queue[0].failed == again and size < MOST_BYTES:
            work = queue[0]
            items = work.items
            if batch and count + items > most:
                break
            queue.popleft()
            refusal = self._refusal(work)
            if refusal is not None:
                work.done(Done(error=refusal))
            elif type(work) is Batch and (self._lanes or self._declarations.refuses_any(work.publishes)):
                queue.extendleft(reversed(work.parts()))
            elif not (self._lanes and self._lanes.join(work)):
                batch.append(work)
                count += items
                size += work.size
        return batch

    def _refusal(self, work: Work) -> Exception | None:
        """Why it is not to be handed to the transport."""
        if work.persistent:
            return None
        if work.withdrawn():
            return Closed()
        return None if work.publish is None else self._declarations.refusal(work.publish.channel)

    async def _commit(self, batch: list[Work]) -> None:
        publishes, settlements = _parts(batch)
        try:
            result = await self._transport.commit(publishes, settlements)
            _check(self._transport.scheme, result, len(publishes), len(settlements))
        except asyncio.CancelledError:
            self._closed = True  # nothing is tried again: whoever waits is told now
            self._unknown(batch, Closed())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing is known of the whole batch
            self._context.count("commits_failed")
            self._unknown(batch, error)
        else:
            unknown = self._settle(batch, result)
            if unknown:
                self._unknown(unknown, Unavailable(self._transport.scheme, "it does not know what became of an item"))
            else:
                self._backoff.worked()
                if batch[0].failed:
                    self._most = min(self._most + self._most // 8 + 1, MOST_ITEMS)
            if publishes:
                await asyncio.sleep(0)  # who was answered may publish again at once: that shares the next commit

    def _settle(self, batch: Sequence[Work], result: CommitResult) -> list[Work]:
        """Answers those of which the transport does not know what became."""
        unknown: list[Work] = []
        published, settled, reasons, index, place = result.published, result.settled, result.reasons, 0, 0
        done = Done()
        for work in batch:
            if type(work) is Acks:
                first, place = place, place + work.items
                unknown += self._settle_acks(work, settled[first:place])
                continue
            if type(work) is Batch:
                first, index = index, index + work.items
                statuses = published[first:index]
                unknown += self._settle_many(work, statuses, {at - first: reasons[at] for at in reasons})
                continue
            status, reason = None, ""
            if work.publish is not None:
                status, reason = published[index], reasons.get(index, "") if reasons else ""
                index += 1
            verdict = None
            if work.settlement is not None:
                verdict = settled[place]
                place += 1
            if (status, verdict, reason) != done[:3]:
                done = Done(status, verdict, reason)
            if not self._sort(work, done):
                unknown.append(work)
        return unknown

    def _settle_many(self, batch: Batch, statuses: Sequence[PublishStatus], reasons: Mapping[int, str]) -> list[Work]:
        for channel in {
            envelope.channel
            for envelope, status in zip(batch.publishes, statuses, strict=True)
            if status is not PublishStatus.FULL and status is not PublishStatus.UNKNOWN
        }:
            self._lanes.took(channel)
        return [part for part, done in batch.answer(statuses, reasons) if not self._sort(part, done)]

    def _settle_acks(self, acks: Acks, statuses: Sequence[SettleStatus]) -> list[Work]:
        others = acks.answer(statuses)
        self._unfinished -= acks.items - len(others)
        self._look_whether_quiet()
        return [part for part, done in others if not self._sort(part, done)]

    def _sort(self, work: Work, done: Done) -> bool:
        """False when that says nothing."""
        published, settled, _, _ = done
        if published is PublishStatus.FULL:
            self._lanes.refused(work)
        elif published is PublishStatus.UNKNOWN or settled is SettleStatus.UNKNOWN:
            return False
        else:
            if work.publish is not None:
                self._lanes.took(work.publish.channel)
            self._finish(work, done)
        return True

    def _unknown(self, works: Sequence[Work], error: Exception) -> None:
        delay = 0.0 if self._closed else self._backoff.failed(error)
        if isinstance(error, NotStored):
            if not all(work.persistent for work in works):
                delay = 0.0  # without the publishes it may well be stored
            if items := sum(work.items for work in works if work.persistent):
                self._most = max(_LEAST, items // 2)
            works = [part for work in works for part in (work.parts() if type(work) is Acks else (work,))]
        for work in works:
            if work.persistent and self._patient(work):
                self._context.loop.call_later(delay, self._again, work)
            else:
                published = None if isinstance(error, NotStored) else PublishStatus.UNKNOWN
                self._finish(work, Done(published, SettleStatus.UNKNOWN, error=error))

    def _patient(self, work: Work) -> bool:
        now = self._context.clock.monotonic_ns()
        if work.unknown_since is None:
            work.unknown_since = now
        return not self._closed and not (self._closing and now - work.unknown_since > _PATIENCE_NS)

    def _again(self, work: Work) -> None:
        if self._closed:
            self._finish(work, Done(error=Closed()))
        else:
            self._offer((work,))

    def _finish(self, work: Work, done: Done) -> None:
        self._unfinished -= work.items if work.persistent else 0
        work.done(done)
        self._look_whether_quiet()

    def _look_whether_quiet(self) -> None:
        if not self._unfinished and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)


def _check(scheme: str, result: CommitResult, publishes: int, settlements: int) -> None:
    got = len(result.published), len(result.settled)
    if got != (publishes, settlements):
        raise TransportError(
            f"the transport {scheme} answered {got[0]} and {got[1]} statuses to {publishes} publishes and {settlements}"
            " settlements: a CommitResult has one for each, in their order"
        )


def _parts(batch: Sequence[Work]) -> tuple[list[Envelope], list[Settlement]]:
    publishes: list[Envelope] = []
    settlements: list[Settlement] = []
    for work in batch:
        if type(work) is Batch:
            publishes += work.publishes
        elif type(work) is Acks:
            settlements += work.settlements
        if work.publish is not None:
            publishes.append(work.publish)
        if work.settlement is not None:
            after = None if work.publish is None else len(publishes) - 1
            settlements.append(work.settlement if after is None else replace(work.settlement, after=after))
    return publishes, settlements
