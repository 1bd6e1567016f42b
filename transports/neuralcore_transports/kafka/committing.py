"""Tells the broker what a group has settled: one commit at a time, as often as there is something to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, TopicPartition

from neuralcore.messaging.errors import LeaseLost
from neuralcore.messaging.transport import Settlement
from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.partition import Entry, Partition
from neuralcore_transports.kafka.together import Job, Jobs
from neuralcore_transports.kafka.window import Commit, Window

__all__ = ["Committing"]

_AGAIN: Final = 0.1
_LATE: Final = 30.0
"""Seconds after which a commit of which nothing was heard is taken for failed."""

_Send = Callable[[list[TopicPartition]], None]
_Transact = Callable[[list[Job], list[TopicPartition], Collection[Place]], Coroutine[Any, Any, None]]


class Committing:
    """On the loop."""

    def __init__(
        self,
        name: str,
        send: _Send,
        transact: _Transact,
        *,
        more: Callable[[Partition], None],
        settled: Callable[[Sequence[Settlement]], object],
    ) -> None:
        """``send`` begins a commit, of which ``told`` will hear; ``transact`` makes one that is part of a transaction.
        After it a partition may hand out ``more``, and what was ``settled`` by the transaction is.
        """
        self._name = name
        self._send = send
        self._transact = transact
        self._more = more
        self._settled = settled
        self._jobs = Jobs()
        self._transaction: asyncio.Task[None] | None = None
        """The commit under way is part of it."""
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[Partition, None] = {}
        self._sent: dict[tuple[str, int], tuple[Partition, Window, Commit]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        """For the next commit."""
        self._answered: list[asyncio.Future[None]] = []
        """When the one under way is."""
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._late: asyncio.TimerHandle | None = None

    def want(self, partition: Partition) -> None:
        self._wanted[partition] = None
        self._soon()

    def together(self, job: Job) -> None:
        """Settle it, in a transaction with its records."""
        self._jobs.add(job)
        self._soon()

    def _soon(self) -> None:
        if not self._sent and self._timer is None:
            self._timer = self._loop.call_soon(self._begin)

    def confirmed(self) -> asyncio.Future[None]:
        """Done when the broker has what is wanted now."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._wanted:
            self._waiting.append(future)
        elif self._sent:
            self._answered.append(future)
        else:
            future.set_result(None)
        return future

    def forget(self, partition: Partition) -> None:
        """It is not this process's any more."""
        self._wanted.pop(partition, None)

    def _begin(self) -> None:
        self._timer = None
        if self._sent:
            return
        jobs = [job for job in self._jobs.take() if _is_held(job)]
        also: dict[Partition, list[int]] = {}
        for job in jobs:
            entry = _entry_of(job)
            also.setdefault(entry.partition, []).append(entry.offset)
        parts = [partition for partition in {**self._wanted, **also} if partition.owned]
        self._wanted.clear()
        self._answered, self._waiting = self._waiting, []
        offsets = []
        for partition in parts:
            commit = partition.commit(also.get(partition, ()))
            self._sent[partition.key] = partition, partition.window, commit
            offsets.append(TopicPartition(*partition.key, commit.offset, commit.metadata))
        if not parts:
            self._done()
            return
        if jobs:
            self._transaction = self._loop.create_task(self._transacted(jobs, offsets, list(also)))
            return
        self._late = self._loop.call_later(_LATE, self.told, KafkaError(KafkaError._TIMED_OUT), ())
        self._send(offsets)

    async def _transacted(
        self, jobs: list[Job], offsets: list[TopicPartition], partitions: Sequence[Partition]
    ) -> None:
        for partition in partitions:
            partition.in_transaction = True
        error: Exception | None = None
        try:
            await self._transact(jobs, offsets, [partition.key for partition in partitions])
        except Exception as raised:  # noqa: BLE001 - whatever it is, who waits is told
            error = raised
        for partition in partitions:
            partition.in_transaction = False
        self._transaction = None
        if error is None:
            self._settled([job.settlement for job in jobs if job.settlement is not None])
            for job in jobs:
                job.end()
            self.told(None, ())
        else:
            self._jobs.failed(jobs, error)
            self.told(KafkaError(KafkaError._FAIL, f"its transaction failed: {error}"), ())

    def told(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What became of the commit under way."""
        if self._transaction is not None or any(not self._is_sent(each) for each in partitions):
            return  # one that was given up
        if not self._sent:
            return
        if self._late is not None:
            self._late.cancel()
            self._late = None
        errors = {(each.topic, each.partition): each.error for each in partitions}
        failed = None
        for key, (partition, window, commit) in self._sent.items():
            wrong = error if error is not None else errors.get(key)
            if not partition.owned or partition.window is not window:  # it has gone, or goes on elsewhere
                continue
            if wrong is None:
                partition.window.committed(commit)
                self._more(partition)
            else:
                failed = wrong
                partition.window.not_committed()
                self._wanted[partition] = None
        self._sent.clear()
        if failed is None:
            self._done()
        else:
            log.info("a commit of %s failed, it is tried again: %s", self._name, failed.str())
            self._waiting = self._answered + self._waiting
            self._answered = []
            self._timer = self._loop.call_later(_AGAIN, self._begin)

    def _is_sent(self, told: TopicPartition) -> bool:
        sent = self._sent.get((told.topic, told.partition))
        return sent is not None and (sent[2].offset, sent[2].metadata) == (told.offset, told.metadata)

    def _done(self) -> None:
        for future in self._answered:
            if not future.done():
                future.set_result(None)
        self._answered = []
        if self._wanted or self._waiting or self._jobs:
            self._timer = self._loop.call_soon(self._begin)

    def close(self) -> None:
        """Nothing is sent any more."""
        for timer in (self._timer, self._late):
            if timer is not None:
                timer.cancel()
        self._sent.clear()
        self._wanted.clear()
        self._jobs.give_up(LeaseLost())
        for future in self._answered + self._waiting:
            if not future.done():
                future.set_result(None)


def _is_held(job: Job) -> bool:
    """Tells whoever waits for it if not."""
    assert job.settlement is not None
    delivery = job.settlement.delivery
    if _entry_of(job).partition.holds(delivery):
        return True
    job.end(LeaseLost(delivery.envelope.channel, delivery.envelope.id))
    return False


def _entry_of(job: Job) -> Entry:
    assert job.settlement is not None
    entry = job.settlement.delivery.lease
    assert isinstance(entry, Entry)
    return entry
