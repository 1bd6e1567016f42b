"""What ``bus.transaction()`` and ``message.transaction()`` do on Kafka: it is kept until the end of the block, and then
goes to the brokers in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from neuralcore.messaging.errors import Closed, TransactionUnknown
from neuralcore.messaging.transport import (
    CommitResult,
    Envelope,
    PublishStatus,
    Settlement,
    SettleStatus,
    Transaction,
)
from neuralcore_transports.kafka.publisher import Outgoing
from neuralcore_transports.kafka.together import Job, Jobs
from neuralcore_transports.kafka.transactor import InDoubt, Settled, Transactor

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["KafkaTransaction", "Publishing", "Transacting"]


class Transacting:
    """A transactor and its thread, made when they are first wanted."""

    def __init__(self, transport: KafkaTransport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._transactor: Transactor

    async def __call__(self, jobs: Sequence[Job], settled: Callable[[], Settled] | None = None) -> None:
        """Raises what ``Transactor.commit`` raises, InDoubt also when it is cancelled, as it is when its loop ends."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, f"kafka {self._name}")
            self._transactor = self._transport.transactor(self._name)
        records: list[Outgoing] = [record for job in jobs for record in job.records]
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._transactor.commit, records, settled)
        except asyncio.CancelledError as error:
            raise InDoubt("its event loop ended before it did") from error

    def close(self) -> None:
        if self._thread is not None:
            self._thread.submit(self._transactor.close)
            self._thread.shutdown(wait=False)


class Publishing:
    """Transactions that settle nothing."""

    def __init__(self, transacting: Transacting) -> None:
        self._transacting = transacting
        self._jobs = Jobs()
        self._running: asyncio.Task[None] | None = None

    def together(self, job: Job) -> None:
        self._jobs.add(job)
        if self._jobs and self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while jobs := self._jobs.take():
                try:
                    await self._transacting(jobs)
                except Exception as error:  # noqa: BLE001 - whatever it is, who waits is told
                    self._jobs.failed(jobs, error)
                else:
                    for job in jobs:
                        job.end()
        finally:
            self._running = None

    async def close(self) -> None:
        """What has begun ends."""
        self._jobs.close(Closed("the Kafka transport"))
        if self._running is not None:
            await self._running
        self._transacting.close()


class KafkaTransaction(Transaction):
    def __init__(self, transport: KafkaTransport) -> None:
        self._transport = transport
        self._envelopes: list[Envelope] = []
        self._settlement: Settlement | None = None

    async def __aenter__(self) -> KafkaTransaction:
        return self

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        """One settlement at most."""
        self._envelopes += publishes
        statuses = [self._keep(each) for each in settlements]
        return CommitResult([PublishStatus.STORED] * len(publishes), statuses)

    def _keep(self, settlement: Settlement) -> SettleStatus:
        if self._settlement is not None:
            raise ValueError("a transaction ends one message")
        if not settlement.delivery.lease.partition.holds(settlement.delivery):  # type: ignore[attr-defined]
            return SettleStatus.LEASE_LOST
        self._settlement = settlement
        return SettleStatus.SETTLED

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises LeaseLost, PublishError, TransportError when nothing of it has happened, and TransactionUnknown."""
        if kind is not None or not (self._envelopes or self._settlement):
            return
        records = await self._transport.prepared(self._envelopes)
        job = Job(records, self._settlement, patience=self._transport.options.patience)
        self._transport.together(job)
        try:
            await _ended(job)
        except InDoubt as doubt:
            raise TransactionUnknown([each.id for each in self._envelopes], str(doubt)) from doubt


async def _ended(job: Job) -> None:
    """Who is cancelled meanwhile learns of that when it is over: it may have happened."""
    cancelled: asyncio.CancelledError | None = None
    while not job.done.done():
        try:
            await asyncio.wait({job.done})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        job.done.exception()  # nobody else asks
        raise cancelled
    job.done.result()
